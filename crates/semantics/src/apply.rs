//! Server-side apply and the tracking of who set which field.
//!
//! ```text
//!   create, update, patch:  (live, object)        -> track -> object with managedFields
//!   apply:                  (live, configuration) -> apply -> merged object with managedFields, or conflicts
//! ```
//! Source: structured merge and diff as the API documents it for server-side apply. Both run on the object as the client
//! sent it (decoded and defaulted), before the strategy prepares it; what the strategy will reset is given as `reset`.
//! Conversion between versions is not done here: the entries of all versions are read by one schema.

mod conformity;
mod field_set;
mod managers;
pub mod scale;
mod shape;
mod walk;

use api::schema::MessageRef;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use field_set::FieldSet;

use managers::{Manager, Managers};
use shape::{Shape, empty_of};
use walk::{Comparison, compare, merge, paths_of, remove};

/// The annotation that client-side apply keeps.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Owner of what was there before an object was first tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const NAME_LETTERS_MAX: usize = 128;

/// Never owned by anyone.
const UNOWNED: [&[&str]; 11] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Who writes, and to what.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    /// The field manager; see [`manager_name`].
    pub manager: &'a str,
    /// The version the request is in, such as `apps/v1`.
    pub api_version: &'a str,
    /// `""` for the object itself, else `status`, `scale`, ...
    pub subresource: &'a str,
    pub now: Timestamp,
    /// The kind's schema; `None` for kinds without one.
    pub message: Option<MessageRef>,
    /// Paths this write cannot own: `Strategy::reset_fields`.
    pub reset: Vec<Vec<&'static str>>,
}

/// Why an apply is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// 409 Conflict: others own fields of the configuration with other values. Causes are `(message, field)` of type
    /// `FieldManagerConflict`.
    #[error("{message}")]
    Conflicts { message: String, causes: Vec<(String, String)> },
    /// 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// The configuration does not conform to the schema: 500, as ever.
    #[error("failed to create typed patch object {0}")]
    Untyped(String),
}

/// What is applied.
#[derive(Debug, Clone, Copy)]
pub struct Configuration<'a> {
    /// As the client sent it: says which fields it owns.
    pub sent: &'a Value,
    /// The same, decoded: says which values they get.
    pub decoded: &'a Value,
}

/// Whether a configuration can be applied at all, before anything is decoded. Errors: managed fields of its own, or what the
/// schema does not allow.
pub fn check(sent: &Value, message: Option<MessageRef>) -> Result<(), ApplyError> {
    if !sent["metadata"]["managedFields"].is_null() {
        return Err(ApplyError::Malformed("metadata.managedFields must be nil".to_owned()));
    }
    let Some(message) = message else { return Ok(()) };
    let errors = conformity::check(sent, message);
    let text = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    Err(ApplyError::Untyped(format!("({}): {text}", described(sent))))
}

/// `namespace/name; group/version, Kind=kind`, with whatever is there.
fn described(sent: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&sent["metadata"]["namespace"]), text(&sent["metadata"]["name"]));
    format!("{namespace}/{name}; {}", type_of(sent))
}

/// `group/version, Kind=kind`, with whatever is there.
pub fn type_of(sent: &Value) -> String {
    let (group, version) = api::kinds::split_api_version(sent["apiVersion"].as_str().unwrap_or_default());
    format!("{group}/{version}, Kind={}", sent["kind"].as_str().unwrap_or_default())
}

/// The manager of a request: the `fieldManager` option, else the user agent up to its first slash.
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let prefix = user_agent.split('/').next().unwrap_or_default();
    prefix.chars().filter(|c| !c.is_control()).take(NAME_LETTERS_MAX).collect()
}

/// Records the writer as the owner of what it changed from `live` (absent at creation) to `object`.
pub fn track(writer: &Writer<'_>, object: &mut Value, live: Option<&Value>) {
    let known = known_managers(writer, object, live);
    let untracked = known.is_empty() && live.is_some();
    let mut managers = known;
    if !untracked {
        let empty;
        let old = match live {
            Some(live) => live,
            None => {
                empty = empty_of(writer.message);
                &empty
            }
        };
        record_update(&mut managers, &writer.owner(false), old, object, writer);
        managers.cap();
    }
    managers.write_to(object);
}

/// Merges the configuration into the live object (absent: it is created). Fields that this manager applied before and no
/// longer does are removed, unless someone else owns them. Errors: conflicts, unless forced; a malformed configuration.
pub fn apply(
    writer: &Writer<'_>,
    live: Option<&Value>,
    config: Configuration<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let base = live.cloned().unwrap_or_else(|| json!({}));
    let mut managers = Managers::of(&base);
    if managers.is_empty() && live.is_some() {
        let before = Manager { name: BEFORE_FIRST_APPLY.to_owned(), ..writer.owner(false) };
        let before = Manager { subresource: String::new(), ..before };
        record_update(&mut managers, &before, &empty_of(writer.message), &base, writer);
    }
    let result = apply_to(writer, &base, config, managers.clone(), force);
    let (mut object, managers) = match result {
        Err(conflicts) if writer.manager == "kubectl" => forgive(writer, &base, config, managers, conflicts)?,
        other => other?,
    };
    managers.write_to(&mut object);
    if writer.manager == "kubectl" && !base["metadata"]["annotations"][LAST_APPLIED].is_null() {
        object["metadata"]["annotations"][LAST_APPLIED] = json!(last_applied(config.decoded));
    }
    Ok(object)
}

impl Writer<'_> {
    fn owner(&self, applied: bool) -> Manager {
        Manager {
            name: if self.manager.is_empty() { "unknown".to_owned() } else { self.manager.to_owned() },
            applied,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: crate::time::rfc3339(self.now),
            fields: FieldSet::default(),
        }
    }

    fn shape(&self) -> Shape {
        Shape::of_message(self.message)
    }

    fn owned(&self, set: FieldSet) -> FieldSet {
        strip_unowned(self.without_reset(set))
    }

    /// `set` without what the strategy resets.
    fn without_reset(&self, set: FieldSet) -> FieldSet {
        self.reset.iter().fold(set, |set, fields| set.without_prefix(fields))
    }
}

fn strip_unowned(set: FieldSet) -> FieldSet {
    let mut doomed = FieldSet::default();
    doomed.insert(&["f:metadata".to_owned()]);
    UNOWNED.iter().fold(set, |set, fields| set.without_prefix(fields)).difference(&doomed)
}

/// The entries to start from: the client's own, if it sent some, else those of the live object. An empty list sent by
/// the client resets the tracking.
fn known_managers(writer: &Writer<'_>, object: &Value, live: Option<&Value>) -> Managers {
    let stored = || live.map(Managers::of).unwrap_or_default();
    if !writer.subresource.is_empty() {
        return stored();
    }
    let sent = &object["metadata"]["managedFields"];
    let reset = sent.as_array().is_some_and(|entries| match entries.as_slice() {
        [] => true,
        [one] => one.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    });
    let own = Managers::of(object);
    if reset {
        Managers::default()
    } else if own.is_empty() {
        stored()
    } else {
        own
    }
}

fn record_update(managers: &mut Managers, owner: &Manager, old: &Value, new: &Value, writer: &Writer<'_>) {
    let difference = compare(old, new, writer.shape()).without(&writer.reset);
    let Comparison { added, modified, removed } = difference;
    let changed = added.union(&modified);
    // All lose what changed, also the writer's earlier entry: it gets it back below, if it may own it.
    managers.take_from_others(None, &changed);
    managers.take_from_others(None, &removed);
    let mine = writer.owned(changed);
    if mine.is_empty() {
        return;
    }
    let before = managers.find(owner).map(|manager| manager.fields.clone()).unwrap_or_default();
    managers.set(Manager { fields: before.union(&mine), ..owner.clone() });
}

fn apply_to(
    writer: &Writer<'_>,
    live: &Value,
    config: Configuration<'_>,
    mut managers: Managers,
    force: bool,
) -> Result<(Value, Managers), ApplyError> {
    let shape = writer.shape();
    let owner = writer.owner(true);
    let merged = merge(live, config.decoded, shape)
        .map_err(|detail| ApplyError::Untyped(format!("({}): {detail}", described(config.sent))))?;
    let last = managers.find(&owner).cloned();
    // Name and the like are owned while pruning, so that they stay, but never written as owned.
    let paths = writer.without_reset(paths_of(config.sent, shape));
    let mut applied = Manager { fields: strip_unowned(paths.clone()), ..owner.clone() };
    managers.set(Manager { fields: paths, ..owner.clone() });
    let object = match &last {
        Some(last) => prune(merged, &last.fields, &managers, shape),
        None => merged,
    };
    let difference = compare(live, &object, shape).without(&writer.reset);
    let changed = difference.added.union(&difference.modified);
    if !force {
        refuse_conflicts(&managers, &owner, &changed)?;
    }
    managers.take_from_others(Some(&owner), &changed);
    managers.take_from_others(Some(&owner), &difference.removed);
    if crate::semantic_eq::semantic_eq(&without_managers(live), &without_managers(&object)) {
        // Only a change of the object has a time.
        let same = last.filter(|last| last.fields == applied.fields);
        applied.time = same.map(|last| last.time).unwrap_or_default();
    }
    managers.set(applied);
    Ok((object, managers))
}

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    crate::strategy::metadata(&mut object).remove("managedFields");
    object
}

/// Removes what `last` had and nobody owns any more, and nothing else.
fn prune(merged: Value, last: &FieldSet, managers: &Managers, shape: Shape) -> Value {
    if last.is_empty() {
        return merged;
    }
    let named = |set: &FieldSet| set.mark_members(shape, &|shape: Shape, element: &str| shape.below(element));
    let gone = || Value::Object(serde_json::Map::new());
    let merged_paths = named(&paths_of(&merged, shape));
    let last = named(last);
    let bare = remove(&merged, &last, shape).unwrap_or_else(gone);
    let kept = named(&paths_of(&bare, shape)).union(&named(&managers.all_fields()));
    let owned = remove(&merged, &merged_paths.clone().difference(&kept), shape).unwrap_or_else(gone);
    let owned_paths = named(&paths_of(&owned, shape));
    let doomed = merged_paths.difference(&owned_paths).intersection(&last);
    remove(&merged, &doomed, shape).unwrap_or_else(gone)
}

fn refuse_conflicts(managers: &Managers, owner: &Manager, changed: &FieldSet) -> Result<(), ApplyError> {
    let mut found: Vec<(String, Vec<String>)> = managers
        .others(owner)
        .map(|manager| (manager.printed(), manager.fields.intersection(changed).printed_paths()))
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    found.sort();
    conflicts_error(&found)
}

fn conflicts_error(found: &[(String, Vec<String>)]) -> Result<(), ApplyError> {
    let causes: Vec<(String, String)> = found
        .iter()
        .flat_map(|(who, paths)| paths.iter().map(move |path| (format!("conflict with {who}"), path.clone())))
        .collect();
    let message = match causes.as_slice() {
        [] => return Ok(()),
        [(message, path)] => format!("Apply failed with 1 conflict: {message}: {path}"),
        many => {
            let lines: Vec<String> = found
                .iter()
                .flat_map(|(who, paths)| {
                    let head = format!("conflicts with {who}:");
                    std::iter::once(head).chain(paths.iter().map(|path| format!("- {path}")))
                })
                .collect();
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    Err(ApplyError::Conflicts { message, causes })
}

/// kubectl may take over, without force, what client-side apply set and nobody has changed since.
fn forgive(
    writer: &Writer<'_>,
    live: &Value,
    config: Configuration<'_>,
    managers: Managers,
    error: ApplyError,
) -> Result<(Value, Managers), ApplyError> {
    let ApplyError::Conflicts { causes, .. } = &error else { return Err(error) };
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    let Ok(last) = serde_json::from_str::<Value>(text) else { return Err(error) };
    if last["apiVersion"] != json!(writer.api_version) {
        return Err(error);
    }
    let shape = writer.shape();
    let since = compare(&last, live, shape);
    let untouched =
        paths_of(&last, shape).difference(&since.modified).difference(&since.added).difference(&since.removed);
    let allowed = untouched.printed_paths();
    let mut left: Vec<(String, Vec<String>)> = Vec::new();
    for (message, path) in causes.iter().filter(|(_, path)| !allowed.contains(path)) {
        let who = message.trim_start_matches("conflict with ").to_owned();
        match left.last_mut().filter(|(last, _)| *last == who) {
            Some((_, paths)) => paths.push(path.clone()),
            None => left.push((who, vec![path.clone()])),
        }
    }
    conflicts_error(&left)?;
    apply_to(writer, live, config, managers, true)
}

/// The configuration as client-side apply would store it.
fn last_applied(config: &Value) -> String {
    let mut config = without_managers(config);
    if let Some(annotations) = config["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    } else if let Some(meta) = config["metadata"].as_object_mut() {
        meta.remove("annotations");
    }
    format!("{config}\n")
}

#[cfg(test)]
mod tests;

//! The kinds that are served: one row each, everything else about a kind is derived from its row or its schema.
//!
//! Input: the rows of `kinds/table.rs`. Output: [`Kind`]s with their schema messages resolved, found by resource or by
//! kind. Discovery, REST paths, storage keys, field selectors and the generic handler read nothing but this.
//! Adding a kind is one row here, a strategy in `semantics`, and its columns.

mod table;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::schema::{self, MessageRef};

/// A served kind in one version.
#[derive(Debug)]
pub struct Kind {
    /// Empty for core.
    pub group: &'static str,
    pub version: &'static str,
    /// `v1`, `apps/v1`.
    pub api_version: &'static str,
    pub kind: &'static str,
    /// `PodList`; kinds that cannot be listed have none.
    pub list_kind: Option<String>,
    /// The resource name in paths, such as `pods`.
    pub plural: &'static str,
    pub singular: String,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// Key prefix below the store's root, such as `services/specs`; `None` for kinds that are never stored.
    pub storage_prefix: Option<&'static str>,
    /// The version in which the kind is stored (`apiVersion`); events of `events.k8s.io` are stored as core events.
    pub storage_api_version: &'static str,
    /// On the collection and the object, in discovery's order (sorted).
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// A delete answers with the object itself instead of a `Status`, also when it is gone at once.
    pub returns_deleted: bool,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [Selectable],
    pub message: MessageRef,
    pub list_message: Option<MessageRef>,
}

/// Something below an object's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `log`, ...
    pub name: &'static str,
    /// `apiVersion` of the body's kind; empty when it is the parent's own.
    pub api_version: &'static str,
    /// Kind of the body; empty when it is the parent's own.
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// A label of `?fieldSelector=` and where its value is in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selectable {
    pub label: &'static str,
    /// Dotted JSON path.
    pub path: &'static str,
}

impl Kind {
    /// `pods`, `deployments.apps`: the resource with its group, as error texts and RBAC print it.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects of this kind are kept in the store.
    pub fn is_stored(&self) -> bool {
        self.storage_prefix.is_some()
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether there is a `status` subresource, so that plain updates leave the status alone.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Where the value of a field-selector label is; an `Err` is upstream's message for an unknown label.
    pub fn field_path(&self, label: &str) -> Result<&'static str, String> {
        match label {
            "metadata.name" => return Ok("metadata.name"),
            "metadata.namespace" if self.namespaced || self.selectable_fields.is_empty() => {
                return Ok("metadata.namespace");
            }
            _ => {}
        }
        if let Some(field) = self.selectable_fields.iter().find(|field| field.label == label) {
            return Ok(field.path);
        }
        Err(if self.selectable_fields.is_empty() {
            format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        } else {
            format!("field label not supported: {label}")
        })
    }
}

impl Subresource {
    /// Group, version and kind of the body, given the parent's.
    pub fn body_kind<'a>(&'a self, parent: &'a Kind) -> (&'a str, &'a str) {
        if self.kind.is_empty() { (parent.api_version, parent.kind) } else { (self.api_version, self.kind) }
    }
}

/// Splits `apps/v1` into group and version; the core group is empty.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// All kinds: core first, then the groups in discovery's order, resources sorted within a version.
pub fn all() -> &'static [Kind] {
    &index().kinds
}

/// By path parts: `("apps", "v1", "deployments")`.
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    let candidates = index().by_plural.get(plural)?;
    candidates.iter().map(|&at| &all()[at]).find(|kind| kind.group == group && kind.version == version)
}

/// By group, version and kind: `("", "v1", "Pod")`.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    let candidates = index().by_kind.get(kind)?;
    candidates.iter().map(|&at| &all()[at]).find(|kind| kind.group == group && kind.version == version)
}

/// Groups with their versions, preferred version first, in discovery's order; core is the empty group.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for kind in all() {
        match groups.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version),
            None => groups.push((kind.group, vec![kind.version])),
        }
    }
    groups
}

struct Index {
    kinds: Vec<Kind>,
    by_plural: HashMap<&'static str, Vec<usize>>,
    by_kind: HashMap<&'static str, Vec<usize>>,
}

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let kinds: Vec<Kind> = table::ROWS.iter().filter_map(resolve).collect();
        let mut index = Index { kinds, by_plural: HashMap::new(), by_kind: HashMap::new() };
        for (at, kind) in index.kinds.iter().enumerate() {
            index.by_plural.entry(kind.plural).or_default().push(at);
            index.by_kind.entry(kind.kind).or_default().push(at);
        }
        index
    })
}

/// A row whose message is not in the schema table is left out; a test fails then.
fn resolve(row: &'static table::Row) -> Option<Kind> {
    let (group, version) = split_api_version(row.api_version);
    let list_kind = row.verbs.contains(&"list").then(|| format!("{}List", row.kind));
    Some(Kind {
        group,
        version,
        api_version: row.api_version,
        kind: row.kind,
        list_message: list_kind.as_deref().and_then(|kind| schema::by_kind(group, version, kind)),
        list_kind,
        plural: row.plural,
        singular: row.kind.to_ascii_lowercase(),
        short_names: row.short_names,
        categories: row.categories,
        namespaced: row.namespaced,
        storage_prefix: row.storage_prefix,
        storage_api_version: row.storage_api_version,
        verbs: row.verbs,
        subresources: row.subresources,
        returns_deleted: row.returns_deleted,
        selectable_fields: row.selectable_fields,
        message: schema::by_kind(group, version, row.kind)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_messages() {
        assert_eq!(all().len(), table::ROWS.len());
        for kind in all() {
            assert_eq!(kind.list_kind.is_some(), kind.list_message.is_some(), "{}", kind.kind);
            assert!(kind.verbs.is_sorted(), "{}", kind.kind);
            for subresource in kind.subresources {
                let (api_version, body) = subresource.body_kind(kind);
                let (group, version) = split_api_version(api_version);
                assert!(schema::by_kind(group, version, body).is_some(), "{}/{}", kind.plural, subresource.name);
            }
            for field in kind.selectable_fields {
                assert!(crate::selector::field_type(kind.message, field.path).is_some(), "{}", field.path);
            }
        }
    }

    #[test]
    fn lookups_agree() {
        let pods = by_resource("", "v1", "pods").unwrap();
        assert_eq!(pods.kind, "Pod");
        assert!(std::ptr::eq(pods, by_kind("", "v1", "Pod").unwrap()));
        assert_eq!(by_resource("", "v1", "nodes").unwrap().storage_prefix, Some("minions"));
        assert!(by_resource("apps", "v1", "pods").is_none());
        assert_eq!(by_kind("events.k8s.io", "v1", "Event").unwrap().storage_api_version, "v1");
        assert_eq!(groups()[0], ("", vec!["v1"]));
    }

    #[test]
    fn unknown_field_labels_fail_as_upstream() {
        let pods = by_resource("", "v1", "pods").unwrap();
        assert_eq!(pods.field_path("spec.nodeName"), Ok("spec.nodeName"));
        assert_eq!(pods.field_path("spec.foo"), Err("field label not supported: spec.foo".to_owned()));
        let maps = by_resource("", "v1", "configmaps").unwrap();
        let message = "\"a.b\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
        assert_eq!(maps.field_path("a.b"), Err(message.to_owned()));
    }
}

//! Delete: preconditions, grace, finalizers and propagation; then the object goes, or is marked and waits.
//!
//! ```text
//! options + current -> decide -> Gone now | Marked (deletionTimestamp, finalizers) | Pending (already under way)
//! ```
//!
//! Invariants: an object with finalizers is never removed here; a Pod that runs on a node is removed only with a grace period
//! of 0 (by its kubelet, or by force); a Namespace only once its content is gone.

use std::sync::Arc;

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use semantics::field::Errors;
use serde_json::{Value, json};

use super::admit::{Admit, options};
use super::body::{self, Expected};
use super::update::is_namespace;
use super::{Call, success};
use crate::body::Body;
use crate::cache::Entry;
use crate::chain::Operation;
use crate::encode::Encoder;
use crate::error::ApiError;
use crate::negotiate::{Representation, negotiate_input};
use crate::policy::{self, DefaultPropagation};
use crate::registry::write::{Committed, PutRequest};
use crate::request::Query;
use crate::write_options::{self, FieldValidation, OptionsKind, WriteOptions};

const ATTEMPTS: usize = 30;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// DeleteOptions, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
    /// `orphanDependents: false` was said: the answer to a pending deletion is 202.
    pub accepted: bool,
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// What a delete does to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum DeletePlan {
    /// Remove it. `mark` first when watchers have to see that it was being deleted.
    Remove { mark: Option<Box<Value>> },
    /// Write this; somebody else completes the deletion.
    Mark(Box<Value>),
    /// Nothing to do: its deletion is under way.
    Pending,
}

/// The result of a delete.
pub enum Deleted {
    Gone(Arc<Entry>),
    Waits(Arc<Entry>),
}

pub async fn delete(call: &Call, request_body: Body) -> Result<Response<Body>, ApiError> {
    call.plain_output()?;
    let bytes = body::read(request_body, call.core.config.body_bytes_max).await?;
    let asked = parse_options(call, &bytes)?;
    let base = call.current()?;
    match delete_entry(call, base, &asked).await? {
        Deleted::Waits(entry) => {
            let code = if asked.accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
            call.reply(code, &entry)
        }
        Deleted::Gone(entry) => {
            if policy::returns_deleted_object(&call.resource.group, &call.resource.plural) {
                return call.reply(StatusCode::OK, &entry);
            }
            let uid = Encoder::new(call.resource.clone(), Representation::JSON).served_value(&entry)?;
            let uid = uid["metadata"]["uid"].as_str().unwrap_or_default();
            call.reply_value(StatusCode::OK, &success(&call.resource, Some(&entry), uid))
        }
    }
}

/// Reads options from the body, or from the query when there is no body.
pub fn parse_options(call: &Call, bytes: &[u8]) -> Result<DeleteOptions, ApiError> {
    let mut value = json!({});
    if !bytes.is_empty() {
        let media = negotiate_input(&call.headers)?;
        let api_version = found_api_version(bytes);
        let expected = Expected {
            api_version: &api_version,
            kind: "DeleteOptions",
            message: api::schema::message("meta/v1.DeleteOptions"),
        };
        value = body::decode_or_fail(bytes, media, expected, FieldValidation::Ignore, &call.warnings)
            .map_err(|failure| failure.of_options(expected))?;
    }
    for name in ["propagationPolicy", "gracePeriodSeconds", "orphanDependents"] {
        if bytes.is_empty() {
            query_option(&call.query, name, &mut value)?;
        }
    }
    let mut asked = check_options(&value)?;
    asked.dry_run |= WriteOptions::parse(&call.query, OptionsKind::Delete)?.dry_run;
    Ok(asked)
}

/// DeleteOptions come in the version of `meta.k8s.io`, of the core group, or of the resource's own group.
fn found_api_version(bytes: &[u8]) -> String {
    if let Ok(unknown) = api::codec::envelope::unwrap(bytes) {
        return unknown.api_version.to_owned();
    }
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    value["apiVersion"].as_str().unwrap_or("v1").to_owned()
}

fn query_option(query: &Query, name: &str, value: &mut Value) -> Result<(), ApiError> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { return Ok(()) };
    value[name] = match name {
        "gracePeriodSeconds" => json!(query.number(name)?),
        "orphanDependents" => json!(query.flag(name)),
        _ => json!(text),
    };
    Ok(())
}

pub fn check_options(value: &Value) -> Result<DeleteOptions, ApiError> {
    let invalid = |field: &str, reason: &str, message: String| {
        let cause = json!({"reason": reason, "message": message, "field": field});
        Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]))
    };
    let orphan = value["orphanDependents"].as_bool();
    let policy = value["propagationPolicy"].as_str();
    if orphan.is_some() && policy.is_some() {
        let message = format!(
            "Invalid value: {:?}: orphanDependents and deletionPropagation cannot be both set",
            policy.unwrap_or_default()
        );
        return invalid("propagationPolicy", "FieldValueInvalid", message);
    }
    let propagation = match (orphan, policy) {
        (Some(true), _) | (None, Some("Orphan")) => Some(Propagation::Orphan),
        (Some(false), _) | (None, Some("Background")) => Some(Propagation::Background),
        (None, Some("Foreground")) => Some(Propagation::Foreground),
        (None, None) => None,
        (None, Some(other)) => {
            let message = format!(
                "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            );
            return invalid("propagationPolicy", "FieldValueNotSupported", message);
        }
    };
    let runs: Vec<&str> = value["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut errors = Errors::new();
    write_options::check_dry_run(&runs, &mut errors);
    write_options::refuse(OptionsKind::Delete, errors)?;
    let text = |field: &str| value["preconditions"][field].as_str().map(str::to_owned);
    Ok(DeleteOptions {
        grace_seconds: value["gracePeriodSeconds"].as_i64().map(|s| if s < 0 { 1 } else { s }),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        propagation,
        accepted: orphan == Some(false),
        dry_run: !runs.is_empty(),
    })
}

/// Deletes one object, on the newest state until it is done.
pub async fn delete_entry(call: &Call, base: Arc<Entry>, asked: &DeleteOptions) -> Result<Deleted, ApiError> {
    let decoder = Encoder::new(call.resource.clone(), Representation::JSON);
    let mut base = base;
    for _ in 0..ATTEMPTS {
        let old = Arc::new(decoder.served_value(&base)?);
        check_preconditions(call, base.name(), &old, asked)?;
        let mut request = call.admission_request(Admit {
            operation: Operation::Delete,
            name: base.name().to_owned(),
            object: None,
            old_object: Some(old.clone()),
            options: options("DeleteOptions", call, asked.dry_run),
            dry_run: asked.dry_run,
        });
        call.mutate(&mut request).await?;
        call.validate(&request).await?;
        if let Some(deleted) = execute(call, &base, &old, asked).await? {
            return Ok(deleted);
        }
        base = call.resource.cache.get(&base.key).ok_or_else(|| call.not_found(base.name()))?;
    }
    Err(ApiError::modified(&call.resource.group, &call.resource.plural, base.name()))
}

/// `None`: the object changed meanwhile.
async fn execute(
    call: &Call,
    base: &Arc<Entry>,
    old: &Value,
    asked: &DeleteOptions,
) -> Result<Option<Deleted>, ApiError> {
    let registry = call.registry();
    let plan = plan_delete(Subject::of(call), old, asked, registry.now());
    let put = |value: Box<Value>| PutRequest {
        resource: &call.resource,
        key: base.key.clone(),
        base: Some(base),
        value: *value,
        ttl: None,
        newest: None,
        beside: Vec::new(),
        dry_run: asked.dry_run,
    };
    let mut last = base.clone();
    match plan {
        DeletePlan::Pending => return Ok(Some(Deleted::Waits(last))),
        DeletePlan::Mark(value) => {
            return Ok(match registry.put(put(value)).await? {
                Committed::Done(entry) => Some(Deleted::Waits(entry)),
                Committed::Outdated => None,
            });
        }
        DeletePlan::Remove { mark: None } => {}
        DeletePlan::Remove { mark: Some(value) } => match registry.put(put(value)).await? {
            Committed::Done(entry) => last = entry,
            Committed::Outdated => return Ok(None),
        },
    }
    Ok(match registry.remove(&call.resource, &last, asked.dry_run).await? {
        Committed::Done(entry) => Some(Deleted::Gone(entry)),
        Committed::Outdated => None,
    })
}

fn check_preconditions(call: &Call, name: &str, old: &Value, asked: &DeleteOptions) -> Result<(), ApiError> {
    let found = |field: &str| old["metadata"][field].as_str().unwrap_or_default();
    let conflict = |why: String| Err(ApiError::conflict(&call.resource.group, &call.resource.kind_name, name, &why));
    if let Some(uid) = asked.uid.as_deref().filter(|uid| *uid != found("uid")) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            found("uid")
        ));
    }
    if let Some(version) = asked.resource_version.as_deref().filter(|v| *v != found("resourceVersion")) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            found("resourceVersion")
        ));
    }
    Ok(())
}

/// What the plan needs to know of the kind.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub graceful: bool,
    pub namespace: bool,
    pub propagation: DefaultPropagation,
}

impl Subject {
    fn of(call: &Call) -> Self {
        let (group, plural) = (call.resource.group.as_str(), call.resource.plural.as_str());
        Self {
            graceful: group.is_empty() && plural == "pods",
            namespace: is_namespace(call),
            propagation: policy::default_propagation(group, plural),
        }
    }
}

/// Decides what a delete does. Pure.
pub fn plan_delete(subject: Subject, old: &Value, asked: &DeleteOptions, now: Timestamp) -> DeletePlan {
    let mut object = old.clone();
    if subject.namespace {
        return plan_namespace(object, asked, now);
    }
    let grace = if subject.graceful { plan_grace(old, asked, now) } else { Grace::Immediate };
    if grace == Grace::Pending {
        return DeletePlan::Pending;
    }
    set_propagation(subject.propagation, &mut object, asked.propagation);
    let held = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    let deleting = old["metadata"]["deletionTimestamp"].is_string();
    match grace {
        Grace::Until(at, seconds) => {
            mark(&mut object, at, seconds);
            if held || seconds > 0 {
                return DeletePlan::Mark(Box::new(object));
            }
            // Watchers of a Pod that nobody had begun to delete see it marked before it goes.
            DeletePlan::Remove { mark: (!deleting).then(|| Box::new(object)) }
        }
        _ if held => {
            let due = old["metadata"]["deletionTimestamp"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
            let at = due.filter(|due| *due <= now).unwrap_or(now);
            mark(&mut object, at, 0);
            if object == *old { DeletePlan::Pending } else { DeletePlan::Mark(Box::new(object)) }
        }
        _ => DeletePlan::Remove { mark: None },
    }
}

#[derive(Debug, PartialEq)]
enum Grace {
    Immediate,
    /// Deletion at this time, after so many seconds of grace.
    Until(Timestamp, i64),
    Pending,
}

/// Grace of a Pod.
fn plan_grace(old: &Value, asked: &DeleteOptions, now: Timestamp) -> Grace {
    let after = |from: Timestamp, seconds: i64| from.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    let meta = &old["metadata"];
    if let Some(due) = meta["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        let before = match meta["deletionGracePeriodSeconds"].as_i64().map(|s| if s < 0 { 1 } else { s }) {
            None | Some(0) => return Grace::Immediate,
            Some(before) => before,
        };
        return match asked.grace_seconds {
            Some(seconds) if seconds < before => {
                let at = after(after(due, -before), seconds);
                if at < now { Grace::Until(now, seconds.min(1)) } else { Grace::Until(at, seconds) }
            }
            _ => Grace::Pending,
        };
    }
    let wanted = asked.grace_seconds.or(old["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
    let unscheduled = old["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let ended = matches!(old["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    let seconds = match wanted {
        _ if unscheduled || ended => 0,
        negative if negative < 0 => 1,
        seconds => seconds,
    };
    Grace::Until(after(now, seconds), seconds)
}

fn mark(object: &mut Value, at: Timestamp, grace_seconds: i64) {
    let meta = &mut object["metadata"];
    if meta["deletionTimestamp"].is_null()
        && let Some(generation) = meta["generation"].as_i64().filter(|g| *g > 0)
    {
        meta["generation"] = json!(generation + 1);
    }
    meta["deletionTimestamp"] = json!(semantics::time::rfc3339(at));
    meta["deletionGracePeriodSeconds"] = json!(grace_seconds);
}

/// Puts the finalizers `orphan` and `foregroundDeletion` as the options, the object or the kind want them.
fn set_propagation(default: DefaultPropagation, object: &mut Value, asked: Option<Propagation>) {
    if default == DefaultPropagation::Unsupported {
        return;
    }
    let finalizers: Vec<String> = object["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|f| f.as_str().map(str::to_owned))
        .collect();
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    let wanted = match asked {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) => None,
        None if has(ORPHAN) => Some(ORPHAN),
        None if has(FOREGROUND) => Some(FOREGROUND),
        None if default == DefaultPropagation::Orphan => Some(ORPHAN),
        None => None,
    };
    let mut next: Vec<String> = finalizers.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    next.extend(wanted.map(str::to_owned));
    let same = next.len() == finalizers.len() && next.iter().all(|f| has(f));
    if !same {
        object["metadata"]["finalizers"] = json!(next);
    }
}

/// A Namespace is marked first; it goes when its content and its finalizers have gone.
fn plan_namespace(mut object: Value, asked: &DeleteOptions, now: Timestamp) -> DeletePlan {
    let list = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    if !object["metadata"]["deletionTimestamp"].is_string() {
        set_propagation(DefaultPropagation::Background, &mut object, asked.propagation);
        object["metadata"]["deletionTimestamp"] = json!(semantics::time::rfc3339(now));
        object["status"]["phase"] = json!("Terminating");
        return DeletePlan::Mark(Box::new(object));
    }
    if list(&object["spec"]["finalizers"]) || list(&object["metadata"]["finalizers"]) {
        return DeletePlan::Pending;
    }
    DeletePlan::Remove { mark: None }
}

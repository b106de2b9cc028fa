//! What a kind does at a write: the `Strategy` trait, its context, and the steps common to all kinds.
//!
//! ```text
//!   request -> decode -> default -> [mutating admission] -> create | update -> [validating admission] -> store
//!                          |                                   |
//!                   Strategy::default           metadata, prepare, validate, warnings
//! ```
//! `fill_metadata`, `create` and `update` are what the API server calls; they do the steps every kind shares (uid,
//! timestamps, namespace, generation, whose half of the object may change) and ask the strategy for the rest. Nothing
//! here reads a clock or makes an id: both come in the `Context`. Admission, quotas and allocation (cluster IPs, node
//! ports) are not done here.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::field::{Errors, FieldError, Path};
use crate::names::NameRule;
use crate::object_meta;
use crate::semantic_eq::semantic_eq;

/// Who asks, when, and what has been drawn for the object at hand.
#[derive(Debug, Clone)]
pub struct Context {
    /// The namespace of the request; `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    pub now: Timestamp,
    /// A fresh uid; used only if an object is created.
    pub uid: String,
    /// Five fresh letters for `generateName`.
    pub name_suffix: String,
    pub user: User,
}

/// The authenticated user of the request, for kinds that record it (CertificateSigningRequest).
#[derive(Debug, Clone, Default)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
}

/// Which half of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// The object itself; its status stays as it was.
    Main,
    Status,
    /// Pods: only `spec.ephemeralContainers`.
    EphemeralContainers,
    /// Pods: only container resources and resize policy results.
    Resize,
    /// Namespaces: only `spec.finalizers`.
    Finalize,
    /// CertificateSigningRequests: only the Approved and Denied conditions.
    Approval,
}

/// Why a write is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejection {
    /// 400 BadRequest with this message.
    BadRequest(String),
    /// 422 Invalid with these errors.
    Invalid(Vec<FieldError>),
}

/// When `metadata.generation` rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    Never,
    /// 1 at creation, never raised by a rule common to kinds.
    One,
    /// 1 at creation, +1 whenever the spec changes.
    Spec,
    /// As `Spec`, and also for changed annotations (Deployment).
    SpecOrAnnotations,
    /// 1 at creation, +1 whenever anything but metadata (and a separate status) changes.
    Content,
    /// As `Content`, and also for changed labels (EndpointSlice).
    ContentOrLabels,
}

/// What a write of the status may change in the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusMetadata {
    /// Everything a spec write may change.
    Open,
    /// All but labels.
    KeepLabels,
    /// Only managedFields and resourceVersion.
    Keep,
}

/// The facts about a kind that the common steps need.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: NameRule,
    pub generation: Generation,
    /// True if status is separate: spec writes keep it, status writes keep all else.
    pub status: bool,
    pub status_metadata: StatusMetadata,
    /// True if finalizers of a new object must be standard ones or of a domain.
    pub known_finalizers: bool,
}

impl Shape {
    pub const fn new(name: NameRule) -> Self {
        Self {
            name,
            generation: Generation::Never,
            status: false,
            status_metadata: StatusMetadata::Open,
            known_finalizers: true,
        }
    }

    #[must_use]
    pub const fn generation(mut self, rule: Generation) -> Self {
        self.generation = rule;
        self
    }

    #[must_use]
    pub const fn with_status(mut self) -> Self {
        self.status = true;
        self
    }

    /// For the kinds that extend the API: their finalizers may have any qualified name.
    #[must_use]
    pub const fn any_finalizers(mut self) -> Self {
        self.known_finalizers = false;
        self
    }

    #[must_use]
    pub const fn status_metadata(mut self, rule: StatusMetadata) -> Self {
        self.status_metadata = rule;
        self
    }
}

/// One kind's rules. Objects are JSON values of the kind, already strictly decoded.
pub trait Strategy: Send + Sync {
    fn shape(&self) -> Shape;

    /// Fills what the client left out. Idempotent. Errors: the object does not have the kind's shape.
    fn default(&self, object: &mut Value) -> Result<(), String>;

    /// Prepares a new object and validates it; returns warnings. Common metadata has been prepared by the caller.
    fn create(&self, context: &Context, object: &mut Value) -> Result<Vec<String>, Errors>;

    /// Prepares and validates a change from `old`; returns warnings. Common steps have been done by the caller.
    fn update(&self, write: &Write<'_>, object: &mut Value, old: &Value) -> Result<Vec<String>, Errors>;

    /// Values for field selectors that are more than the field the kinds table names; mostly none.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Paths that a write of `sub` cannot own, for managed fields.
    fn reset_fields(&self, sub: Subresource) -> Vec<Vec<&'static str>> {
        common_reset_fields(self.shape(), sub)
    }
}

/// One update: who and when, and to which half.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    pub context: &'a Context,
    pub sub: Subresource,
}

/// Fills what the server alone decides in the metadata of an object about to be created: name, namespace, uid, creation
/// time. Before mutating admission. Errors: a namespace other than the request's (400).
pub fn fill_metadata(context: &Context, object: &mut Value) -> Result<(), Rejection> {
    check_namespace(context, object)?;
    let meta = metadata(object);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        meta.remove(field);
    }
    meta.insert("uid".into(), json!(context.uid));
    meta.insert("creationTimestamp".into(), json!(crate::time::rfc3339(context.now)));
    let name = text(meta, "name");
    let prefix = text(meta, "generateName");
    if name.is_empty() && !prefix.is_empty() {
        meta.insert("name".into(), json!(generated_name(&prefix, &context.name_suffix)));
    }
    Ok(())
}

/// A generated name keeps within 63 letters by cutting the prefix.
fn generated_name(prefix: &str, suffix: &str) -> String {
    let cut = prefix.char_indices().map(|(i, _)| i).take_while(|i| *i <= 63 - suffix.len()).last().unwrap_or(0);
    let keep = if prefix.len() > 63 - suffix.len() { &prefix[..cut] } else { prefix };
    format!("{keep}{suffix}")
}

/// Prepares and validates a new object; returns warnings. After `fill_metadata` and mutating admission.
pub fn create(strategy: &dyn Strategy, context: &Context, object: &mut Value) -> Result<Vec<String>, Rejection> {
    check_namespace(context, object)?;
    let shape = strategy.shape();
    if shape.status {
        remove(object, "status");
    }
    let meta = metadata(object);
    match shape.generation {
        Generation::Never => {}
        _ => {
            meta.insert("generation".into(), json!(1));
        }
    }
    let result = strategy.create(context, object);
    let mut errors = object_meta::validate_create(object, context.namespace.is_some(), shape.name);
    if shape.known_finalizers {
        object_meta::validate_known_finalizers(object, &mut errors);
    }
    verdict(errors, result)
}

/// Prepares and validates a change of `old` into `object`; returns warnings. After mutating admission.
pub fn update(
    strategy: &dyn Strategy,
    write: &Write<'_>,
    object: &mut Value,
    old: &Value,
) -> Result<Vec<String>, Rejection> {
    check_namespace(write.context, object)?;
    let shape = strategy.shape();
    keep_field(metadata(object), old, "generation");
    keep_other_half(shape, write.sub, object, old);
    keep_system_metadata(object, old);
    let result = strategy.update(write, object, old);
    raise_generation(shape, write.sub, object, old);
    let mut errors =
        object_meta::validate_create(object, write.context.namespace.is_some(), crate::names::path_segment_name);
    errors.extend(object_meta::validate_update(object, old));
    verdict(errors, result)
}

/// The metadata's errors come before the kind's own.
fn verdict(mut errors: Errors, result: Result<Vec<String>, Errors>) -> Result<Vec<String>, Rejection> {
    let warnings = result.unwrap_or_else(|more| {
        errors.extend(more);
        Vec::new()
    });
    if errors.is_empty() { Ok(warnings) } else { Err(Rejection::Invalid(errors.into_vec())) }
}

/// The strategy of kinds without rules of their own, and of custom resources: only the common steps.
#[derive(Debug, Clone, Copy)]
pub struct CommonStrategy {
    pub shape: Shape,
}

impl Strategy for CommonStrategy {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn default(&self, _object: &mut Value) -> Result<(), String> {
        Ok(())
    }

    fn create(&self, _context: &Context, _object: &mut Value) -> Result<Vec<String>, Errors> {
        Ok(Vec::new())
    }

    fn update(&self, _write: &Write<'_>, _object: &mut Value, _old: &Value) -> Result<Vec<String>, Errors> {
        Ok(Vec::new())
    }
}

/// What a write of `sub` cannot own, by the shape alone.
pub fn common_reset_fields(shape: Shape, sub: Subresource) -> Vec<Vec<&'static str>> {
    if !shape.status {
        return Vec::new();
    }
    match (sub, shape.status_metadata) {
        (Subresource::Status, StatusMetadata::Keep) => vec![vec!["spec"], vec!["metadata"]],
        (Subresource::Status, StatusMetadata::KeepLabels) => vec![vec!["spec"], vec!["metadata", "labels"]],
        (Subresource::Status, StatusMetadata::Open) => vec![vec!["spec"]],
        _ => vec![vec!["status"]],
    }
}

fn check_namespace(context: &Context, object: &mut Value) -> Result<(), Rejection> {
    let meta = metadata(object);
    let found = text(meta, "namespace");
    match context.namespace.as_deref() {
        Some(wanted) if found.is_empty() => {
            meta.insert("namespace".into(), json!(wanted));
            Ok(())
        }
        Some(wanted) if found == wanted => Ok(()),
        None => {
            meta.remove("namespace");
            Ok(())
        }
        Some(_) => Err(Rejection::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request".into(),
        )),
    }
}

fn keep_other_half(shape: Shape, sub: Subresource, object: &mut Value, old: &Value) {
    if !shape.status {
        return;
    }
    match sub {
        Subresource::Main => keep_top(object, old, "status"),
        Subresource::Status => {
            let meta = object.get("metadata").cloned();
            let status = object.get("status").cloned();
            *object = old.clone();
            set_top(object, "status", status);
            set_top(object, "metadata", meta);
            keep_metadata_for_status(shape.status_metadata, object, old);
        }
        _ => {}
    }
}

fn keep_metadata_for_status(rule: StatusMetadata, object: &mut Value, old: &Value) {
    match rule {
        StatusMetadata::Open => {}
        StatusMetadata::KeepLabels => keep_field(metadata(object), old, "labels"),
        StatusMetadata::Keep => {
            let meta = metadata(object);
            for field in ["labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp"] {
                keep_field(meta, old, field);
            }
            for field in ["deletionGracePeriodSeconds", "generateName", "selfLink"] {
                keep_field(meta, old, field);
            }
        }
    }
}

/// What no client may change: uid (if left out), creation time, and deletion marks once set.
fn keep_system_metadata(object: &mut Value, old: &Value) {
    let meta = metadata(object);
    if text(meta, "uid").is_empty() {
        keep_field(meta, old, "uid");
    }
    let old_meta = &old["metadata"];
    for field in ["creationTimestamp", "deletionTimestamp"] {
        if !old_meta[field].is_null() {
            keep_field(meta, old, field);
        }
    }
    if !old_meta["deletionGracePeriodSeconds"].is_null() && is_null(meta.get("deletionGracePeriodSeconds")) {
        keep_field(meta, old, "deletionGracePeriodSeconds");
    }
    meta.remove("selfLink");
}

fn raise_generation(shape: Shape, sub: Subresource, object: &mut Value, old: &Value) {
    if sub == Subresource::Status {
        return;
    }
    let spec_changed = || !semantic_eq(&object["spec"], &old["spec"]);
    let changed = match shape.generation {
        Generation::Never | Generation::One => false,
        Generation::Spec => spec_changed(),
        Generation::SpecOrAnnotations => {
            spec_changed() || !semantic_eq(&object["metadata"]["annotations"], &old["metadata"]["annotations"])
        }
        Generation::Content => content_changed(shape, object, old),
        Generation::ContentOrLabels => {
            content_changed(shape, object, old)
                || !semantic_eq(&object["metadata"]["labels"], &old["metadata"]["labels"])
        }
    };
    if changed {
        let next = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        metadata(object).insert("generation".into(), json!(next));
    }
}

fn content_changed(shape: Shape, object: &Value, old: &Value) -> bool {
    let content = |value: &Value| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        for field in ["metadata", "apiVersion", "kind"] {
            map.remove(field);
        }
        if shape.status {
            map.remove("status");
        }
        Value::Object(map)
    };
    !semantic_eq(&content(object), &content(old))
}

/// The object's metadata, made if it was missing.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let meta = &mut object["metadata"];
    if !meta.is_object() {
        *meta = json!({});
    }
    match meta {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

fn keep_field(meta: &mut Map<String, Value>, old: &Value, field: &str) {
    match old["metadata"].get(field) {
        Some(value) if !value.is_null() => {
            meta.insert(field.to_owned(), value.clone());
        }
        _ => {
            meta.remove(field);
        }
    }
}

fn keep_top(object: &mut Value, old: &Value, field: &str) {
    set_top(object, field, old.get(field).cloned());
}

fn set_top(object: &mut Value, field: &str, value: Option<Value>) {
    match value {
        Some(value) => object[field] = value,
        None => remove(object, field),
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Value::Object(map) = object {
        map.remove(field);
    }
}

fn text(meta: &Map<String, Value>, field: &str) -> String {
    meta.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn is_null(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

/// The path of the metadata, where most common errors are.
pub(crate) fn metadata_path() -> Path {
    Path::root("metadata")
}

//! Validation of `metadata`: an object (and the one before it) -> field errors.
//!
//! The same for every kind but for the rule on names. Works on the untyped form, so custom resources use it too.

use serde_json::Value;

use crate::field::{Errors, Path, quote};
use crate::names::{self, NameRule};
use crate::strategy::metadata_path;

/// Holds a claim while a pod uses it, and a volume while a claim does: put on by admission, taken off by the protection controllers.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// The finalizers without a domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
/// Annotations of one object may not be larger than this, keys and values together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const MANAGER_BYTES_MAX: usize = 128;
const SUBRESOURCE_BYTES_MAX: usize = 256;

/// The metadata of a new object; also run at every update with a lenient `name_rule`.
pub fn validate_create(object: &Value, namespaced: bool, name_rule: NameRule) -> Errors {
    let meta = &object["metadata"];
    let path = metadata_path();
    let mut errors = Errors::new();
    let name = text(meta, "name");
    let generate = text(meta, "generateName");
    if !generate.is_empty() {
        errors.invalid_each(&path.child("generateName"), generate, name_rule(generate, true));
    }
    if name.is_empty() {
        errors.required(path.child("name"), "name or generateName is required");
    } else {
        errors.invalid_each(&path.child("name"), name, name_rule(name, false));
    }
    validate_namespace(text(meta, "namespace"), namespaced, &path, &mut errors);
    validate_generation(meta, &path, &mut errors);
    validate_texts(meta, &path, &mut errors);
    errors
}

/// What may not change in the metadata, and the rules for the new value.
pub fn validate_update(object: &Value, old: &Value) -> Errors {
    let (meta, old) = (&object["metadata"], &old["metadata"]);
    let path = metadata_path();
    let mut errors = Errors::new();
    if !old["deletionTimestamp"].is_null() {
        validate_no_new_finalizers(meta, old, &path, &mut errors);
    }
    if text(meta, "resourceVersion").is_empty() {
        errors.invalid(path.child("resourceVersion"), "", "must be specified for an update");
    }
    let generation = meta["generation"].as_i64().unwrap_or(0);
    if generation < old["generation"].as_i64().unwrap_or(0) {
        errors.invalid(path.child("generation"), generation, "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if !same(&meta[field], &old[field]) {
            errors.invalid(path.child(field), meta[field].clone(), "field is immutable");
        }
    }
    errors
}

/// The finalizers of a new object of Kubernetes' own kinds.
pub fn validate_known_finalizers(object: &Value, errors: &mut Errors) {
    let path = metadata_path().child("finalizers");
    for (index, name) in items(&object["metadata"]["finalizers"]).filter_map(Value::as_str).enumerate() {
        errors.invalid_each(&path.index(index), name, names::finalizer_name(name));
    }
}

/// Labels: keys are qualified names, values label values.
pub fn validate_labels(labels: &Value, path: &Path, errors: &mut Errors) {
    for (key, value) in entries(labels) {
        errors.invalid_each(path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        errors.invalid_each(path, value, names::label_value(value));
    }
}

/// Annotations: keys are qualified names in any case, the whole is bounded.
pub fn validate_annotations(annotations: &Value, path: &Path, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in entries(annotations) {
        errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path.clone(), ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_namespace(namespace: &str, namespaced: bool, path: &Path, errors: &mut Errors) {
    let path = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.required(path, ""),
        (true, false) => errors.invalid_each(&path, namespace, names::label_name(namespace, false)),
        (false, true) => {}
        (false, false) => errors.forbidden(path, "not allowed on this type"),
    }
}

fn validate_generation(meta: &Value, path: &Path, errors: &mut Errors) {
    let generation = meta["generation"].as_i64().unwrap_or(0);
    if generation < 0 {
        errors.invalid(path.child("generation"), generation, "must be greater than or equal to 0");
    }
}

fn validate_texts(meta: &Value, path: &Path, errors: &mut Errors) {
    validate_labels(&meta["labels"], &path.child("labels"), errors);
    validate_annotations(&meta["annotations"], &path.child("annotations"), errors);
    validate_owners(&meta["ownerReferences"], &path.child("ownerReferences"), errors);
    validate_finalizers(&meta["finalizers"], &path.child("finalizers"), errors);
    validate_managed_fields(&meta["managedFields"], &path.child("managedFields"), errors);
}

fn validate_owners(owners: &Value, path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for (index, owner) in items(owners).enumerate() {
        validate_owner(owner, &path.index(index), errors);
        if owner["controller"] == Value::Bool(true) {
            let this = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                errors.invalid(path.clone(), owners.clone(), detail);
            } else {
                controller = Some(this);
            }
        }
    }
}

fn validate_owner(owner: &Value, path: &Path, errors: &mut Errors) {
    let api_version = text(owner, "apiVersion");
    let slashes = api_version.matches('/').count();
    if api_version.is_empty() {
        errors.required(path.child("apiVersion"), "must not be empty");
    } else if slashes > 1 || api_version.ends_with('/') {
        errors.invalid(path.child("apiVersion"), api_version, "must be <group>/<version> or <version>");
    }
    for field in ["kind", "name", "uid"] {
        if text(owner, field).is_empty() {
            errors.required(path.child(field), "must not be empty");
        }
    }
    if api_version == "v1" && text(owner, "kind") == "Event" {
        errors.invalid(path.clone(), owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
    }
}

fn validate_finalizers(finalizers: &Value, path: &Path, errors: &mut Errors) {
    let names: Vec<&str> = items(finalizers).filter_map(Value::as_str).collect();
    for name in &names {
        errors.invalid_each(path, name, names::qualified_name(name));
    }
    for (index, name) in names.iter().enumerate() {
        if !name.contains('/') && !STANDARD_FINALIZERS.contains(name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(path.index(index), *name, detail);
        }
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path.clone(), finalizers.clone(), detail);
    }
}

fn validate_no_new_finalizers(meta: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let before: Vec<&str> = items(&old["finalizers"]).filter_map(Value::as_str).collect();
    let mut extra: Vec<&str> =
        items(&meta["finalizers"]).filter_map(Value::as_str).filter(|name| !before.contains(name)).collect();
    extra.sort_unstable();
    extra.dedup();
    if !extra.is_empty() {
        let list = extra.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        errors.forbidden(path.child("finalizers"), detail);
    }
}

fn validate_managed_fields(entries: &Value, path: &Path, errors: &mut Errors) {
    for (index, entry) in items(entries).enumerate() {
        let path = path.index(index);
        match text(entry, "operation") {
            "" => errors.required(path.child("operation"), "must not be empty"),
            "Apply" | "Update" => {}
            other => errors.not_supported(path.child("operation"), other, &["Apply", "Update"]),
        }
        let fields_type = text(entry, "fieldsType");
        if !matches!(fields_type, "" | "FieldsV1") {
            errors.invalid(path.child("fieldsType"), fields_type, "must be `FieldsV1`");
        }
        validate_manager(text(entry, "manager"), &path.child("manager"), errors);
        if text(entry, "subresource").len() > SUBRESOURCE_BYTES_MAX {
            errors.too_long(path.child("subresource"), SUBRESOURCE_BYTES_MAX);
        }
    }
}

/// The name of a field manager, in an entry or in a request's options.
pub fn validate_manager(manager: &str, path: &Path, errors: &mut Errors) {
    if manager.len() > MANAGER_BYTES_MAX {
        errors.too_long(path.clone(), MANAGER_BYTES_MAX);
    }
    if let Some(detail) = names::unprintable(manager) {
        errors.invalid(path.clone(), manager, detail);
    }
}

fn same(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| v.is_null() || v.as_str() == Some("");
    a == b || (empty(a) && empty(b))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::aggregate;
    use serde_json::json;

    fn check_create(meta: Value, expect: &str) {
        let errors = validate_create(&json!({ "metadata": meta }), true, names::subdomain_name);
        assert_eq!(aggregate(&errors.into_vec()), expect);
    }

    fn check_update(meta: Value, old: Value, expect: &str) {
        let errors = validate_update(&json!({ "metadata": meta }), &json!({ "metadata": old }));
        assert_eq!(aggregate(&errors.into_vec()), expect);
    }

    #[test]
    fn new_metadata() {
        check_create(json!({"name": "a", "namespace": "n"}), "");
        check_create(json!({"namespace": "n"}), "metadata.name: Required value: name or generateName is required");
        check_create(json!({"name": "a"}), "metadata.namespace: Required value");
        check_create(
            json!({"name": "a", "namespace": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
            "metadata.ownerReferences[0].uid: Required value: must not be empty",
        );
        check_create(
            json!({"name": "a", "namespace": "n", "finalizers": ["orphan", "foregroundDeletion"]}),
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
        );
    }

    #[test]
    fn changed_metadata() {
        let old = json!({"name": "a", "uid": "1", "resourceVersion": "5", "generation": 2});
        check_update(old.clone(), old.clone(), "");
        check_update(
            json!({"name": "b", "uid": "1", "resourceVersion": "5", "generation": 2}),
            old,
            "metadata.name: Invalid value: \"b\": field is immutable",
        );
        check_update(
            json!({"name": "a", "resourceVersion": "5", "deletionTimestamp": "t", "finalizers": ["x/y"]}),
            json!({"name": "a", "deletionTimestamp": "t"}),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/y\"}",
        );
    }
}

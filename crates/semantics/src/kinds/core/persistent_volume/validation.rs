//! What every persistent volume must satisfy.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use serde_json::json;

use super::sources::validate_sources;
use crate::amount::{nanos_or_zero, whole};
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::validate::claim::validate_access_modes;
use crate::validate::pod::validate_node_selector;

pub(super) fn validate(object: &PersistentVolume, errors: &mut Errors) {
    let Some(spec) = &object.spec else { return };
    let path = Path::root("spec");
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required(path.child("accessModes"), "");
    }
    validate_access_modes(modes, &path.child("accessModes"), errors);
    validate_capacity(spec, &path.child("capacity"), errors);
    let policy = text(&spec.persistent_volume_reclaim_policy);
    if !matches!(policy, "Delete" | "Recycle" | "Retain") {
        errors.not_supported(path.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
    }
    validate_affinity(spec, &path.child("nodeAffinity"), errors);
    validate_sources(object.metadata.name.as_deref().unwrap_or_default(), spec, &path, errors);
    if policy == "Recycle" && spec.host_path.as_ref().is_some_and(|host_path| is_root(&host_path.path)) {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(path.child("persistentVolumeReclaimPolicy"), detail);
    }
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        errors.invalid_each(&path.child("storageClassName"), class, subdomain_name(class, false));
    }
    if !matches!(text(&spec.volume_mode), "Block" | "Filesystem") {
        errors.not_supported(path.child("volumeMode"), text(&spec.volume_mode), &["Block", "Filesystem"]);
    }
    validate_attributes_class(spec, &path, errors);
}

/// Storage, nothing else, and some of it.
fn validate_capacity(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errors.required(path.clone(), "");
    }
    if capacity.len() > 1 || !capacity.contains_key("storage") {
        errors.not_supported(path.clone(), json!(spec.capacity), &["storage"]);
    }
    for (name, quantity) in &capacity {
        let path = path.key(name);
        if whole(quantity) < 0 {
            errors.invalid(path.clone(), whole(quantity), "must be a valid resource quantity");
        }
        if nanos_or_zero(quantity) <= 0 {
            errors.invalid(path, quantity.0.as_str(), "must be greater than zero");
        }
    }
}

fn validate_affinity(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let Some(affinity) = &spec.node_affinity else { return };
    match &affinity.required {
        Some(required) => validate_node_selector(required, &path.child("required"), errors),
        None => errors.required(path.child("required"), "must specify required node constraints"),
    }
}

/// True if the path leads to the root of the host, by whatever detours.
fn is_root(path: &str) -> bool {
    let mut depth: usize = 0;
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        depth = if part == ".." { depth.saturating_sub(1) } else { depth + 1 };
    }
    path.starts_with('/') && depth == 0
}

fn validate_attributes_class(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let Some(class) = &spec.volume_attributes_class_name else { return };
    if class.is_empty() {
        errors.required(path.child("volumeAttributesClassName"), "an empty string is disallowed");
    } else {
        errors.invalid_each(&path.child("volumeAttributesClassName"), class, subdomain_name(class, false));
    }
    if spec.csi.is_none() {
        errors.required(path.child("csi"), "has to be specified when using volumeAttributesClassName");
    }
}

#[cfg(test)]
mod tests {
    use crate::check::check_create;
    use serde_json::{Value, json};

    /// `fields` over a valid spec without source; nulls take away.
    #[track_caller]
    fn check(fields: Value, expect: &str) {
        let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        for (key, value) in fields.as_object().unwrap() {
            spec[key] = value.clone();
        }
        check_create("", "v1", "PersistentVolume", json!({ "spec": spec }), expect);
    }

    #[test]
    fn capacity() {
        let with = |capacity: Value| json!({"hostPath": {"path": "/x"}, "capacity": capacity});
        check(with(json!({"storage": "1Gi"})), "");
        check(
            with(json!({})),
            "[spec.capacity: Required value, spec.capacity: Unsupported value: {}: supported values: \"storage\"]",
        );
        check(with(json!({"storage": "0"})), "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero");
        check(
            with(json!({"storage": "1", "cpu": "1"})),
            "spec.capacity: Unsupported value: {\"cpu\":\"1\",\"storage\":\"1\"}: supported values: \"storage\"",
        );
    }

    #[test]
    fn attributes_class() {
        let csi = json!({"driver": "d.x", "volumeHandle": "h"});
        check(json!({"csi": csi, "volumeAttributesClassName": "v"}), "");
        check(
            json!({"hostPath": {"path": "/x"}, "volumeAttributesClassName": ""}),
            "[spec.volumeAttributesClassName: Required value: an empty string is disallowed, spec.csi: Required value: has to be specified when using volumeAttributesClassName]",
        );
    }

    #[test]
    fn sources() {
        check(json!({}), "spec: Required value: must specify a volume type");
        check(
            json!({"hostPath": {"path": "/x"}, "nfs": {"server": "", "path": ""}, "csi": {"driver": "", "volumeHandle": ""}}),
            "[spec.nfs: Forbidden: may not specify more than 1 volume type, spec.csi: Forbidden: may not specify more than 1 volume type]",
        );
        check(
            json!({"local": {"path": "/x/../y"}}),
            "[spec.local.path: Invalid value: \"/x/../y\": must not contain '..', spec.nodeAffinity: Required value: Local volume requires node affinity]",
        );
        check(
            json!({"csi": {"driver": "d.x", "volumeHandle": "", "nodePublishSecretRef": {"name": "A"}}}),
            "[spec.csi.volumeHandle: Required value, spec.csi.nodePublishSecretRef.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), spec.csi.nodePublishSecretRef.namespace: Required value]",
        );
        check(
            json!({"hostPath": {"path": "/."}, "persistentVolumeReclaimPolicy": "Recycle"}),
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
        );
    }
}

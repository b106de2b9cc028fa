//! The spec of a persistent volume claim, also inside pods and StatefulSets.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels::{validate_annotations, validate_label_selector, validate_labels};
use crate::amount::nanos_or_zero;
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;

/// The other fields of a metadata, in the order and (on the right) the spelling in which upstream names them.
const FIELDS_OF_METADATA: [(&str, &str); 13] = [
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

pub fn validate_claim_spec(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required(path.child("accessModes"), "at least 1 access mode is required");
    }
    validate_label_selector(spec.selector.as_ref(), &path.child("selector"), errors);
    validate_access_modes(modes, &path.child("accessModes"), errors);
    validate_storage(spec, &path.child("resources").key("storage"), errors);
    for (name, class) in [
        ("storageClassName", text(&spec.storage_class_name)),
        ("volumeAttributesClassName", text(&spec.volume_attributes_class_name)),
    ] {
        if !class.is_empty() {
            errors.invalid_each(&path.child(name), class, subdomain_name(class, false));
        }
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|mode| !matches!(*mode, "Block" | "Filesystem")) {
        errors.not_supported(path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    validate_sources(spec, path, errors);
}

/// The metadata of a claim that is made for a pod: labels and annotations, nothing else.
pub(crate) fn validate_claim_metadata(metadata: &ObjectMeta, path: &Path, errors: &mut Errors) {
    validate_annotations(&metadata.annotations, &path.child("annotations"), errors);
    validate_labels(&metadata.labels, &path.child("labels"), errors);
    let value = serde_json::to_value(metadata).unwrap_or_default();
    let set = |name: &str| value.get(name).is_some_and(|value| !value.is_null() && value.as_str() != Some(""));
    for (_, written) in FIELDS_OF_METADATA.into_iter().filter(|(name, _)| set(name)) {
        errors.forbidden(path.child(written), "cannot be set");
    }
}

pub fn validate_access_modes(modes: &[String], path: &Path, errors: &mut Errors) {
    const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.iter().filter(|mode| !MODES.contains(&mode.as_str())) {
        errors.not_supported(path.clone(), mode.as_str(), &MODES);
    }
    let alone = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    let others = modes.iter().any(|mode| mode != "ReadWriteOncePod" && MODES.contains(&mode.as_str()));
    if alone && others {
        errors.forbidden(path.clone(), "may not use ReadWriteOncePod with other access modes");
    }
}

fn validate_storage(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let storage = spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
    match storage {
        None => errors.required(path.clone(), ""),
        Some(storage) if nanos_or_zero(storage) <= 0 => {
            errors.invalid(path.clone(), storage.0.as_str(), "must be greater than zero");
        }
        Some(_) => {}
    }
}

fn validate_sources(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let named = |name: &str, kind: &str, group: &str, path: Path, errors: &mut Errors| {
        if name.is_empty() {
            errors.required(path.child("name"), "");
        }
        if kind.is_empty() {
            errors.required(path.child("kind"), "");
        }
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            errors.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
        }
    };
    if let Some(source) = &spec.data_source {
        named(&source.name, &source.kind, text(&source.api_group), path.child("dataSource"), errors);
    }
    if let Some(source) = &spec.data_source_ref {
        named(&source.name, &source.kind, text(&source.api_group), path.child("dataSourceRef"), errors);
    }
    if let (Some(a), Some(b)) = (&spec.data_source, &spec.data_source_ref) {
        let source = path.child("dataSource");
        if !text(&b.namespace).is_empty() {
            errors.invalid(
                path.clone(),
                source.as_str(),
                "may not be specified when dataSourceRef.namespace is specified",
            );
        } else if (&a.api_group, &a.kind, &a.name) != (&b.api_group, &b.kind, &b.name) {
            errors.invalid(path.clone(), source.as_str(), "must match dataSourceRef");
        }
    }
}

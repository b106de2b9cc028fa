//! Claims: storage comes in whole bytes.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;

use super::fractional_bytes;
use crate::field::Path;

/// What chose the storage class before the field was there; also on volumes.
pub const STORAGE_CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// `annotations`: the path of the object's annotations.
pub fn storage_class_warning(annotations: &Path) -> String {
    let path = annotations.key(STORAGE_CLASS_ANNOTATION);
    format!(r#"{path}: deprecated since v1.8; use "storageClassName" attribute instead"#)
}

pub fn claim_spec_warnings(spec: &PersistentVolumeClaimSpec, path: &Path) -> Vec<String> {
    let Some(resources) = &spec.resources else { return Vec::new() };
    [("requests", &resources.requests), ("limits", &resources.limits)]
        .into_iter()
        .filter_map(|(name, list)| {
            let path = path.child("resources").child(name).key("storage");
            fractional_bytes(list.as_ref()?.get("storage"), &path)
        })
        .collect()
}

//! Volumes: sources, annotations and a reclaim policy that have had their day.

use k8s_openapi::api::core::v1::PersistentVolume;

use super::claim::{STORAGE_CLASS_ANNOTATION, storage_class_warning};
use super::node_labels::term_warnings;
use crate::field::Path;

const MOUNT_OPTIONS_ANNOTATION: &str = "volume.beta.kubernetes.io/mount-options";

pub fn volume_warnings(volume: &PersistentVolume) -> Vec<String> {
    let annotations = Path::root("metadata").child("annotations");
    let has = |key: &str| volume.metadata.annotations.as_ref().is_some_and(|map| map.contains_key(key));
    let mut found = Vec::new();
    if has(STORAGE_CLASS_ANNOTATION) {
        found.push(storage_class_warning(&annotations));
    }
    if has(MOUNT_OPTIONS_ANNOTATION) {
        let path = annotations.key(MOUNT_OPTIONS_ANNOTATION);
        found.push(format!(r#"{path}: deprecated since v1.31; use "mountOptions" attribute instead"#));
    }
    let Some(spec) = &volume.spec else { return found };
    let path = Path::root("spec");
    if spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
        let path = path.child("persistentVolumeReclaimPolicy");
        found.push(format!(
            "{path}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
        ));
    }
    let required = spec.node_affinity.iter().filter_map(|affinity| affinity.required.as_ref());
    let terms = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
    for (index, term) in required.flat_map(|required| &required.node_selector_terms).enumerate() {
        found.extend(term_warnings(term, false, &terms.index(index)));
    }
    let sources = [
        (spec.cephfs.is_some(), "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        (
            spec.photon_persistent_disk.is_some(),
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        (spec.scale_io.is_some(), "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        (spec.storageos.is_some(), "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        (spec.glusterfs.is_some(), "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        (spec.rbd.is_some(), "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    let given = sources.into_iter().filter(|(given, ..)| *given);
    found.extend(given.map(|(_, name, message)| format!("{}: {message}", path.child(name))));
    found
}

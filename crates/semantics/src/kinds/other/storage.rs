//! The storage group: classes and drivers whose parameters never change, attachments, and per-node driver lists.

use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};

use super::super::PLAIN;
use crate::defaults::fill;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape, StatusMetadata, Strategy, Subresource, Write};
use crate::typed::{Rules, Typed};
use crate::validate::numbers::validate_immutable;

pub fn strategy(kind: &str) -> &'static dyn Strategy {
    match kind {
        "StorageClass" => const { &Typed::<StorageClassRules>::new() },
        "CSIDriver" => const { &Typed::<CsiDriverRules>::new() },
        "CSINode" => const { &Typed::<CsiNodeRules>::new() },
        "CSIStorageCapacity" => const { &Typed::<CsiStorageCapacityRules>::new() },
        "VolumeAttachment" => const { &Typed::<VolumeAttachmentRules>::new() },
        "VolumeAttributesClass" => const { &Typed::<VolumeAttributesClassRules>::new() },
        _ => &PLAIN,
    }
}

pub struct StorageClassRules;

impl Rules for StorageClassRules {
    type Object = StorageClass;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn default(object: &mut StorageClass) {
        fill(&mut object.reclaim_policy, "Delete".to_owned());
        fill(&mut object.volume_binding_mode, "Immediate".to_owned());
    }

    fn validate_create(object: &StorageClass, errors: &mut Errors) {
        if object.provisioner.is_empty() {
            errors.required(Path::root("provisioner"), "");
        }
        let policy = object.reclaim_policy.as_deref().unwrap_or_default();
        if !matches!(policy, "Delete" | "Retain") {
            errors.not_supported(Path::root("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let mode = object.volume_binding_mode.as_deref().unwrap_or_default();
        if !matches!(mode, "Immediate" | "WaitForFirstConsumer") {
            errors.not_supported(Path::root("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
        }
    }

    fn validate_update(_write: &Write<'_>, object: &StorageClass, old: &StorageClass, errors: &mut Errors) {
        if object.parameters != old.parameters {
            errors.forbidden(Path::root("parameters"), "updates to parameters are forbidden.");
        }
        if object.provisioner != old.provisioner {
            errors.forbidden(Path::root("provisioner"), "updates to provisioner are forbidden.");
        }
        if object.reclaim_policy != old.reclaim_policy {
            errors.forbidden(Path::root("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
        }
        let path = Path::root("volumeBindingMode");
        validate_immutable(&object.volume_binding_mode, &old.volume_binding_mode, path, errors);
    }
}

pub struct CsiDriverRules;

impl Rules for CsiDriverRules {
    type Object = CSIDriver;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec);

    fn default(object: &mut CSIDriver) {
        let spec = &mut object.spec;
        fill(&mut spec.attach_required, true);
        fill(&mut spec.pod_info_on_mount, false);
        fill(&mut spec.storage_capacity, false);
        fill(&mut spec.fs_group_policy, "ReadWriteOnceWithFSType".to_owned());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
        fill(&mut spec.requires_republish, false);
        fill(&mut spec.se_linux_mount, false);
        fill(&mut spec.prevent_pod_scheduling_if_missing, false);
    }

    fn validate_update(_write: &Write<'_>, object: &CSIDriver, old: &CSIDriver, errors: &mut Errors) {
        let path = Path::root("spec");
        let (spec, old) = (&object.spec, &old.spec);
        validate_immutable(&spec.attach_required, &old.attach_required, path.child("attachedRequired"), errors);
        let modes = path.child("volumeLifecycleModes");
        validate_immutable(&spec.volume_lifecycle_modes, &old.volume_lifecycle_modes, modes, errors);
    }
}

pub struct CsiNodeRules;

impl Rules for CsiNodeRules {
    type Object = CSINode;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate_create(object: &CSINode, errors: &mut Errors) {
        let path = Path::root("spec").child("drivers");
        for (index, driver) in object.spec.drivers.iter().enumerate() {
            let path = path.index(index);
            if driver.node_id.is_empty() {
                errors.required(path.child("nodeID"), "");
            }
            if object.spec.drivers[..index].iter().any(|other| other.name == driver.name) {
                errors.duplicate(path.child("name"), driver.name.as_str());
            }
        }
    }
}

pub struct CsiStorageCapacityRules;

impl Rules for CsiStorageCapacityRules {
    type Object = CSIStorageCapacity;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate_update(_write: &Write<'_>, object: &CSIStorageCapacity, old: &CSIStorageCapacity, errors: &mut Errors) {
        validate_immutable(&object.node_topology, &old.node_topology, Path::root("nodeTopology"), errors);
        validate_immutable(&object.storage_class_name, &old.storage_class_name, Path::root("storageClassName"), errors);
    }
}

pub struct VolumeAttachmentRules;

impl Rules for VolumeAttachmentRules {
    type Object = VolumeAttachment;
    const SHAPE: Shape = Shape::new(subdomain_name).with_status().status_metadata(StatusMetadata::Keep);

    fn validate_create(object: &VolumeAttachment, errors: &mut Errors) {
        let path = Path::root("spec");
        if object.spec.attacher.is_empty() {
            errors.required(path.child("attacher"), "");
        }
        if object.spec.node_name.is_empty() {
            errors.required(path.child("nodeName"), "");
        }
        let source = &object.spec.source;
        if source.inline_volume_spec.is_none() && source.persistent_volume_name.is_none() {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.required(path.child("source"), detail);
        }
    }

    fn validate_update(write: &Write<'_>, object: &VolumeAttachment, old: &VolumeAttachment, errors: &mut Errors) {
        if write.sub == Subresource::Main {
            validate_immutable(&object.spec, &old.spec, Path::root("spec"), errors);
        }
    }
}

pub struct VolumeAttributesClassRules;

impl Rules for VolumeAttributesClassRules {
    type Object = VolumeAttributesClass;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate_update(
        _write: &Write<'_>,
        object: &VolumeAttributesClass,
        old: &VolumeAttributesClass,
        errors: &mut Errors,
    ) {
        if object.driver_name != old.driver_name {
            errors.forbidden(Path::root("driverName"), "updates to driverName are forbidden.");
        }
        if object.parameters != old.parameters {
            errors.forbidden(Path::root("parameters"), "updates to parameters are forbidden.");
        }
    }
}

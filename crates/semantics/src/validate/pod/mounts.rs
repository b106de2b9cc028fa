//! Where a container mounts volumes and sees block devices.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::validate::volume_source::{validate_no_backsteps, validate_relative};

pub(super) fn validate_mounts(
    container: &Container,
    volumes: &BTreeMap<&str, &Volume>,
    path: &Path,
    errors: &mut Errors,
) {
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let mounts_path = path.child("volumeMounts");
    let mut points = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = mounts_path.index(index);
        if mount.name.is_empty() {
            errors.required(at.child("name"), "");
        }
        if !volumes.contains_key(mount.name.as_str()) {
            errors.not_found(at.child("name"), mount.name.as_str());
        }
        if mount.mount_path.is_empty() {
            errors.required(at.child("mountPath"), "");
        }
        if !points.insert(&mount.mount_path) {
            errors.invalid(at.child("mountPath"), mount.mount_path.as_str(), "must be unique");
        }
        if devices.iter().any(|device| device.name == mount.name) {
            errors.invalid(at.child("name"), mount.name.as_str(), "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.device_path == mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.invalid(at.child("mountPath"), mount.mount_path.as_str(), detail);
        }
        validate_sub_path(mount, &at, &mounts_path, errors);
        validate_propagation(mount, container, &mounts_path, errors);
    }
    validate_devices(container, volumes, &path.child("volumeDevices"), errors);
}

fn validate_sub_path(mount: &VolumeMount, at: &Path, mounts_path: &Path, errors: &mut Errors) {
    let (sub_path, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !sub_path.is_empty() {
        validate_relative(sub_path, &mounts_path.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(at.child("subPathExpr"), expression, detail);
        }
        validate_relative(expression, &mounts_path.child("subPathExpr"), errors);
    }
}

fn validate_propagation(mount: &VolumeMount, container: &Container, path: &Path, errors: &mut Errors) {
    let propagation = mount.mount_propagation.as_deref();
    let path_of = path.child("mountPropagation");
    let privileged = container.security_context.as_ref().and_then(|c| c.privileged) == Some(true);
    match propagation {
        None | Some("HostToContainer" | "None") => {}
        Some("Bidirectional") if privileged => {}
        Some("Bidirectional") => {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(path_of, detail);
        }
        Some(other) => errors.not_supported(path_of, other, &["Bidirectional", "HostToContainer", "None"]),
    }
    let recursive = path.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(recursive.clone(), "may only be specified when readOnly is true");
            }
            if !matches!(propagation, None | Some("None")) {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(recursive, detail);
            }
        }
        Some(other) => errors.not_supported(recursive, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn validate_devices(container: &Container, volumes: &BTreeMap<&str, &Volume>, path: &Path, errors: &mut Errors) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let (mut names, mut points) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in container.volume_devices.iter().flatten().enumerate() {
        let at = path.index(index);
        let (name, point) = (device.name.as_str(), device.device_path.as_str());
        if name.is_empty() {
            errors.required(at.child("name"), "");
        } else if !names.insert(name) {
            errors.invalid(at.child("name"), name, "must be unique");
        }
        match volumes.get(name) {
            None => errors.not_found(at.child("name"), name),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => errors.invalid(
                at.child("name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        if point.is_empty() {
            errors.required(at.child("devicePath"), "");
        } else if !points.insert(point) {
            errors.invalid(at.child("devicePath"), point, "must be unique");
        }
        validate_no_backsteps(point, &at.child("devicePath"), "can not contain backsteps ('..')", errors);
        if mounts.iter().any(|mount| mount.name == name) {
            errors.invalid(at.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.mount_path == point) {
            errors.invalid(at.child("devicePath"), point, "must not already exist as a path in volumeMounts");
        }
    }
}

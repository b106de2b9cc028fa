//! The volumes of a pod: one source each, and what each source needs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, PodSpec, ProjectedVolumeSource, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::env::{FILE_FIELDS, validate_field_ref, validate_resource_ref};
use crate::amount::nanos_or_zero;
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::dns1123_label;
use crate::validate::claim::validate_claim_spec;

const MODE_DETAIL: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Validates all volumes; returns the valid ones by name, for mounts to refer to.
pub(super) fn validate_volumes<'s>(
    spec: &'s PodSpec,
    metadata: &ObjectMeta,
    path: &Path,
    errors: &mut Errors,
) -> BTreeMap<&'s str, &'s Volume> {
    let mut valid: BTreeMap<&str, &Volume> = BTreeMap::new();
    let pod_name = metadata.name.as_deref().unwrap_or_default();
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let mut found = Errors::new();
        validate_volume(volume, pod_name, &path, &mut found);
        if volume.name.is_empty() {
            found.required(path.child("name"), "");
        } else {
            found.invalid_each(&path.child("name"), &volume.name, dns1123_label(&volume.name));
        }
        if valid.contains_key(volume.name.as_str()) {
            found.duplicate(path.child("name"), volume.name.as_str());
        }
        if found.is_empty() {
            valid.insert(&volume.name, volume);
        }
        errors.extend(found);
        let made =
            |claim: &str| volumes.iter().any(|v| v.ephemeral.is_some() && claim == format!("{pod_name}-{}", v.name));
        if let Some(claim) = volume.persistent_volume_claim.as_ref().filter(|claim| made(&claim.claim_name)) {
            let path = path.child("persistentVolumeClaim").child("claimName");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(path, claim.claim_name.as_str(), detail);
        }
    }
    valid
}

/// The order in which sources are looked at: the first counts, each further one is an error.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "flocker",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

fn validate_volume(volume: &Volume, pod_name: &str, path: &Path, errors: &mut Errors) {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut given = SOURCES.iter().filter(|name| !value[**name].is_null());
    let Some(first) = given.next() else { return errors.required(path.clone(), "must specify a volume type") };
    for other in given {
        errors.forbidden(path.child(other), "may not specify more than 1 volume type");
    }
    let path = path.child(first);
    validate_file_source(volume, &path, errors);
    validate_claim_source(volume, pod_name, &path, errors);
    validate_required(first, &value[*first], &path, errors);
}

fn validate_file_source(volume: &Volume, path: &Path, errors: &mut Errors) {
    let limit = volume.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref());
    if limit.is_some_and(|limit| nanos_or_zero(limit) < 0) {
        errors.forbidden(path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
    if let Some(secret) = &volume.secret {
        if text(&secret.secret_name).is_empty() {
            errors.required(path.child("secretName"), "");
        }
        validate_mode(secret.default_mode, path.child("defaultMode"), errors);
        validate_items(&secret.items, path, errors);
    }
    if let Some(config_map) = &volume.config_map {
        if config_map.name.is_empty() {
            errors.required(path.child("name"), "");
        }
        validate_mode(config_map.default_mode, path.child("defaultMode"), errors);
        validate_items(&config_map.items, path, errors);
    }
    if let Some(downward) = &volume.downward_api {
        validate_mode(downward.default_mode, path.child("defaultMode"), errors);
        for file in downward.items.iter().flatten() {
            validate_downward_file(file, path, errors);
        }
    }
    if let Some(projected) = &volume.projected {
        validate_projected(projected, path, errors);
    }
    if let Some(host_path) = &volume.host_path {
        validate_host_path(host_path, path, errors);
    }
}

fn validate_claim_source(volume: &Volume, pod_name: &str, path: &Path, errors: &mut Errors) {
    if let Some(claim) = &volume.persistent_volume_claim
        && claim.claim_name.is_empty()
    {
        errors.required(path.child("claimName"), "");
    }
    if let Some(ephemeral) = &volume.ephemeral {
        match &ephemeral.volume_claim_template {
            None => errors.required(path.child("volumeClaimTemplate"), ""),
            Some(template) => {
                validate_claim_spec(&template.spec, &path.child("volumeClaimTemplate").child("spec"), errors);
            }
        }
        let claim = format!("{pod_name}-{}", volume.name);
        if !pod_name.is_empty() && claim.len() > 253 {
            errors.invalid(path.clone(), claim.as_str(), crate::names::max_len_message(253));
        }
    }
    if let Some(csi) = &volume.csi
        && csi.driver.is_empty()
    {
        errors.required(path.child("driver"), "");
    }
    if let Some(image) = &volume.image {
        if text(&image.reference).is_empty() {
            errors.required(path.child("reference"), "");
        }
        let policy = text(&image.pull_policy);
        if !matches!(policy, "Always" | "IfNotPresent" | "Never") {
            errors.not_supported(path.child("pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
        }
    }
}

/// Sources that have only required texts to check.
fn validate_required(source: &str, value: &Value, path: &Path, errors: &mut Errors) {
    let fields: &[&str] = match source {
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "rbd" => &["image"],
        "cinder" | "awsElasticBlockStore" => &["volumeID"],
        "gcePersistentDisk" => &["pdName"],
        "quobyte" => &["registry", "volume"],
        "flexVolume" => &["driver"],
        "azureFile" => &["secretName", "shareName"],
        "azureDisk" => &["diskName", "diskURI"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "portworxVolume" => &["volumeID"],
        "storageos" => &["volumeName"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "gitRepo" => &["repository"],
        _ => &[],
    };
    for field in fields.iter().filter(|field| value[**field].as_str().unwrap_or_default().is_empty()) {
        errors.required(path.child(field), "");
    }
    if source == "cephfs" && value["monitors"].as_array().is_none_or(Vec::is_empty)
        || source == "rbd" && value["monitors"].as_array().is_none_or(Vec::is_empty)
    {
        errors.required(path.child("monitors"), "");
    }
    if source == "nfs" && value["path"].as_str().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
        errors.invalid(path.child("path"), value["path"].clone(), "must be an absolute path");
    }
}

fn validate_host_path(host_path: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    if host_path.path.is_empty() {
        return errors.required(path.child("path"), "");
    }
    validate_no_backsteps(&host_path.path, &path.child("path"), "must not contain '..'", errors);
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let type_ = text(&host_path.type_);
    if !TYPES.contains(&type_) {
        errors.not_supported(path.child("type"), type_, &TYPES);
    }
}

fn validate_mode(mode: Option<i32>, path: Path, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, mode, MODE_DETAIL);
    }
}

fn validate_items(items: &Option<Vec<KeyToPath>>, path: &Path, errors: &mut Errors) {
    for (index, item) in items.iter().flatten().enumerate() {
        let path = path.child("items").index(index);
        if item.key.is_empty() {
            errors.required(path.child("key"), "");
        }
        validate_file_path(&item.path, &path.child("path"), errors);
        validate_mode(item.mode, path.child("mode"), errors);
    }
}

fn validate_downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut Errors) {
    validate_file_path(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            validate_field_ref(field, &FILE_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path.clone(), "resource", detail);
            }
        }
        (None, Some(resource)) => validate_resource_ref(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.required(path.clone(), "one of fieldRef and resourceFieldRef is required"),
    }
    validate_mode(file.mode, path.child("mode"), errors);
}

fn validate_projected(projected: &ProjectedVolumeSource, path: &Path, errors: &mut Errors) {
    validate_mode(projected.default_mode, path.child("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for (index, source) in projected.sources.iter().flatten().enumerate() {
        let path = path.child("sources").index(index);
        validate_projection(source, &path, errors);
        for file in projected_paths(source).filter(|file| !file.is_empty()) {
            if !paths.insert(file.clone()) {
                errors.invalid(path.clone(), file, "conflicting duplicate paths");
            }
        }
    }
}

fn projected_paths(source: &VolumeProjection) -> impl Iterator<Item = String> {
    let secret = source.secret.iter().flat_map(|s| s.items.iter().flatten()).map(|item| item.path.clone());
    let config = source.config_map.iter().flat_map(|s| s.items.iter().flatten()).map(|item| item.path.clone());
    let downward = source.downward_api.iter().flat_map(|s| s.items.iter().flatten()).map(|item| item.path.clone());
    let token = source.service_account_token.iter().map(|token| token.path.clone());
    secret.chain(config).chain(downward).chain(token)
}

fn validate_projection(source: &VolumeProjection, path: &Path, errors: &mut Errors) {
    let given = [
        ("secret", source.secret.is_some()),
        ("configMap", source.config_map.is_some()),
        ("downwardAPI", source.downward_api.is_some()),
        ("serviceAccountToken", source.service_account_token.is_some()),
        ("clusterTrustBundle", source.cluster_trust_bundle.is_some()),
        ("podCertificate", source.pod_certificate.is_some()),
    ];
    let mut given = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
    let Some(first) = given.next() else {
        return errors.required(path.clone(), "must specify at least one source");
    };
    for other in given {
        errors.forbidden(path.child(other), "may not specify more than 1 volume type per source");
    }
    let path = path.child(first);
    if let Some(secret) = &source.secret {
        if secret.name.is_empty() {
            errors.required(path.child("name"), "");
        }
        validate_items(&secret.items, &path, errors);
    }
    if let Some(config_map) = &source.config_map {
        if config_map.name.is_empty() {
            errors.required(path.child("name"), "");
        }
        validate_items(&config_map.items, &path, errors);
    }
    for file in source.downward_api.iter().flat_map(|d| d.items.iter().flatten()) {
        validate_downward_file(file, &path, errors);
    }
    if let Some(token) = &source.service_account_token {
        let seconds = token.expiration_seconds.unwrap_or(3600);
        if seconds < 600 {
            errors.invalid(path.child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            errors.invalid(
                path.child("expirationSeconds"),
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
        if token.path.is_empty() {
            errors.required(path.child("path"), "");
        }
    }
}

/// The path of a file in a volume: relative, without `..`, and not starting with the reserved `..`.
fn validate_file_path(file: &str, path: &Path, errors: &mut Errors) {
    if file.is_empty() {
        errors.required(path.clone(), "");
    }
    validate_relative(file, path, errors);
    if file.starts_with("..") && !file.starts_with("../") && file != ".." {
        errors.invalid(path.clone(), file, "must not start with '..'");
    }
}

pub(super) fn validate_relative(target: &str, path: &Path, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.invalid(path.clone(), target, "must be a relative path");
    }
    validate_no_backsteps(target, path, "must not contain '..'", errors);
}

pub(super) fn validate_no_backsteps(target: &str, path: &Path, detail: &str, errors: &mut Errors) {
    if target.split('/').any(|part| part == "..") {
        errors.invalid(path.clone(), target, detail);
    }
}

//! The sources of a volume, as far as the volumes of pods and persistent volumes share them.
//!
//! Input: one source and its path. Output: field errors. [`OneSource`] keeps the rule that a volume has exactly one.

pub(crate) mod iscsi;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, FCVolumeSource, FlockerVolumeSource,
    GCEPersistentDiskVolumeSource, HostPathVolumeSource, NFSVolumeSource, PhotonPersistentDiskVolumeSource,
    PortworxVolumeSource, QuobyteVolumeSource, VsphereVirtualDiskVolumeSource,
};
use serde_json::json;

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{dns1123_label, dns1123_subdomain, in_range};

const LUN_MAX: i64 = 255;
const PARTITION_MAX: i32 = 255;
const CSI_DRIVER_BYTES_MAX: usize = 63;
const QUOBYTE_TENANT_BYTES_MAX: usize = 64;

/// Takes the sources of one volume in the order in which they count: the first is looked at, each further one refused.
pub(crate) struct OneSource<'e> {
    path: &'e Path,
    errors: &'e mut Errors,
    found: bool,
}

impl<'e> OneSource<'e> {
    pub(crate) fn new(path: &'e Path, errors: &'e mut Errors) -> Self {
        Self { path, errors, found: false }
    }

    /// `name` is the field's.
    pub(crate) fn take<T>(&mut self, source: &Option<T>, name: &str, rule: impl FnOnce(&T, &Path, &mut Errors)) {
        self.take_as(source, (name, name), rule);
    }

    /// For the sources that upstream calls by two names: one where it refuses a further source, one in their own errors.
    pub(crate) fn take_as<T>(
        &mut self,
        source: &Option<T>,
        (refused, own): (&str, &str),
        rule: impl FnOnce(&T, &Path, &mut Errors),
    ) {
        let Some(source) = source else { return };
        if self.found {
            self.errors.forbidden(self.path.child(refused), "may not specify more than 1 volume type");
        } else {
            self.found = true;
            rule(source, &self.path.child(own), self.errors);
        }
    }

    /// Looks at a source whether or not it is the first.
    pub(crate) fn take_always<T>(&mut self, source: &Option<T>, name: &str, rule: impl FnOnce(&T, &Path, &mut Errors)) {
        self.found &= source.is_none();
        self.take(source, name, rule);
    }

    /// After the last: a volume without any source is refused.
    pub(crate) fn finish(self) {
        if !self.found {
            self.errors.required(self.path.clone(), "must specify a volume type");
        }
    }
}

/// Required texts, by name.
pub(crate) fn require(texts: &[(&str, &str)], path: &Path, errors: &mut Errors) {
    for (name, _) in texts.iter().filter(|(_, value)| value.is_empty()) {
        errors.required(path.child(name), "");
    }
}

pub(crate) fn require_monitors(monitors: &[String], path: &Path, errors: &mut Errors) {
    if monitors.is_empty() {
        errors.required(path.child("monitors"), "");
    }
}

pub(crate) fn validate_host_path(host_path: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if host_path.path.is_empty() {
        return errors.required(path.child("path"), "");
    }
    validate_no_backsteps(&host_path.path, &path.child("path"), "must not contain '..'", errors);
    let type_ = text(&host_path.type_);
    if !TYPES.contains(&type_) {
        errors.not_supported(path.child("type"), type_, &TYPES);
    }
}

pub(crate) fn validate_gce_disk(disk: &GCEPersistentDiskVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("pdName", &disk.pd_name)], path, errors);
    validate_partition(disk.partition, path, errors);
}

pub(crate) fn validate_aws_store(store: &AWSElasticBlockStoreVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("volumeID", &store.volume_id)], path, errors);
    validate_partition(store.partition, path, errors);
}

/// 0 stands for "none given", though the message leaves it out.
fn validate_partition(partition: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(partition) = partition.filter(|partition| !(0..=PARTITION_MAX).contains(partition)) {
        errors.invalid(path.child("partition"), partition, format!("must be between 1 and {PARTITION_MAX}, inclusive"));
    }
}

pub(crate) fn validate_nfs(nfs: &NFSVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("server", &nfs.server), ("path", &nfs.path)], path, errors);
    if !nfs.path.starts_with('/') {
        errors.invalid(path.child("path"), nfs.path.as_str(), "must be an absolute path");
    }
}

pub(crate) fn validate_fibre_channel(fc: &FCVolumeSource, path: &Path, errors: &mut Errors) {
    let targets = fc.target_wwns.as_deref().unwrap_or_default();
    let ids = fc.wwids.as_deref().unwrap_or_default();
    if targets.is_empty() && ids.is_empty() {
        errors.required(path.child("targetWWNs"), "must specify either targetWWNs or wwids, but not both");
    }
    if targets.is_empty() {
        return;
    }
    if !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.invalid(path.child("targetWWNs"), json!(targets), detail);
    }
    match fc.lun {
        None => errors.required(path.child("lun"), "lun is required if targetWWNs is specified"),
        Some(lun) => validate_lun(lun, path, errors),
    }
}

fn validate_lun(lun: i32, path: &Path, errors: &mut Errors) {
    for message in in_range(i64::from(lun), 0, LUN_MAX) {
        errors.invalid(path.child("lun"), lun, message);
    }
}

pub(crate) fn validate_quobyte(quobyte: &QuobyteVolumeSource, path: &Path, errors: &mut Errors) {
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    if quobyte.registry.is_empty() {
        errors.required(path.child("registry"), pairs);
    } else if text(&quobyte.tenant).len() > QUOBYTE_TENANT_BYTES_MAX {
        let detail = format!("must be a UUID and may not exceed a length of {QUOBYTE_TENANT_BYTES_MAX} characters");
        errors.required(path.child("tenant"), detail);
    } else {
        for _ in quobyte.registry.split(',').filter(|pair| !is_host_port(pair)) {
            errors.invalid(path.child("registry"), quobyte.registry.as_str(), pairs);
        }
    }
    require(&[("volume", &quobyte.volume)], path, errors);
}

/// `host:port` or `[v6]:port`; either side may be empty.
fn is_host_port(pair: &str) -> bool {
    match pair.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((host, port)) => !host.contains(['[', ']']) && !port.contains([':', '[', ']']),
        None => pair.matches(':').count() == 1 && !pair.contains(['[', ']']),
    }
}

pub(crate) fn validate_flocker(flocker: &FlockerVolumeSource, path: &Path, errors: &mut Errors) {
    let name = text(&flocker.dataset_name);
    match (name.is_empty(), text(&flocker.dataset_uuid).is_empty()) {
        (true, true) => errors.required(path.clone(), "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            errors.invalid(path.clone(), "resource", detail);
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(path.child("datasetName"), name, "must not contain '/'");
    }
}

pub(crate) fn validate_vsphere(disk: &VsphereVirtualDiskVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("volumePath", &disk.volume_path)], path, errors);
}

pub(crate) fn validate_photon(disk: &PhotonPersistentDiskVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("pdID", &disk.pd_id)], path, errors);
}

pub(crate) fn validate_portworx(volume: &PortworxVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("volumeID", &volume.volume_id)], path, errors);
}

pub(crate) fn validate_azure_disk(disk: &AzureDiskVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("diskName", &disk.disk_name), ("diskURI", &disk.disk_uri)], path, errors);
    let choices = [
        ("cachingMode", &disk.caching_mode, ["None", "ReadOnly", "ReadWrite"]),
        ("kind", &disk.kind, ["Dedicated", "Managed", "Shared"]),
    ];
    for (name, value, supported) in choices {
        if let Some(value) = value.as_deref().filter(|value| !supported.contains(value)) {
            errors.not_supported(path.child(name), value, &supported);
        }
    }
    let (prefix, form) = match disk.kind.as_deref() {
        None => return,
        Some("Managed") => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        Some(_) => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
    };
    if !disk.disk_uri.starts_with(prefix) {
        errors.not_supported(path.child("diskURI"), disk.disk_uri.as_str(), &[form]);
    }
}

pub(crate) fn validate_flex(
    driver: &str,
    options: &Option<BTreeMap<String, String>>,
    path: &Path,
    errors: &mut Errors,
) {
    require(&[("driver", driver)], path, errors);
    for key in options.iter().flatten().map(|(key, _)| key) {
        let domain = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(path.child("options").key(key), key.as_str(), detail);
        }
    }
}

/// The volume of a StorageOS source, of whichever kind.
pub(crate) fn validate_storage_os(name: &str, namespace: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path.child("volumeName"), "");
    } else {
        errors.invalid_each(&path.child("volumeName"), name, dns1123_label(name));
    }
    if !namespace.is_empty() {
        errors.invalid_each(&path.child("volumeNamespace"), namespace, dns1123_label(namespace));
    }
}

/// The name of a CSI driver, in any case of letters.
pub(crate) fn validate_csi_driver(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path.clone(), "");
    }
    if name.len() > CSI_DRIVER_BYTES_MAX {
        errors.too_long(path.clone(), CSI_DRIVER_BYTES_MAX);
    }
    errors.invalid_each(path, name, dns1123_subdomain(&name.to_lowercase()));
}

/// The path of a file in a volume: relative, without `..`, and not starting with the reserved `..`.
pub(crate) fn validate_file_path(file: &str, path: &Path, errors: &mut Errors) {
    validate_relative(file, path, errors);
    if file.starts_with("..") && !file.starts_with("../") {
        errors.invalid(path.clone(), file, "must not start with '..'");
    }
}

pub(crate) fn validate_relative(target: &str, path: &Path, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.invalid(path.clone(), target, "must be a relative path");
    }
    validate_no_backsteps(target, path, "must not contain '..'", errors);
}

pub(crate) fn validate_no_backsteps(target: &str, path: &Path, detail: &str, errors: &mut Errors) {
    if target.split('/').any(|part| part == "..") {
        errors.invalid(path.clone(), target, detail);
    }
}

//! The volumes of a pod: one source each, and what each source needs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIVolumeSource, ConfigMapVolumeSource, DownwardAPIVolumeSource, EmptyDirVolumeSource, EphemeralVolumeSource,
    ImageVolumeSource, LocalObjectReference, PodSpec, SecretVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::files::{validate_downward_file, validate_items, validate_mode};
use super::projected::validate_projected;
use crate::amount::nanos_or_zero;
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{dns1123_label, subdomain_name};
use crate::validate::claim::{validate_claim_metadata, validate_claim_spec};
use crate::validate::volume_source::iscsi::{validate_iscsi, validate_iscsi_length};
use crate::validate::volume_source::{
    OneSource, require, require_monitors, validate_aws_store, validate_azure_disk, validate_csi_driver,
    validate_fibre_channel, validate_flex, validate_flocker, validate_gce_disk, validate_host_path, validate_nfs,
    validate_photon, validate_portworx, validate_quobyte, validate_relative, validate_storage_os, validate_vsphere,
};

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

fn validate_volume(volume: &Volume, pod_name: &str, path: &Path, errors: &mut Errors) {
    let mut one = OneSource::new(path, errors);
    one.take(&volume.empty_dir, "emptyDir", validate_empty_dir);
    one.take(&volume.host_path, "hostPath", validate_host_path);
    one.take(&volume.git_repo, "gitRepo", |git, path, errors| {
        require(&[("repository", &git.repository)], path, errors);
        validate_relative(text(&git.directory), &path.child("directory"), errors);
    });
    one.take_as(&volume.gce_persistent_disk, ("gcePersistentDisk", "persistentDisk"), validate_gce_disk);
    one.take(&volume.aws_elastic_block_store, "awsElasticBlockStore", validate_aws_store);
    one.take(&volume.secret, "secret", validate_secret);
    one.take(&volume.nfs, "nfs", validate_nfs);
    one.take(&volume.iscsi, "iscsi", |iscsi, own, errors| {
        validate_iscsi(iscsi, own, errors);
        validate_iscsi_length(iscsi, &volume.name, path, errors);
    });
    one.take(&volume.glusterfs, "glusterfs", |glusterfs, path, errors| {
        require(&[("endpoints", &glusterfs.endpoints), ("path", &glusterfs.path)], path, errors);
    });
    one.take(&volume.flocker, "flocker", validate_flocker);
    one.take(&volume.persistent_volume_claim, "persistentVolumeClaim", |claim, path, errors| {
        require(&[("claimName", &claim.claim_name)], path, errors);
    });
    take_remote_sources(volume, &mut one);
    one.take(&volume.projected, "projected", validate_projected);
    one.take(&volume.scale_io, "scaleIO", |scale_io, path, errors| {
        let name = text(&scale_io.volume_name);
        require(&[("gateway", &scale_io.gateway), ("system", &scale_io.system), ("volumeName", name)], path, errors);
    });
    one.take(&volume.csi, "csi", validate_csi);
    one.take(&volume.ephemeral, "ephemeral", |ephemeral, own, errors| {
        validate_ephemeral(ephemeral, own, errors);
        validate_made_claim(&volume.name, pod_name, path, errors);
    });
    one.take(&volume.image, "image", validate_image);
    one.finish();
}

/// The middle of the order: what most clusters never see, and files from ConfigMaps and from the pod itself.
fn take_remote_sources(volume: &Volume, one: &mut OneSource<'_>) {
    one.take(&volume.rbd, "rbd", |rbd, path, errors| {
        require_monitors(&rbd.monitors, path, errors);
        require(&[("image", &rbd.image)], path, errors);
    });
    one.take(&volume.cinder, "cinder", |cinder, path, errors| {
        require(&[("volumeID", &cinder.volume_id)], path, errors);
        require_secret_name(&cinder.secret_ref, path, errors);
    });
    one.take_as(&volume.cephfs, ("cephFS", "cephfs"), |cephfs, path, errors| {
        require_monitors(&cephfs.monitors, path, errors);
    });
    one.take(&volume.quobyte, "quobyte", validate_quobyte);
    one.take_as(&volume.downward_api, ("downwarAPI", "downwardAPI"), validate_downward);
    one.take(&volume.fc, "fc", validate_fibre_channel);
    one.take(&volume.flex_volume, "flexVolume", |flex, path, errors| {
        validate_flex(&flex.driver, &flex.options, path, errors);
    });
    one.take(&volume.config_map, "configMap", validate_config_map);
    one.take(&volume.azure_file, "azureFile", |file, path, errors| {
        require(&[("secretName", &file.secret_name), ("shareName", &file.share_name)], path, errors);
    });
    one.take(&volume.vsphere_volume, "vsphereVolume", validate_vsphere);
    one.take(&volume.photon_persistent_disk, "photonPersistentDisk", validate_photon);
    one.take(&volume.portworx_volume, "portworxVolume", validate_portworx);
    one.take(&volume.azure_disk, "azureDisk", validate_azure_disk);
    one.take(&volume.storageos, "storageos", |storage, path, errors| {
        validate_storage_os(text(&storage.volume_name), text(&storage.volume_namespace), path, errors);
        require_secret_name(&storage.secret_ref, path, errors);
    });
}

fn require_secret_name(secret: &Option<LocalObjectReference>, path: &Path, errors: &mut Errors) {
    if let Some(secret) = secret {
        require(&[("name", &secret.name)], &path.child("secretRef"), errors);
    }
}

fn validate_empty_dir(empty: &EmptyDirVolumeSource, path: &Path, errors: &mut Errors) {
    if empty.size_limit.as_ref().is_some_and(|limit| nanos_or_zero(limit) < 0) {
        errors.forbidden(path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn validate_secret(secret: &SecretVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("secretName", text(&secret.secret_name))], path, errors);
    validate_mode(secret.default_mode, path.child("defaultMode"), errors);
    validate_items(&secret.items, path, errors);
}

fn validate_config_map(config_map: &ConfigMapVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("name", &config_map.name)], path, errors);
    validate_mode(config_map.default_mode, path.child("defaultMode"), errors);
    validate_items(&config_map.items, path, errors);
}

fn validate_downward(downward: &DownwardAPIVolumeSource, path: &Path, errors: &mut Errors) {
    validate_mode(downward.default_mode, path.child("defaultMode"), errors);
    for file in downward.items.iter().flatten() {
        validate_downward_file(file, path, errors);
    }
}

fn validate_csi(csi: &CSIVolumeSource, path: &Path, errors: &mut Errors) {
    validate_csi_driver(&csi.driver, &path.child("driver"), errors);
    let Some(secret) = &csi.node_publish_secret_ref else { return };
    if secret.name.is_empty() {
        errors.required(path.child("nodePublishSecretRef").child("name"), "");
    } else {
        errors.invalid_each(&path.child("name"), &secret.name, subdomain_name(&secret.name, false));
    }
}

fn validate_ephemeral(ephemeral: &EphemeralVolumeSource, path: &Path, errors: &mut Errors) {
    let path = path.child("volumeClaimTemplate");
    let Some(template) = &ephemeral.volume_claim_template else { return errors.required(path, "") };
    if let Some(metadata) = &template.metadata {
        validate_claim_metadata(metadata, &path.child("metadata"), errors);
    }
    validate_claim_spec(&template.spec, &path.child("spec"), errors);
}

/// The claim made for an ephemeral volume is called after pod and volume.
fn validate_made_claim(volume: &str, pod_name: &str, path: &Path, errors: &mut Errors) {
    if volume.is_empty() || pod_name.is_empty() {
        return;
    }
    let claim = format!("{pod_name}-{volume}");
    for message in subdomain_name(&claim, false) {
        errors.invalid(path.child("name"), volume, format!("PVC name \"{claim}\": {message}"));
    }
}

fn validate_image(image: &ImageVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("reference", text(&image.reference))], path, errors);
    match text(&image.pull_policy) {
        "Always" | "IfNotPresent" | "Never" => {}
        "" => errors.required(path.child("pullPolicy"), ""),
        policy => errors.not_supported(path.child("pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]),
    }
}

#[cfg(test)]
mod tests {
    use crate::check::check_create;
    use serde_json::{Value, json};

    /// `source` is merged into the one volume of a pod; `expect` is what is said about it, below `spec.volumes[0]`.
    #[track_caller]
    fn check(source: Value, expect: &str) {
        let mut volume = json!({"name": "v"});
        for (key, value) in source.as_object().unwrap() {
            volume[key] = value.clone();
        }
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "volumes": [volume]});
        check_create("", "v1", "Pod", json!({ "spec": spec }), &expect.replace('@', "spec.volumes[0]"));
    }

    #[test]
    fn one_source_each() {
        check(json!({"nfs": {"server": "s", "path": "/p"}}), "");
        check(
            json!({"emptyDir": {}, "nfs": {}, "cephfs": {"monitors": []}, "downwardAPI": {}, "image": {}}),
            "[@.nfs: Forbidden: may not specify more than 1 volume type, @.cephFS: Forbidden: may not specify more than 1 volume type, @.downwarAPI: Forbidden: may not specify more than 1 volume type, @.image: Forbidden: may not specify more than 1 volume type]",
        );
    }

    #[test]
    fn what_sources_need() {
        check(
            json!({"nfs": {"server": "", "path": ""}}),
            "[@.nfs.server: Required value, @.nfs.path: Required value, @.nfs.path: Invalid value: \"\": must be an absolute path]",
        );
        check(
            json!({"iscsi": {"targetPortal": "", "iqn": "x", "lun": 256, "chapAuthSession": true}}),
            "[@.iscsi.targetPortal: Required value, @.iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa, @.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive, @.iscsi.secretRef: Required value]",
        );
        check(
            json!({"rbd": {"monitors": [], "image": ""}}),
            "[@.rbd.monitors: Required value, @.rbd.image: Required value]",
        );
        check(
            json!({"fc": {"targetWWNs": ["a"], "wwids": ["b"]}}),
            "[@.fc.targetWWNs: Invalid value: [\"a\"]: targetWWNs and wwids can not be specified simultaneously, @.fc.lun: Required value: lun is required if targetWWNs is specified]",
        );
        check(
            json!({"gcePersistentDisk": {"pdName": "", "partition": 256}}),
            "[@.persistentDisk.pdName: Required value, @.persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive]",
        );
        check(
            json!({"flexVolume": {"driver": "a/b", "options": {"x.k8s.io/y": "z"}}}),
            "@.flexVolume.options[x.k8s.io/y]: Invalid value: \"x.k8s.io/y\": kubernetes.io and k8s.io namespaces are reserved",
        );
        check(
            json!({"quobyte": {"registry": "a:1,b", "volume": "v"}}),
            "@.quobyte.registry: Invalid value: \"a:1,b\": must be a host:port pair or multiple pairs separated by commas",
        );
        check(
            json!({"azureDisk": {"diskName": "d", "diskURI": "https://x", "kind": "Managed"}}),
            "@.azureDisk.diskURI: Unsupported value: \"https://x\": supported values: \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"",
        );
        check(json!({"csi": {"driver": ""}}), "@.csi.driver: Required value");
        check(
            json!({"image": {"reference": "", "pullPolicy": "X"}}),
            "[@.image.reference: Required value, @.image.pullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\"]",
        );
    }

    #[test]
    fn a_claim_template_has_labels_and_annotations_only() {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        check(
            json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": spec}}}),
            "@.ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
        );
    }
}

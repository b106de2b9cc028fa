//! The source of a persistent volume: one, with what it needs.

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, GlusterfsPersistentVolumeSource, LocalVolumeSource, PersistentVolumeSpec,
    SecretReference,
};

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{dns1123_label, dns1123_subdomain, label_name};
use crate::validate::volume_source::iscsi::validate_persistent_iscsi;
use crate::validate::volume_source::{
    OneSource, require, require_monitors, validate_aws_store, validate_azure_disk, validate_csi_driver,
    validate_fibre_channel, validate_flex, validate_flocker, validate_gce_disk, validate_host_path, validate_nfs,
    validate_no_backsteps, validate_photon, validate_portworx, validate_quobyte, validate_storage_os, validate_vsphere,
};

/// `name` is the volume's, `path` the spec's.
pub(super) fn validate_sources(name: &str, spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let mut one = OneSource::new(path, errors);
    one.take(&spec.host_path, "hostPath", validate_host_path);
    one.take_as(&spec.gce_persistent_disk, ("gcePersistentDisk", "persistentDisk"), validate_gce_disk);
    one.take(&spec.aws_elastic_block_store, "awsElasticBlockStore", validate_aws_store);
    one.take(&spec.glusterfs, "glusterfs", validate_glusterfs);
    one.take(&spec.flocker, "flocker", validate_flocker);
    one.take(&spec.nfs, "nfs", validate_nfs);
    one.take(&spec.rbd, "rbd", |rbd, path, errors| {
        require_monitors(&rbd.monitors, path, errors);
        require(&[("image", &rbd.image)], path, errors);
    });
    one.take(&spec.quobyte, "quobyte", validate_quobyte);
    one.take_as(&spec.cephfs, ("cephFS", "cephfs"), |cephfs, path, errors| {
        require_monitors(&cephfs.monitors, path, errors);
    });
    one.take(&spec.iscsi, "iscsi", |iscsi, path, errors| validate_persistent_iscsi(iscsi, name, path, errors));
    one.take(&spec.cinder, "cinder", |cinder, path, errors| {
        require(&[("volumeID", &cinder.volume_id)], path, errors);
        if let Some(secret) = &cinder.secret_ref {
            require_secret((&secret.name, &secret.namespace), path, errors);
        }
    });
    one.take(&spec.fc, "fc", validate_fibre_channel);
    one.take_always(&spec.flex_volume, "flexVolume", |flex, path, errors| {
        validate_flex(&flex.driver, &flex.options, path, errors);
    });
    one.take(&spec.azure_file, "azureFile", |file, path, errors| {
        require(&[("secretName", &file.secret_name), ("shareName", &file.share_name)], path, errors);
        require(&[("secretNamespace", file.secret_namespace.as_deref().unwrap_or("default"))], path, errors);
    });
    one.take(&spec.vsphere_volume, "vsphereVolume", validate_vsphere);
    one.take(&spec.photon_persistent_disk, "photonPersistentDisk", validate_photon);
    one.take(&spec.portworx_volume, "portworxVolume", validate_portworx);
    one.take(&spec.azure_disk, "azureDisk", validate_azure_disk);
    one.take(&spec.scale_io, "scaleIO", |scale_io, path, errors| {
        let name = text(&scale_io.volume_name);
        require(&[("gateway", &scale_io.gateway), ("system", &scale_io.system), ("volumeName", name)], path, errors);
    });
    one.take(&spec.local, "local", |local, own, errors| {
        validate_local(local, own, errors);
        if spec.node_affinity.is_none() {
            errors.required(path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    });
    one.take(&spec.storageos, "storageos", |storage, path, errors| {
        validate_storage_os(text(&storage.volume_name), text(&storage.volume_namespace), path, errors);
        if let Some(secret) = &storage.secret_ref {
            require_secret((&secret.name, &secret.namespace), path, errors);
        }
    });
    one.take(&spec.csi, "csi", validate_csi);
    one.finish();
}

fn validate_glusterfs(glusterfs: &GlusterfsPersistentVolumeSource, path: &Path, errors: &mut Errors) {
    require(&[("endpoints", &glusterfs.endpoints), ("path", &glusterfs.path)], path, errors);
    let path = path.child("endpointsNamespace");
    match glusterfs.endpoints_namespace.as_deref() {
        None => {}
        Some("") => {
            errors.invalid(path, "", "if the endpointnamespace is set, it must be a valid namespace name");
        }
        Some(namespace) => errors.invalid_each(&path, namespace, label_name(namespace, false)),
    }
}

fn require_secret((name, namespace): (&Option<String>, &Option<String>), path: &Path, errors: &mut Errors) {
    require(&[("name", text(name)), ("namespace", text(namespace))], &path.child("secretRef"), errors);
}

fn validate_local(local: &LocalVolumeSource, path: &Path, errors: &mut Errors) {
    let path = path.child("path");
    if local.path.is_empty() {
        errors.required(path, "");
    } else {
        validate_no_backsteps(&local.path, &path, "must not contain '..'", errors);
    }
}

/// The secret for staging is left as it is, as upstream leaves it.
fn validate_csi(csi: &CSIPersistentVolumeSource, path: &Path, errors: &mut Errors) {
    validate_csi_driver(&csi.driver, &path.child("driver"), errors);
    require(&[("volumeHandle", &csi.volume_handle)], path, errors);
    let secrets = [
        ("controllerPublishSecretRef", &csi.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &csi.controller_expand_secret_ref),
        ("nodePublishSecretRef", &csi.node_publish_secret_ref),
        ("nodeExpandSecretRef", &csi.node_expand_secret_ref),
    ];
    for (field, secret) in secrets {
        if let Some(secret) = secret {
            validate_secret(secret, &path.child(field), errors);
        }
    }
}

fn validate_secret(secret: &SecretReference, path: &Path, errors: &mut Errors) {
    let (name, namespace) = (text(&secret.name), text(&secret.namespace));
    errors.required_each(&path.child("name"), name, dns1123_subdomain(name));
    errors.required_each(&path.child("namespace"), namespace, dns1123_label(namespace));
}

//! Defaults of the volumes of a pod and of the sources of persistent volumes that share them.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, PersistentVolumeSpec, ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::claim::default_claim_spec;
use super::pod_spec::default_field_ref;
use super::{fill, fill_text, text};
use crate::image::default_pull_policy;

const MODE_OF_FILES: i32 = 0o644;

/// A volume without any source is an empty directory.
pub fn default_volume(volume: &mut Volume) {
    if has_no_source(volume) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    default_file_volumes(volume);
    default_disk_volumes(volume);
}

fn has_no_source(volume: &Volume) -> bool {
    *volume == Volume { name: volume.name.clone(), ..Volume::default() }
}

fn default_file_volumes(volume: &mut Volume) {
    if let Some(secret) = &mut volume.secret {
        fill(&mut secret.default_mode, MODE_OF_FILES);
    }
    if let Some(config_map) = &mut volume.config_map {
        fill(&mut config_map.default_mode, MODE_OF_FILES);
    }
    if let Some(downward) = &mut volume.downward_api {
        fill(&mut downward.default_mode, MODE_OF_FILES);
        default_files(&mut downward.items);
    }
    if let Some(projected) = &mut volume.projected {
        default_projected(projected);
    }
    if let Some(host_path) = &mut volume.host_path {
        fill(&mut host_path.type_, String::new());
    }
    if let Some(image) = &mut volume.image
        && image.pull_policy.as_deref().is_none_or(str::is_empty)
    {
        image.pull_policy = Some(default_pull_policy(text(&image.reference)).to_owned());
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        default_claim_spec(&mut template.spec);
    }
}

fn default_projected(projected: &mut ProjectedVolumeSource) {
    fill(&mut projected.default_mode, MODE_OF_FILES);
    for source in projected.sources.iter_mut().flatten() {
        default_projection(source);
    }
}

fn default_projection(source: &mut VolumeProjection) {
    if let Some(downward) = &mut source.downward_api {
        default_files(&mut downward.items);
    }
    if let Some(token) = &mut source.service_account_token {
        fill(&mut token.expiration_seconds, 3600);
    }
}

fn default_files(items: &mut Option<Vec<DownwardAPIVolumeFile>>) {
    for item in items.iter_mut().flatten() {
        default_field_ref(&mut item.field_ref);
    }
}

fn default_disk_volumes(volume: &mut Volume) {
    if let Some(iscsi) = &mut volume.iscsi {
        fill_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        fill_text(&mut rbd.pool, "rbd");
        fill_text(&mut rbd.user, "admin");
        fill_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        fill(&mut disk.caching_mode, "ReadWrite".to_owned());
        fill(&mut disk.fs_type, "ext4".to_owned());
        fill(&mut disk.read_only, false);
        fill(&mut disk.kind, "Shared".to_owned());
    }
    if let Some(scale_io) = &mut volume.scale_io {
        fill_text(&mut scale_io.storage_mode, "ThinProvisioned");
        fill_text(&mut scale_io.fs_type, "xfs");
    }
}

/// The sources of a persistent volume that have defaults.
pub fn default_persistent_source(spec: &mut PersistentVolumeSpec) {
    if let Some(host_path) = &mut spec.host_path {
        fill(&mut host_path.type_, String::new());
    }
    if let Some(iscsi) = &mut spec.iscsi {
        fill_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut spec.rbd {
        fill_text(&mut rbd.pool, "rbd");
        fill_text(&mut rbd.user, "admin");
        fill_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut spec.azure_disk {
        fill(&mut disk.caching_mode, "ReadWrite".to_owned());
        fill(&mut disk.fs_type, "ext4".to_owned());
        fill(&mut disk.read_only, false);
        fill(&mut disk.kind, "Shared".to_owned());
    }
    if let Some(scale_io) = &mut spec.scale_io {
        fill_text(&mut scale_io.storage_mode, "ThinProvisioned");
        fill_text(&mut scale_io.fs_type, "xfs");
    }
}

//! configMap volumes: keys of one ConfigMap as files.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, Pod, Volume};
use podlife::payload::{config_map_data, mode_bits, select_files};

use super::{Collected, Sources};

/// ConfigMaps that a volume takes files from.
pub(super) fn names(volume: &Volume) -> Vec<String> {
    let own = volume.config_map.as_ref().map(|source| source.name.clone());
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    own.into_iter().chain(projected.filter_map(|source| source.config_map.as_ref().map(|c| c.name.clone()))).collect()
}

pub(super) async fn collect(
    sources: &mut Sources,
    pod: &Pod,
    source: &ConfigMapVolumeSource,
) -> Result<Collected, String> {
    let optional = source.optional == Some(true);
    let mode = source.default_mode.map_or(0o644, mode_bits);
    let Some(config_map) = sources.config_map(pod, &source.name).await? else {
        return if optional {
            Ok(Collected::default())
        } else {
            Err(format!("configmap \"{}\" not found", source.name))
        };
    };
    let data = config_map_data(&config_map);
    let files = select_files(&data, source.items.as_deref(), mode, optional, "configmap")?;
    Ok(Collected { files, refresh_at: None })
}

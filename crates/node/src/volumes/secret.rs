//! secret volumes: keys of one Secret as files, in memory.

use k8s_openapi::api::core::v1::{Pod, SecretVolumeSource, Volume};
use podlife::payload::{mode_bits, secret_data, select_files};

use super::{Collected, Sources};

/// Secrets that a volume takes files from.
pub(super) fn names(volume: &Volume) -> Vec<String> {
    let own = volume.secret.as_ref().and_then(|source| source.secret_name.clone());
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    own.into_iter().chain(projected.filter_map(|source| source.secret.as_ref().map(|s| s.name.clone()))).collect()
}

pub(super) async fn collect(
    sources: &mut Sources,
    pod: &Pod,
    source: &SecretVolumeSource,
) -> Result<Collected, String> {
    let optional = source.optional == Some(true);
    let mode = source.default_mode.map_or(0o644, mode_bits);
    let name = source.secret_name.as_deref().unwrap_or_default();
    let Some(secret) = sources.secret(pod, name).await? else {
        return if optional { Ok(Collected::default()) } else { Err(format!("secret \"{name}\" not found")) };
    };
    let files = select_files(&secret_data(&secret), source.items.as_deref(), mode, optional, "secret")?;
    Ok(Collected { files, refresh_at: None })
}

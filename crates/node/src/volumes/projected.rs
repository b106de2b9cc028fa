//! projected volumes: several sources in one directory, in memory. A later source wins a path.

use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, VolumeProjection};
use podlife::payload::{config_map_data, mode_bits, secret_data, select_files};

use super::{Collected, Sources, downward_api};

pub(super) async fn collect(
    sources: &mut Sources,
    pod: &Pod,
    volume: &str,
    projected: &ProjectedVolumeSource,
) -> Result<Collected, String> {
    let mut collected = Collected::default();
    for (index, source) in projected.sources.iter().flatten().enumerate() {
        let part = collect_source(sources, pod, source, projected.default_mode, &format!("{volume}/{index}")).await?;
        collected.files.extend(part.files);
        collected.refresh_at = match (collected.refresh_at, part.refresh_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    Ok(collected)
}

async fn collect_source(
    sources: &mut Sources,
    pod: &Pod,
    source: &VolumeProjection,
    default_mode: Option<i32>,
    key: &str,
) -> Result<Collected, String> {
    let mode = default_mode.map_or(0o644, mode_bits);
    if let Some(reference) = &source.config_map {
        let optional = reference.optional == Some(true);
        return match sources.config_map(pod, &reference.name).await? {
            Some(object) => {
                let data = config_map_data(&object);
                let files = select_files(&data, reference.items.as_deref(), mode, optional, "configmap")?;
                Ok(Collected { files, refresh_at: None })
            }
            None if optional => Ok(Collected::default()),
            None => Err(format!("configmap \"{}\" not found", reference.name)),
        };
    }
    if let Some(reference) = &source.secret {
        let optional = reference.optional == Some(true);
        return match sources.secret(pod, &reference.name).await? {
            Some(object) => {
                let files = select_files(&secret_data(&object), reference.items.as_deref(), mode, optional, "secret")?;
                Ok(Collected { files, refresh_at: None })
            }
            None if optional => Ok(Collected::default()),
            None => Err(format!("secret \"{}\" not found", reference.name)),
        };
    }
    if let Some(downward) = &source.downward_api {
        return downward_api::collect(sources, pod, downward.items.as_deref(), default_mode);
    }
    if let Some(token) = &source.service_account_token {
        let Sources { context, tokens, .. } = sources;
        return tokens.collect(context, pod, token, mode, key).await;
    }
    Err("this kind of projection is not supported".to_owned())
}

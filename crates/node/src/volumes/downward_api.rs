//! downwardAPI volumes: fields of the pod and resources of its containers as files, in memory.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Pod};
use podlife::downward::{field_value, resource_value};
use podlife::payload::{File, check_path, mode_bits};

use super::{Collected, Sources};

pub(super) fn collect(
    sources: &Sources,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
) -> Result<Collected, String> {
    let default_mode = default_mode.map_or(0o644, mode_bits);
    let mut collected = Collected::default();
    for item in items.unwrap_or_default() {
        check_path(&item.path)?;
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(pod, field, &sources.context.facts)?,
            (None, Some(resource)) => resource_value(pod, None, resource, &sources.context.facts)?,
            (None, None) => return Err(format!("{}: neither fieldRef nor resourceFieldRef", item.path)),
        };
        let mode = item.mode.map_or(default_mode, mode_bits);
        collected.files.insert(item.path.clone(), File { bytes: value.into_bytes(), mode, owner: None });
    }
    Ok(collected)
}

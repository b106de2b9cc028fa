//! emptyDir volumes: a directory of the pod's own, on disk or in memory. Also the directory under every content volume.
//!
//! Invariant: mode 0777 (with the setgid bit under fsGroup), made once; a mount that is there is left alone.

use std::ffi::CString;
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use podlife::downward::RuntimeFacts;
use podlife::resources::{pod_limits, whole};
use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount};

use super::ownership;

pub(super) fn apply(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    directory: &Path,
    facts: &RuntimeFacts,
) -> Result<(), String> {
    let options = match source.medium.as_deref() {
        Some("Memory") => Some(format!("size={}", memory_size(pod, source, facts))),
        None | Some("") => None,
        Some(other) => return Err(format!("medium {other} is not supported")),
    };
    let fresh = make_directory(directory, options.as_deref()).map_err(|error| error.to_string())?;
    if fresh && let Some(group) = ownership::fs_group(pod) {
        ownership::apply_group(directory, group, false).map_err(|error| format!("cannot set fsGroup: {error}"))?;
    }
    Ok(())
}

/// The smallest of sizeLimit, the pod's memory limit and what the node has.
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, facts: &RuntimeFacts) -> i64 {
    let own = source.size_limit.as_ref().map(whole).filter(|size| *size > 0);
    let candidates = [own, pod_limits(pod).memory_bytes, Some(facts.allocatable_memory_bytes)];
    candidates.into_iter().flatten().filter(|size| *size > 0).min().unwrap_or(1 << 30)
}

/// Makes the directory, and mounts a tmpfs on it if options are given. True if it was not there before.
pub(super) fn make_directory(directory: &Path, tmpfs_options: Option<&str>) -> std::io::Result<bool> {
    let existed = directory.is_dir();
    std::fs::create_dir_all(directory)?;
    let mut fresh = !existed;
    if let Some(options) = tmpfs_options
        && !is_mount_point(directory)?
    {
        let data = CString::new(options).map_err(std::io::Error::other)?;
        let data = (!options.is_empty()).then_some(data.as_c_str());
        mount("tmpfs", directory, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, data)?;
        fresh = true;
    }
    if fresh {
        // chmod, since mkdir's mode passes through the umask.
        rustix::fs::chmod(directory, Mode::from_raw_mode(0o777))?;
    }
    Ok(fresh)
}

/// A mount point is on another device than its parent.
fn is_mount_point(directory: &Path) -> std::io::Result<bool> {
    let own = rustix::fs::stat(directory)?;
    let parent = rustix::fs::stat(directory.parent().unwrap_or(directory))?;
    Ok(own.st_dev != parent.st_dev)
}

//! Removes all that the node left on the machine, for `make down`.
//!
//! Input: the same paths that the node ran with. Output: no sandbox, container, shim, containerd, mount, cgroup or pod
//! directory is left; images under the runtime's root stay. Invariant: works from any half-way state, also with a dead
//! containerd, and twice in a row. Touches nothing outside the configured directories and `kubepods`.

use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal};

use super::process::{attach, end_process, running_pid, signal};
use crate::cgroups;
use crate::config::{NodeConfig, RuntimeConfig};
use crate::cri::{Cri, v1};

/// Where the runtime keeps the sandboxes' network namespaces; it mounts the directory onto itself.
const NETWORK_NAMESPACES: &str = "/run/netns";
/// Sandboxes removed at once; each holds a shim and a CNI call.
const REMOVALS_AT_ONCE: usize = 8;

/// See the module doc. Best effort by nature: what fails is logged, and the rest goes on.
pub async fn stop_runtime(config: &NodeConfig) {
    let runtime = &config.runtime;
    if runtime.endpoint.is_none() && running_pid(runtime).is_none() {
        tracing::info!("containerd is not running; removing what it left");
    } else {
        remove_sandboxes(&Cri::new(&runtime.socket())).await;
    }
    if runtime.endpoint.is_none() {
        end_containerd(runtime).await;
        end_shims(runtime).await;
    }
    cgroups::kill_all(&config.cgroup_root);
    unmount_below(&[&config.kubelet_dir, &runtime.root, &runtime.state]);
    unmount_empty(Path::new(NETWORK_NAMESPACES));
    cgroups::remove_all(&config.cgroup_root).await;
    remove_tree(&config.kubelet_dir.join("pods"));
    remove_tree(&config.pod_log_dir);
    remove_dangling_links(&config.container_log_dir);
    if runtime.endpoint.is_none() {
        remove_tree(&runtime.state);
    }
}

async fn remove_sandboxes(cri: &Cri) {
    let sandboxes = match cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await {
        Ok(list) => list.items,
        Err(error) => {
            tracing::warn!(%error, "cannot list sandboxes; their processes are killed instead");
            return;
        }
    };
    futures::stream::iter(sandboxes)
        .for_each_concurrent(REMOVALS_AT_ONCE, |sandbox| async move {
            let pod_sandbox_id = sandbox.id;
            let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            if let Err(error) = cri.stop_pod_sandbox(stop).await {
                tracing::warn!(%error, sandbox = %pod_sandbox_id, "cannot stop sandbox");
            }
            let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            if let Err(error) = cri.remove_pod_sandbox(remove).await {
                tracing::warn!(%error, sandbox = %pod_sandbox_id, "cannot remove sandbox");
            }
        })
        .await;
}

async fn end_containerd(config: &RuntimeConfig) {
    if let Some(pid) = running_pid(config)
        && let Some(found) = attach(pid)
    {
        end_process(pid, found).await;
    }
}

/// Shims name their containerd's socket in their arguments.
async fn end_shims(config: &RuntimeConfig) {
    let socket = config.state.join("containerd.sock");
    let socket = socket.as_os_str().as_encoded_bytes();
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for entry in processes.flatten() {
        let Some(raw) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(command_line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let mut args = command_line.split(|b| *b == 0);
        let is_shim = args.next().is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2"));
        if is_shim
            && args.any(|arg| arg == socket)
            && let Some(pid) = Pid::from_raw(raw)
            && let Some(found) = attach(pid)
        {
            signal(pid, Signal::KILL);
            end_process(pid, found).await;
        }
    }
}

/// Deepest first, lazily, so that a busy mount still leaves the tree.
pub fn unmount_below(roots: &[&Path]) {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return };
    let mut points = parse_mount_points(&table);
    points.retain(|point| roots.iter().any(|root| point.starts_with(root) && point != *root));
    for point in points.iter().rev() {
        if let Err(error) = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(%error, point = %point.display(), "cannot unmount");
        }
    }
}

/// Unmounts a mount point with nothing in it; namespaces of others keep theirs.
fn unmount_empty(point: &Path) {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return };
    let is_empty = std::fs::read_dir(point).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty
        && parse_mount_points(&table).iter().any(|mounted| mounted == point)
        && let Err(error) = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
    {
        tracing::warn!(%error, point = %point.display(), "cannot unmount");
    }
}

/// Field five of each line, with the kernel's octal escapes undone, in mount order.
pub fn parse_mount_points(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| PathBuf::from(unescape(field))).collect()
}

fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| field.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()))
            .flatten();
        out.push(octal.unwrap_or(bytes[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn remove_tree(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove");
    }
}

fn remove_dangling_links(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_symlink()
            && !path.exists()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /a\\040b/c rw - tmpfs t rw\n";
        assert_eq!(parse_mount_points(table), [PathBuf::from("/"), PathBuf::from("/a b/c")]);
    }
}

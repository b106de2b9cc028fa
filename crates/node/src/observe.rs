//! CRI's view of one pod, translated for `podlife`.
//!
//! Input: a pod's uid. Output: [`Observed`]. Invariant: an instance that exited is read once and remembered, so that its
//! termination message does not depend on files that go away; everything else is asked anew each time.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use podlife::{ContainerRecord, Observed, RunState, Sandbox};
use tonic::Status;

use crate::cri::{Cri, v1};

/// Labels and annotations under which containers are found again after a restart; upstream's names.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";

/// Bounds of a termination message: from its file, and from the log.
const MESSAGE_BYTES_MAX: usize = 4096;
const LOG_MESSAGE_BYTES_MAX: u64 = 2048;
const LOG_MESSAGE_LINES_MAX: usize = 80;

/// What needs not be asked twice.
#[derive(Debug, Default)]
pub struct Remembered {
    exited: HashMap<String, ContainerRecord>,
    addresses: HashMap<String, Vec<String>>,
}

/// All sandboxes and containers with that pod uid.
pub async fn observe_pod(cri: &Cri, uid: &str, remembered: &mut Remembered) -> Result<Observed, Status> {
    let selector = BTreeMap::from([(POD_UID.to_owned(), uid.to_owned())]);
    let label_selector = selector.into_iter().collect::<HashMap<_, _>>();
    let sandboxes = cri.list_pod_sandbox(v1::ListPodSandboxRequest {
        filter: Some(v1::PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() }),
    });
    let containers = cri.list_containers(v1::ListContainersRequest {
        filter: Some(v1::ContainerFilter { label_selector, ..Default::default() }),
    });
    let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
    let mut observed = Observed::default();
    for sandbox in sandboxes.items {
        observed.sandboxes.push(observe_sandbox(cri, sandbox, remembered).await?);
    }
    for container in &containers.containers {
        if let Some(record) = remembered.exited.get(&container.id) {
            observed.containers.push(record.clone());
        } else if let Some(record) = observe_container(cri, container).await? {
            if record.state == RunState::Exited {
                remembered.exited.insert(record.id.clone(), record.clone());
            }
            observed.containers.push(record);
        }
    }
    remembered.exited.retain(|id, _| containers.containers.iter().any(|container| container.id == *id));
    observed.sort();
    Ok(observed)
}

async fn observe_sandbox(cri: &Cri, sandbox: v1::PodSandbox, remembered: &mut Remembered) -> Result<Sandbox, Status> {
    let ready = sandbox.state == v1::PodSandboxState::SandboxReady as i32;
    let ips = match remembered.addresses.get(&sandbox.id) {
        Some(ips) => ips.clone(),
        None if ready => {
            let ips = sandbox_addresses(cri, &sandbox.id).await?;
            remembered.addresses.insert(sandbox.id.clone(), ips.clone());
            ips
        }
        None => Vec::new(),
    };
    let attempt = sandbox.metadata.map_or(0, |metadata| metadata.attempt);
    Ok(Sandbox { id: sandbox.id, attempt, created_at: sandbox.created_at, ready, ips })
}

async fn sandbox_addresses(cri: &Cri, id: &str) -> Result<Vec<String>, Status> {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let network = match cri.pod_sandbox_status(request).await {
        Ok(reply) => reply.status.and_then(|status| status.network),
        // Removed since it was listed.
        Err(status) if status.code() == tonic::Code::NotFound => None,
        Err(status) => return Err(status),
    };
    let Some(network) = network else { return Ok(Vec::new()) };
    let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    Ok(all.filter(|ip| !ip.is_empty()).collect())
}

/// `None` if it was removed since it was listed.
async fn observe_container(cri: &Cri, container: &v1::Container) -> Result<Option<ContainerRecord>, Status> {
    let request = v1::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
    let status = match cri.container_status(request).await {
        Ok(reply) => reply.status.unwrap_or_default(),
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
        Err(status) => return Err(status),
    };
    Ok(Some(record_of(container, status)))
}

fn record_of(container: &v1::Container, status: v1::ContainerStatus) -> ContainerRecord {
    let state = match v1::ContainerState::try_from(status.state) {
        Ok(v1::ContainerState::ContainerCreated) => RunState::Created,
        Ok(v1::ContainerState::ContainerRunning) => RunState::Running,
        Ok(v1::ContainerState::ContainerExited) => RunState::Exited,
        _ => RunState::Unknown,
    };
    let label = |key: &str| status.labels.get(key).cloned().unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str);
    let message = if state == RunState::Exited { read_termination_message(&status) } else { String::new() };
    let metadata = status.metadata.clone().unwrap_or_default();
    let image = status.image.clone().unwrap_or_default();
    ContainerRecord {
        id: status.id.clone(),
        name: label(CONTAINER_NAME),
        attempt: annotation(RESTART_COUNT).and_then(|count| count.parse().ok()).unwrap_or(metadata.attempt),
        sandbox_id: container.pod_sandbox_id.clone(),
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message,
        image: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        image_ref: status.image_ref.clone(),
        hash: annotation(CONTAINER_HASH).and_then(|hash| u64::from_str_radix(hash, 16).ok()).unwrap_or(0),
        user: status
            .user
            .as_ref()
            .and_then(|user| user.linux.as_ref())
            .map(|linux| (linux.uid, linux.gid, linux.supplemental_groups.clone())),
        log_path: status.log_path.clone(),
    }
}

/// The file that the container wrote; under FallbackToLogsOnError the log's end; and what the runtime itself says.
fn read_termination_message(status: &v1::ContainerStatus) -> String {
    let path = status.annotations.get(MESSAGE_PATH).cloned().unwrap_or_default();
    let mount = status.mounts.iter().find(|mount| !path.is_empty() && mount.container_path == path);
    let mut message = mount.map(|mount| read_head(Path::new(&mount.host_path))).unwrap_or_default();
    let from_log = status.annotations.get(MESSAGE_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
    if message.is_empty() && from_log && status.exit_code != 0 {
        message = read_log_tail(Path::new(&status.log_path));
    }
    match (status.message.is_empty(), message.is_empty()) {
        (true, _) => message,
        (false, true) => status.message.clone(),
        (false, false) => format!("{}: {message}", status.message),
    }
}

/// A symlink in the mount's place is not followed: the container chose it.
fn read_head(path: &Path) -> String {
    use rustix::fs::{Mode, OFlags};
    use std::io::Read as _;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return String::new() };
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut bytes);
    if read.is_err() { String::new() } else { String::from_utf8_lossy(&bytes).into_owned() }
}

fn read_log_tail(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let Ok(mut file) = std::fs::File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // Each line carries a time and a stream's name before its text; four times the bound holds enough of them.
    let start = length.saturating_sub(LOG_MESSAGE_BYTES_MAX * 4);
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(start)).is_err() || file.read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().collect::<Vec<_>>();
    if start > 0 && !lines.is_empty() {
        lines.remove(0);
    }
    let tail = lines.split_off(lines.len().saturating_sub(LOG_MESSAGE_LINES_MAX));
    let texts = tail.iter().filter_map(|line| log_text(line)).collect::<String>();
    let cut = texts.len().saturating_sub(usize::try_from(LOG_MESSAGE_BYTES_MAX).unwrap_or(0));
    let cut = (cut..=texts.len()).find(|at| texts.is_char_boundary(*at)).unwrap_or(0);
    texts[cut..].to_owned()
}

/// `time stream F|P text`; a full line gets its newline back.
fn log_text(line: &str) -> Option<String> {
    let mut parts = line.splitn(4, ' ');
    let (_time, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some(if tag.starts_with('F') { format!("{text}\n") } else { text.to_owned() })
}

/// `<dir>/<namespace>_<name>_<uid>`.
pub fn pod_log_directory(dir: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    dir.join(format!("{namespace}_{name}_{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_lose_their_prefix() {
        assert_eq!(log_text("2026-01-01T00:00:00Z stdout F hello world").as_deref(), Some("hello world\n"));
        assert_eq!(log_text("2026-01-01T00:00:00Z stderr P part").as_deref(), Some("part"));
        assert_eq!(log_text("broken"), None);
    }
}

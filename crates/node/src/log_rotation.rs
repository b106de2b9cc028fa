//! Keeps container logs bounded: 10 MiB a file, 5 files a container.
//!
//! Input: every 10 s, the log files of running containers. Output: `N.log` renamed to `N.log.<time>`, older ones gzipped
//! and removed. Invariant: the runtime reopens the path right after the rename, so no line is lost.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cri::v1;
use crate::kubelet::Context;

const EVERY: Duration = Duration::from_secs(10);
const BYTES_MAX: u64 = 10 << 20;
/// The one being written included.
const FILES_MAX: usize = 5;

pub async fn run_rotation(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        rotate_all(&context).await;
    }
}

async fn rotate_all(context: &Context) {
    // The files tell cheaply whether anything is to be done; only then is the runtime asked.
    if !find_large(&context.config.pod_log_dir) {
        return;
    }
    let filter = v1::ContainerFilter {
        state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 }),
        ..Default::default()
    };
    let list = match context.cri.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await {
        Ok(list) => list,
        Err(error) => {
            return tracing::warn!(%error, "a log is to be rotated and the runtime does not list its containers");
        }
    };
    for container in list.containers {
        let request = v1::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
        let reply = match context.cri.container_status(request).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(%error, container = container.id, "no status of a container: its log is not rotated now");
                continue;
            }
        };
        let path = PathBuf::from(reply.status.map(|status| status.log_path).unwrap_or_default());
        if std::fs::metadata(&path).map_or(0, |metadata| metadata.len()) <= BYTES_MAX {
            continue;
        }
        if let Err(error) = rotate(context, &container.id, &path).await {
            tracing::warn!(%error, path = %path.display(), "cannot rotate a log");
        }
    }
}

fn find_large(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            find_large(&path)
        } else {
            path.extension().is_some_and(|extension| extension == "log")
                && std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > BYTES_MAX)
        }
    })
}

async fn rotate(context: &Context, container_id: &str, path: &Path) -> std::io::Result<()> {
    let stamped = with_suffix(path, &stamp(context.clock.now()));
    std::fs::rename(path, &stamped)?;
    let request = v1::ReopenContainerLogRequest { container_id: container_id.to_owned() };
    if let Err(status) = context.cri.reopen_container_log(request).await {
        std::fs::rename(&stamped, path)?;
        return Err(std::io::Error::other(status.message().to_owned()));
    }
    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || tidy(&path)).await.map_err(std::io::Error::other)?
}

fn stamp(now: Timestamp) -> String {
    now.strftime("%Y%m%d-%H%M%S").to_string()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    PathBuf::from(name)
}

/// Compresses all rotated files but the newest, and removes the oldest beyond the bound.
fn tidy(path: &Path) -> std::io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let prefix = format!("{name}.");
    let entries = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let mut rotated = entries
        .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&prefix)))
        .collect::<Vec<_>>();
    rotated.sort();
    while rotated.len() >= FILES_MAX {
        std::fs::remove_file(rotated.remove(0))?;
    }
    rotated.pop();
    for path in rotated.iter().filter(|path| path.extension().is_none_or(|extension| extension != "gz")) {
        let target = std::fs::File::create(with_suffix(path, "gz"))?;
        let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::default());
        std::io::copy(&mut std::fs::File::open(path)?, &mut encoder)?;
        encoder.finish()?.flush()?;
        std::fs::remove_file(path)?;
    }
    Ok(())
}

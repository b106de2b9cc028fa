//! Runs our own containerd: finds it, configures it, starts it outside our process group, watches it, restarts it.
//!
//! Input: [`RuntimeConfig`]. Output: a connected [`Cri`] and a supervisor task. Invariant [I12]: our death does not stop
//! containerd (own process group, no pipe to us, log in a file), and a later start attaches to the running one; it is
//! restarted only when its configuration changed or it died. Containers live in shims and survive both.
//! Does not install anything, does not know pods. With an `endpoint` given it only connects.

pub mod config_toml;
pub mod import;
pub mod process;
pub mod registries;
pub mod teardown;

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::RuntimeConfig;
use crate::cri::{Cri, v1};
use process::{Containerd, Found};

/// Our containerd must answer within this after its start; a cold one takes 0.2-1 s.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Restart delays double from the first to the last; a run of at least `STABLE` resets them.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(500);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
const STABLE: Duration = Duration::from_secs(60);

/// One line each, naming the remedy.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(
        "{name} not found in {searched}: install it (`apt-get install containerd runc`) or set the runtime's bin directory"
    )]
    Missing { name: &'static str, searched: String },
    #[error("cannot write containerd's files under {path}: check the disk and that this runs as root")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot start {program}: check that it is executable")]
    Spawn { program: PathBuf, source: std::io::Error },
    #[error("containerd did not answer on {socket} within {}s: see {log}", .waited.as_secs())]
    NoAnswer { socket: PathBuf, log: PathBuf, waited: Duration, source: tonic::Status },
    #[error(
        "container runtime at {socket} does not answer: start it, or drop --container-runtime-endpoint to use our own"
    )]
    EndpointDead { socket: PathBuf, source: tonic::Status },
    #[error("cannot parse {path}: fix the file or remove it")]
    Registries { path: PathBuf, source: Box<registries::RegistriesError> },
    #[error("{program} {args} failed: {message}")]
    Command { program: PathBuf, args: String, message: String },
}

/// A runtime that answered once.
pub struct Runtime {
    pub cri: Cri,
    pub name: String,
    pub version: String,
}

/// Makes sure a runtime answers and keeps ours running until `stop` is cancelled (which does not stop it).
///
/// Errors are final for a missing binary or unreadable registries file; the caller reports them and may call again.
pub async fn start_runtime(config: &RuntimeConfig, stop: CancellationToken) -> Result<Runtime, RuntimeError> {
    let cri = Cri::new(&config.socket());
    if config.endpoint.is_some() {
        let version = cri
            .version(v1::VersionRequest::default())
            .await
            .map_err(|source| RuntimeError::EndpointDead { socket: config.socket(), source })?;
        return Ok(Runtime { cri, name: version.runtime_name, version: version.runtime_version });
    }
    let containerd = Containerd::prepare(config).await?;
    let found = containerd.attach_or_start(&cri).await?;
    let version = wait_for_answer(&cri, &containerd).await?;
    tracing::info!(version = %version.runtime_version, "containerd answers");
    tokio::spawn(supervise(containerd, cri.clone(), found, stop));
    Ok(Runtime { cri, name: version.runtime_name, version: version.runtime_version })
}

async fn wait_for_answer(cri: &Cri, containerd: &Containerd) -> Result<v1::VersionResponse, RuntimeError> {
    let deadline = tokio::time::Instant::now() + START_DEADLINE;
    loop {
        match cri.version(v1::VersionRequest::default()).await {
            Ok(version) => return Ok(version),
            Err(source) if tokio::time::Instant::now() >= deadline => {
                return Err(RuntimeError::NoAnswer {
                    socket: cri.socket().to_path_buf(),
                    log: containerd.log_file(),
                    waited: START_DEADLINE,
                    source,
                });
            }
            // The socket file appears before CRI is served, so neither inotify nor connect() tells; 20 ms is cheap.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits for the process to end and starts it again, with back-off, for ever.
async fn supervise(containerd: Containerd, cri: Cri, mut found: Found, stop: CancellationToken) {
    let mut delay = RESTART_DELAY_MIN;
    loop {
        let started = tokio::time::Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            outcome = found.ended() => tracing::warn!(
                "containerd ended ({outcome}); starting it again in {} ms, see {}",
                delay.as_millis(), containerd.log_file().display()
            ),
        }
        delay = if started.elapsed() >= STABLE { RESTART_DELAY_MIN } else { delay };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(RESTART_DELAY_MAX);
            match containerd.attach_or_start(&cri).await {
                Ok(next) => {
                    found = next;
                    break;
                }
                Err(error) => tracing::error!("{error}"),
            }
        }
    }
}

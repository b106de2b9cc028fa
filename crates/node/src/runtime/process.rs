//! The containerd process: where its binaries are, its files, starting it and attaching to one that runs.
//!
//! Input: [`RuntimeConfig`]. Output: [`Found`], a handle to wait for its end. Invariant: at most one containerd of ours
//! runs on a state directory; a process is ours only if its pid file and its command line agree.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::io::unix::AsyncFd;

use super::RuntimeError;
use super::config_toml::{ContainerdVersion, derive_config_toml, parse_version};
use super::registries::{derive_hosts_files, parse_registries};
use crate::config::RuntimeConfig;
use crate::cri::{Cri, v1};

const SYSTEM_DIRS: [&str; 6] = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// Our containerd, configured.
pub struct Containerd {
    config: RuntimeConfig,
    program: PathBuf,
    path_variable: String,
    /// The files on disk differ from what a running instance was started with.
    config_changed: bool,
}

/// A running containerd.
pub enum Found {
    /// Started by this process: its exit status can be read.
    Child(tokio::process::Child),
    /// Started by an earlier process of ours.
    Attached(AsyncFd<std::os::fd::OwnedFd>),
}

impl Found {
    /// Resolves when the process has ended, with how.
    pub async fn ended(&mut self) -> String {
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("unknown: {error}"),
            },
            Self::Attached(pidfd) => match pidfd.readable().await {
                Ok(_) => "gone".to_owned(),
                Err(error) => format!("unknown: {error}"),
            },
        }
    }
}

impl Containerd {
    /// Finds the binaries and writes all configuration files.
    pub async fn prepare(config: &RuntimeConfig) -> Result<Self, RuntimeError> {
        let dirs = search_dirs(config);
        let program = find_program(&dirs, "containerd")?;
        let runc = find_program(&dirs, "runc")?;
        find_program(&dirs, "containerd-shim-runc-v2")?;
        let version = query_version(&program).await?;
        let hosts_dir = config.root.join("certs.d");
        write_hosts(config, &hosts_dir)?;
        let toml = derive_config_toml(config, version, &runc, &hosts_dir);
        let path = config.state.join("config.toml");
        let config_changed = std::fs::read_to_string(&path).ok().as_deref() != Some(toml.as_str());
        write_file(&path, &toml)?;
        let path_variable = dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(":");
        Ok(Self { config: config.clone(), program, path_variable, config_changed })
    }

    pub fn log_file(&self) -> PathBuf {
        self.config.state.join("containerd.log")
    }

    /// Attaches to a healthy running instance of the same configuration; otherwise ends what is left and starts anew.
    pub async fn attach_or_start(&self, cri: &Cri) -> Result<Found, RuntimeError> {
        if let Some(pid) = running_pid(&self.config) {
            let healthy = !self.config_changed && cri.version(v1::VersionRequest::default()).await.is_ok();
            if let Some(found) = attach(pid) {
                if healthy {
                    tracing::info!(pid = pid.as_raw_nonzero().get(), "attached to the running containerd");
                    return Ok(found);
                }
                end_process(pid, found).await;
            }
        }
        self.start()
    }

    fn start(&self) -> Result<Found, RuntimeError> {
        let log_path = self.log_file();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(|source| RuntimeError::Write { path: log_path.clone(), source })?;
        let log_too = log.try_clone().map_err(|source| RuntimeError::Write { path: log_path, source })?;
        // A process group of its own: a terminal's Ctrl-C for us is none for containerd.
        let child = tokio::process::Command::new(&self.program)
            .arg("--config")
            .arg(self.config.state.join("config.toml"))
            .env_clear()
            .env("PATH", &self.path_variable)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(|source| RuntimeError::Spawn { program: self.program.clone(), source })?;
        if let Some(pid) = child.id() {
            write_file(&self.config.state.join("containerd.pid"), &pid.to_string())?;
        }
        Ok(Found::Child(child))
    }
}

/// Directories for binaries, ours first.
pub fn search_dirs(config: &RuntimeConfig) -> Vec<PathBuf> {
    config.bin_dir.iter().cloned().chain(SYSTEM_DIRS.iter().map(PathBuf::from)).collect()
}

/// The first executable file of that name.
pub fn find_program(dirs: &[PathBuf], name: &'static str) -> Result<PathBuf, RuntimeError> {
    dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file()).ok_or_else(|| RuntimeError::Missing {
        name,
        searched: dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

async fn query_version(program: &Path) -> Result<ContainerdVersion, RuntimeError> {
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .output()
        .await
        .map_err(|source| RuntimeError::Spawn { program: program.to_path_buf(), source })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&text).ok_or_else(|| RuntimeError::Command {
        program: program.to_path_buf(),
        args: "--version".to_owned(),
        message: format!("not understood: {text:?}"),
    })
}

fn write_hosts(config: &RuntimeConfig, hosts_dir: &Path) -> Result<(), RuntimeError> {
    let text = match std::fs::read_to_string(&config.registries_file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(RuntimeError::Write { path: config.registries_file.clone(), source }),
    };
    let registries = parse_registries(&text).map_err(|source| RuntimeError::Registries {
        path: config.registries_file.clone(),
        source: Box::new(source),
    })?;
    // Stale mirrors must not outlive their line in the file.
    if let Err(source) = std::fs::remove_dir_all(hosts_dir)
        && source.kind() != std::io::ErrorKind::NotFound
    {
        return Err(RuntimeError::Write { path: hosts_dir.to_path_buf(), source });
    }
    create_dir(hosts_dir)?;
    for (registry, hosts_toml) in derive_hosts_files(&registries) {
        write_file(&hosts_dir.join(registry).join("hosts.toml"), &hosts_toml)?;
    }
    Ok(())
}

fn create_dir(path: &Path) -> Result<(), RuntimeError> {
    std::fs::create_dir_all(path).map_err(|source| RuntimeError::Write { path: path.to_path_buf(), source })
}

fn write_file(path: &Path, text: &str) -> Result<(), RuntimeError> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    std::fs::write(path, text).map_err(|source| RuntimeError::Write { path: path.to_path_buf(), source })
}

/// The pid in the pid file, if that process is containerd on our configuration.
pub fn running_pid(config: &RuntimeConfig) -> Option<Pid> {
    let raw: i32 = std::fs::read_to_string(config.state.join("containerd.pid")).ok()?.trim().parse().ok()?;
    let command_line = std::fs::read(format!("/proc/{raw}/cmdline")).ok()?;
    let ours = config.state.join("config.toml");
    let is_ours = command_line.split(|b| *b == 0).any(|arg| arg == ours.as_os_str().as_encoded_bytes());
    if is_ours { Pid::from_raw(raw) } else { None }
}

/// A handle on a process that is not our child.
pub fn attach(pid: Pid) -> Option<Found> {
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    // SAFETY: the OwnedFd given away here is what keeps the descriptor open, for as long as the AsyncFd lives.
    let pidfd = unsafe { AsyncFd::register(pidfd) };
    pidfd.ok().map(Found::Attached)
}

/// SIGTERM, ten seconds, SIGKILL; returns when it is gone.
pub async fn end_process(pid: Pid, mut found: Found) {
    signal(pid, Signal::TERM);
    if tokio::time::timeout(std::time::Duration::from_secs(10), found.ended()).await.is_err() {
        signal(pid, Signal::KILL);
        found.ended().await;
    }
}

/// A process that is already gone needs no signal.
pub fn signal(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = pid.as_raw_nonzero().get(), %error, "cannot signal");
    }
}

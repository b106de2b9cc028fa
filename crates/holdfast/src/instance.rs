//! The one running instance on a run directory: its lock, its process id, and how to start it in the background or end it.
//!
//! The lock file is held with flock for the life of the process, so a crash frees it and a stale pid is never believed.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::FlockOperation;

/// The line on standard output with which a foreground process says that the cluster is ready.
pub const READY_LINE: &str = "ready";

/// The line that says that it is not, but goes on trying.
pub const NOT_READY_LINE: &str = "not ready";

/// Held for the life of the instance.
pub struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("holdfast runs already (pid {pid}, {run_dir}); `holdfast status` shows it, `holdfast down` stops it")]
    Running { pid: String, run_dir: String },
    #[error("cannot use {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start {program}")]
    Spawn {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the cluster runs, but its node is not Ready; it goes on trying. `holdfast status` shows what ails, `holdfast down` stops it"
    )]
    NotReady,
    #[error("holdfast ended before it was ready; the end of {log}:\n{tail}")]
    EndedEarly { log: String, tail: String },
}

/// Takes the instance lock of `run_dir` and writes this process' id into it.
pub fn lock(run_dir: &Path) -> Result<Lock, InstanceError> {
    let (mut file, path) = open_lock(run_dir)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(InstanceError::Running { pid: read_pid(&mut file), run_dir: run_dir.display().to_string() });
    }
    let error = |source| InstanceError::File { path: path.clone(), source };
    file.set_len(0).map_err(error)?;
    file.rewind().map_err(error)?;
    writeln!(file, "{}", std::process::id()).map_err(error)?;
    Ok(Lock { _file: file })
}

/// The process id of the running instance, if one holds the lock.
pub fn running_pid(run_dir: &Path) -> Option<i32> {
    let mut file = File::open(run_dir.join("holdfast.lock")).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_) => read_pid(&mut file).trim().parse().ok(),
    }
}

/// Like [`running_pid`], but a process that has been killed and is only being taken down counts as gone, once it is.
pub fn lasting_pid(run_dir: &Path) -> Option<i32> {
    let pid = running_pid(run_dir)?;
    if !is_ending(pid) {
        return Some(pid);
    }
    wait_for_exit(rustix::process::Pid::from_raw(pid)?, 10);
    running_pid(run_dir)
}

/// True once SIGKILL is pending for the process, or the kernel takes it down (PF_EXITING).
fn is_ending(pid: i32) -> bool {
    const PF_EXITING: u64 = 0x4;
    const SIGKILL_BIT: u64 = 1 << 8;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name in parentheses: state, ppid, pgrp, session, tty, tpgid, flags.
    let flags = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status
        .lines()
        .filter(|line| line.starts_with("ShdPnd:") || line.starts_with("SigPnd:"))
        .filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok());
    flags.is_none_or(|flags| flags & PF_EXITING != 0) || pending.into_iter().any(|set| set & SIGKILL_BIT != 0)
}

/// Starts `holdfast` with `args` in a session of its own, hands its progress lines to `progress`, and returns when it is ready.
pub fn start_in_background(args: &[String], log: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), InstanceError> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir)
            .map_err(|source| InstanceError::File { path: dir.display().to_string(), source })?;
    }
    let log_file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|source| InstanceError::File { path: log.display().to_string(), source })?;
    let began_at = log_file.metadata().map(|m| m.len()).unwrap_or(0);
    let mut child = spawn_detached(args, log_file)?;
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if line == READY_LINE {
            return Ok(());
        }
        if line == NOT_READY_LINE {
            return Err(InstanceError::NotReady);
        }
        progress(&line);
    }
    Err(InstanceError::EndedEarly { log: log.display().to_string(), tail: tail(log, began_at) })
}

/// Becomes a new process image of the same program with the same arguments and the same id; returns only if that fails. Every lock
/// and socket of the old one is gone with it.
pub fn restart() -> InstanceError {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(source) => return InstanceError::Spawn { program: "holdfast".to_owned(), source },
    };
    let source = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    InstanceError::Spawn { program: program.display().to_string(), source }
}

/// Asks process `pid` to end and waits until the lock of `run_dir` is free, at most `seconds`; then kills it.
pub fn end(pid: i32, run_dir: &Path, seconds: u64) {
    let Some(process) = rustix::process::Pid::from_raw(pid) else { return };
    signal(process, rustix::process::Signal::TERM);
    if !wait_for_exit(process, seconds) && running_pid(run_dir) == Some(pid) {
        signal(process, rustix::process::Signal::KILL);
        wait_for_exit(process, 5);
    }
}

/// The process may have gone in between; that is what was wanted.
fn signal(process: rustix::process::Pid, signal: rustix::process::Signal) {
    if rustix::process::kill_process(process, signal).is_err() {
        tracing::debug!("process {process:?} has gone already");
    }
}

/// True when the process has exited within `seconds`, learned from its pidfd.
fn wait_for_exit(process: rustix::process::Pid, seconds: u64) -> bool {
    let fd = match rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(error) => return error == rustix::io::Errno::SRCH,
    };
    let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: seconds as i64, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut poll, Some(&timeout)), Ok(n) if n > 0)
}

fn spawn_detached(args: &[String], log_file: File) -> Result<Child, InstanceError> {
    let spawn_error = |source| InstanceError::Spawn { program: "holdfast".to_owned(), source };
    let program = std::env::current_exe().map_err(spawn_error)?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).current_dir("/");
    // A process group of its own: Ctrl-C in the starting terminal ends the starter, not the cluster.
    command.process_group(0);
    command.spawn().map_err(spawn_error)
}

fn open_lock(run_dir: &Path) -> Result<(File, String), InstanceError> {
    let path = run_dir.join("holdfast.lock");
    let name = path.display().to_string();
    let error = |source| InstanceError::File { path: name.clone(), source };
    std::fs::create_dir_all(run_dir).map_err(error)?;
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(error)?;
    Ok((file, name))
}

fn read_pid(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// The last lines written to `log` since `from`, at most 4 KiB.
fn tail(log: &Path, from: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let since = &text[(from as usize).min(text.len())..];
    String::from_utf8_lossy(&since[since.len().saturating_sub(4096)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_refused_and_told_who_runs() {
        let dir = std::env::temp_dir().join(format!("holdfast-lock-{}", std::process::id()));
        let held = lock(&dir).unwrap();
        let refusal = lock(&dir).err().unwrap().to_string();
        assert!(refusal.contains(&format!("pid {}", std::process::id())), "{refusal}");
        assert_eq!(running_pid(&dir), Some(std::process::id() as i32));
        drop(held);
        assert_eq!(running_pid(&dir), None);
        lock(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

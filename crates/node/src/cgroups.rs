//! The cgroup tree of pods: `<root>/kubepods/[burstable|besteffort/]pod<uid>`, in cgroups v1 and v2, by plain files.
//!
//! Input: the values that `podlife::resources` derives. Output: directories and their limits. Invariant: a pod's cgroup
//! exists before its sandbox starts, and is removed after its last process ended. Containers' own cgroups are runc's.

use std::path::{Path, PathBuf};

use podlife::resources::CgroupLimits;
use rustix::process::{Pid, Signal};

use crate::runtime::process::signal;

const MOUNT: &str = "/sys/fs/cgroup";
const KUBEPODS: &str = "kubepods";
/// Controllers that containers' limits and statistics need; others are left alone under v1.
const V1_CONTROLLERS: [&str; 7] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices"];
const V2_CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];

/// Which hierarchy this machine uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    V1,
    V2,
}

/// Unified if the mount point itself is a cgroup2 directory.
pub fn observe_version() -> CgroupVersion {
    if Path::new(MOUNT).join("cgroup.controllers").is_file() { CgroupVersion::V2 } else { CgroupVersion::V1 }
}

/// The directories of one cgroup path, one a hierarchy.
fn directories(path: &str) -> Vec<PathBuf> {
    let relative = path.trim_start_matches('/');
    match observe_version() {
        CgroupVersion::V2 => vec![Path::new(MOUNT).join(relative)],
        CgroupVersion::V1 => V1_CONTROLLERS
            .iter()
            .map(|controller| Path::new(MOUNT).join(controller))
            .filter(|mount| mount.is_dir())
            .map(|mount| mount.join(relative))
            .collect(),
    }
}

/// `<root>/kubepods` joined without double slashes.
pub fn kubepods(root: &str) -> String {
    format!("{}/{KUBEPODS}", root.trim_end_matches('/'))
}

/// Makes the cgroup and sets its limits. `None` values leave the kernel's default.
pub fn apply_cgroup(path: &str, limits: &CgroupLimits) -> std::io::Result<()> {
    let version = observe_version();
    if version == CgroupVersion::V2 {
        enable_controllers(path)?;
    }
    for directory in directories(path) {
        std::fs::create_dir_all(&directory)?;
        if version == CgroupVersion::V1 && directory.starts_with(Path::new(MOUNT).join("cpuset")) {
            inherit_cpuset(path)?;
        }
        for (file, value) in limit_files(version, limits) {
            let target = directory.join(file);
            // Under v1 each controller's directory has only its own files.
            if target.exists() {
                std::fs::write(&target, &value)?;
            }
        }
    }
    Ok(())
}

fn limit_files(version: CgroupVersion, limits: &CgroupLimits) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    let period = podlife::resources::CPU_PERIOD_US;
    match version {
        CgroupVersion::V1 => {
            files.extend(limits.cpu_shares.map(|shares| ("cpu.shares", shares.to_string())));
            files.push(("cpu.cfs_quota_us", limits.cpu_quota_us.unwrap_or(-1).to_string()));
            files.push(("memory.limit_in_bytes", limits.memory_bytes.unwrap_or(-1).to_string()));
        }
        CgroupVersion::V2 => {
            files.extend(limits.cpu_shares.map(|shares| ("cpu.weight", weight_of_shares(shares).to_string())));
            let quota = limits.cpu_quota_us.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            files.push(("cpu.max", format!("{quota} {period}")));
            files.push(("memory.max", limits.memory_bytes.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string())));
        }
    }
    files
}

/// The conversion that runc and upstream share: 2..262144 onto 1..10000.
fn weight_of_shares(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Under v2 each ancestor must pass controllers down; the set is what the kernel offers.
fn enable_controllers(path: &str) -> std::io::Result<()> {
    let mut directory = PathBuf::from(MOUNT);
    for part in path.trim_matches('/').split('/') {
        let offered = std::fs::read_to_string(directory.join("cgroup.controllers"))?;
        for controller in V2_CONTROLLERS.iter().filter(|c| offered.split_whitespace().any(|o| o == **c)) {
            std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        directory.push(part);
        std::fs::create_dir_all(&directory)?;
    }
    Ok(())
}

/// A v1 cpuset without cpus and mems accepts no process; fill empty ones from their parents.
fn inherit_cpuset(path: &str) -> std::io::Result<()> {
    let mut directory = Path::new(MOUNT).join("cpuset");
    for part in path.trim_matches('/').split('/') {
        let parent = directory.clone();
        directory.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !directory.join(file).exists() {
                continue;
            }
            if std::fs::read_to_string(directory.join(file))?.trim().is_empty() {
                let value = std::fs::read_to_string(parent.join(file))?;
                std::fs::write(directory.join(file), value.trim())?;
            }
        }
    }
    Ok(())
}

/// Removes a cgroup and those below it from every hierarchy. Processes in it are killed first. Absent is fine.
pub async fn remove_cgroup(path: &str) {
    let relative = path.trim_start_matches('/');
    let mut parents = vec![PathBuf::from(MOUNT)];
    // Under v1 also in the hierarchies where only the runtime made it (freezer, systemd, unified).
    parents.extend(std::fs::read_dir(MOUNT).into_iter().flatten().flatten().map(|entry| entry.path()));
    for directory in parents.into_iter().map(|parent| parent.join(relative)).filter(|path| path.is_dir()) {
        remove_directory(&directory).await;
    }
}

async fn remove_directory(directory: &Path) {
    // The kernel refuses with EBUSY until the last process is reaped; that takes milliseconds after SIGKILL.
    for attempt in 0..50_u64 {
        kill_below(directory);
        if remove_deepest_first(directory) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2 + 2 * attempt)).await;
    }
    tracing::warn!(cgroup = %directory.display(), "cannot remove: still busy");
}

fn remove_deepest_first(directory: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return true };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !remove_deepest_first(&entry.path()) {
            return false;
        }
    }
    match std::fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn kill_below(directory: &Path) {
    if let Ok(entries) = std::fs::read_dir(directory) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            kill_below(&entry.path());
        }
    }
    let Ok(processes) = std::fs::read_to_string(directory.join("cgroup.procs")) else { return };
    for raw in processes.lines().filter_map(|line| line.parse::<i32>().ok()) {
        if let Some(pid) = Pid::from_raw(raw) {
            signal(pid, Signal::KILL);
        }
    }
}

/// Kills every process below `<root>/kubepods`.
pub fn kill_all(root: &str) {
    for directory in directories(&kubepods(root)) {
        kill_below(&directory);
    }
}

/// Removes `<root>/kubepods` from every hierarchy, also those that runc alone made.
pub async fn remove_all(root: &str) {
    remove_cgroup(&kubepods(root)).await;
}

/// Bytes and nanoseconds used by a cgroup, from the kernel's files; `None` where a file is missing.
pub fn observe_usage(path: &str) -> (Option<u64>, Option<u64>) {
    let relative = path.trim_start_matches('/');
    let read = |file: PathBuf| std::fs::read_to_string(file).ok();
    match observe_version() {
        CgroupVersion::V1 => (
            read(Path::new(MOUNT).join("memory").join(relative).join("memory.usage_in_bytes"))
                .and_then(|text| text.trim().parse().ok()),
            read(Path::new(MOUNT).join("cpuacct").join(relative).join("cpuacct.usage"))
                .and_then(|text| text.trim().parse().ok()),
        ),
        CgroupVersion::V2 => (
            read(Path::new(MOUNT).join(relative).join("memory.current")).and_then(|text| text.trim().parse().ok()),
            read(Path::new(MOUNT).join(relative).join("cpu.stat")).and_then(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
                line.parse::<u64>().ok().map(|us| us * 1000)
            }),
        ),
    }
}

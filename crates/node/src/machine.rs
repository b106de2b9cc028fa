//! Facts of the machine: what a Node object says of capacity and software.
//!
//! Input: files under /proc, /sys, /etc. Output: [`Machine`]. Read once at start, except free space.

use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;

#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub ephemeral_bytes: u64,
    pub info: NodeSystemInfo,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Facts that cannot be read stay empty or zero.
pub fn observe_machine(kubelet_dir: &Path) -> Machine {
    let space = rustix::fs::statvfs(existing_ancestor(kubelet_dir));
    let machine_id = read("/etc/machine-id");
    let system_uuid = read("/sys/class/dmi/id/product_uuid");
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory_bytes: parse_meminfo(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
        ephemeral_bytes: space.map_or(0, |space| space.f_blocks * space.f_frsize),
        info: NodeSystemInfo {
            architecture: base::go_architecture().to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
            machine_id,
            kernel_version: read("/proc/sys/kernel/osrelease"),
            operating_system: "linux".to_owned(),
            os_image: parse_os_release(&read("/etc/os-release")),
            kube_proxy_version: String::new(),
            ..NodeSystemInfo::default()
        },
    }
}

fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

/// Room on a filesystem. `usable` is what files may take in all: blocks that the filesystem keeps back are no part of it,
/// so `free` of `usable` is what `df` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub free_bytes: u64,
    pub usable_bytes: u64,
    pub free_inodes: u64,
    pub inodes: u64,
}

/// The room on the filesystem that holds `path`.
pub fn observe_space(path: &Path) -> Option<Space> {
    let space = rustix::fs::statvfs(existing_ancestor(path)).ok()?;
    let kept_back = space.f_bfree.saturating_sub(space.f_bavail);
    Some(Space {
        free_bytes: space.f_bavail * space.f_frsize,
        usable_bytes: space.f_blocks.saturating_sub(kept_back) * space.f_frsize,
        free_inodes: space.f_favail,
        inodes: space.f_files,
    })
}

/// `MemAvailable` in bytes.
pub fn observe_available_memory() -> Option<u64> {
    parse_meminfo(&read("/proc/meminfo"), "MemAvailable")
}

fn parse_meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn parse_os_release(text: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_and_os_release() {
        assert_eq!(parse_meminfo("MemTotal:       16 kB\nMemFree: 1 kB", "MemTotal"), Some(16384));
        assert_eq!(parse_os_release("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
    }
}

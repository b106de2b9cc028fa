//! What this process takes of its machine, as `/metrics` says it under Prometheus' usual names: /proc/self in, figures out.
//!
//! `etcdctl check datascale` and alerts on etcd read them. Reading never waits for a disk; parsing is pure.

use std::fs::read_to_string;

/// Clock ticks of /proc in a second: the same on every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures of a process; `None` what the machine does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProcessFigures {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    /// Seconds since 1970.
    pub(crate) start_seconds: Option<f64>,
}

impl ProcessFigures {
    /// Of this process, as of now.
    pub(crate) fn observe() -> Self {
        let text = |path: &str| read_to_string(path).unwrap_or_default();
        let open_fds = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
        let files = ["/proc/self/stat", "/proc/self/status", "/proc/self/limits", "/proc/stat"].map(text);
        let [stat, status, limits, machine] = &files;
        Self { open_fds, ..Self::parse(stat, status, limits, machine) }
    }

    fn parse(stat: &str, status: &str, limits: &str, machine: &str) -> Self {
        // The name in parentheses may hold blanks; the state behind it is field 3 of proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<f64>().ok());
        let booted = word_behind(machine, "btime").and_then(|seconds| seconds.parse::<f64>().ok());
        let kibibytes = |label| word_behind(status, label).and_then(|n| n.parse::<u64>().ok()).map(|n| n * 1024);
        Self {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident_bytes: kibibytes("VmRSS:"),
            virtual_bytes: kibibytes("VmSize:"),
            open_fds: None,
            max_fds: word_behind(limits, "Max open files").and_then(|n| n.parse().ok()),
            start_seconds: ticks(22).zip(booted).map(|(started, booted)| booted + started / TICKS_PER_SECOND),
        }
    }
}

/// The first word behind `label` in the line that begins with it.
fn word_behind<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(label)).and_then(|rest| rest.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_proc() {
        let stat =
            "42 (a name) x) S 1 42 42 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 7 0 12300 1000 2 18446744073709551615";
        let status = "Name:\ta\nVmSize:\t  2048 kB\nVmRSS:\t    1024 kB\n";
        let limits = "Limit Soft Limit Hard Limit Units\nMax open files            1024                 4096  files\n";
        let parsed = ProcessFigures::parse(stat, status, limits, "cpu 1 2\nbtime 1700000000\n");
        let expect = ProcessFigures {
            cpu_seconds: Some(3.0),
            resident_bytes: Some(1 << 20),
            virtual_bytes: Some(2 << 20),
            open_fds: None,
            max_fds: Some(1024),
            start_seconds: Some(1_700_000_123.0),
        };
        assert_eq!(parsed, expect);
        assert_eq!(ProcessFigures::parse("", "", "", ""), ProcessFigures::default());
        assert!(ProcessFigures::observe().resident_bytes > Some(1 << 20));
    }
}

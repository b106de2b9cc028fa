//! Network namespaces of a test's own, removed when it ends. Every real-kernel test runs as in a machine of its own.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use netd::netns::NetNs;

/// How long anything that must come may take: far above what it takes, so that a busy machine fails nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A named network namespace.
pub(crate) struct TestNs(String);

impl TestNs {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("hft-{name}-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let namespace = Self(name);
        assert!(namespace.run("ip link set lo up").status.success());
        namespace
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    /// Runs `work` on this thread inside the namespace.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        NetNs::open(&self.path()).unwrap().enter(|| Ok(work())).unwrap()
    }

    /// Runs a shell command inside the namespace, for at most a minute.
    pub(crate) fn run(&self, command: &str) -> Output {
        Command::new("ip").args(["netns", "exec", &self.0, "timeout", "60", "sh", "-c", command]).output().unwrap()
    }

    pub(crate) fn succeeds(&self, command: &str) {
        let output = self.run(command);
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

impl Drop for TestNs {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).output());
    }
}

/// Whether this machine lets us make namespaces; says so when it does not.
pub(crate) fn available() -> bool {
    let root = rustix::process::geteuid().is_root();
    let tools = Command::new("ip").arg("-V").output().is_ok() && Command::new("nft").arg("-v").output().is_ok();
    if !(root && tools) {
        eprintln!("skipped: real-kernel network tests need root, ip and nft");
    }
    root && tools
}

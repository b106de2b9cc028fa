//! Work inside another network namespace: the calling thread enters, opens what it needs, and returns.
//!
//! Invariant: the thread is back in its own namespace when a call returns, whatever the closure did. When the way back
//! fails the process is aborted, since every later call would configure the wrong namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// An open network namespace.
#[derive(Debug)]
pub struct NetNs(File);

impl NetNs {
    /// Opens the namespace at `path`, e.g. `/run/netns/x` or `/proc/1/ns/net`.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// Runs `work` in this namespace on the calling thread.
    pub fn enter<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = File::open("/proc/thread-self/ns/net")?;
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        let result = work();
        if move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            std::process::abort();
        }
        result
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! What the runtime shows of one pod. Input: CRI replies (translated by `node::observe`). Output: plain records.
//!
//! Invariant: newest first in both lists, by attempt and creation time. Times are nanoseconds since 1970, 0 = never.

/// A pod sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub created_at: i64,
    pub ready: bool,
    /// Empty in the host's network.
    pub ips: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Made, not started: its start is in flight or was lost.
    Created,
    Running,
    Exited,
    /// The runtime lost track of it.
    Unknown,
}

/// One instance of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    pub id: String,
    pub name: String,
    /// Restart count at its creation: 0 for the first instance.
    pub attempt: u32,
    pub sandbox_id: String,
    pub state: RunState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    /// The runtime's: Completed, Error, OOMKilled ...
    pub reason: String,
    /// Termination message, already read and cut.
    pub message: String,
    /// As the user wrote it.
    pub image: String,
    /// What becomes `imageID`.
    pub image_ref: String,
    /// Hash of name and image at creation ([`crate::spec::container_hash`]).
    pub hash: u64,
    pub user: Option<(i64, i64, Vec<i64>)>,
    pub log_path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<ContainerRecord>,
}

impl Observed {
    /// Restores the invariant on order.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    }

    /// The newest sandbox, if it is ready.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// All instances of a container, newest first.
    pub fn instances<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerRecord> {
        self.containers.iter().filter(move |record| record.name == name)
    }

    pub fn newest(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|record| record.name == name)
    }

    /// The newest instance, if it belongs to that sandbox.
    pub fn newest_in(&self, name: &str, sandbox_id: &str) -> Option<&ContainerRecord> {
        self.newest(name).filter(|record| record.sandbox_id == sandbox_id)
    }

    pub fn is_running(&self, name: &str) -> bool {
        self.newest(name).is_some_and(|record| record.state == RunState::Running)
    }
}

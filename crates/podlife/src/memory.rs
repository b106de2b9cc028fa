//! What a pod's worker remembers between two plans and cannot see in the runtime. Written by the worker, read by plans.
//!
//! Invariant: losing it (a restart of the kubelet) loses back-off and probe counters only: containers, restart counts
//! and results are found again in the runtime and in the published status.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::backoff::Backoff;

/// Why the node refuses or ends a pod, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `status.reason`: OutOfcpu, NodeAffinity, Evicted, DeadlineExceeded ...
    pub reason: String,
    pub message: String,
    /// The message of the condition DisruptionTarget, if the node ends the pod for the sake of others.
    pub disruption: Option<String>,
}

impl Verdict {
    /// Without a disruption.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), disruption: None }
    }

    #[must_use]
    pub fn disrupting(self, message: impl Into<String>) -> Self {
        Self { disruption: Some(message.into()), ..self }
    }
}

/// What is being done to a container right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Busy {
    /// Pull, create, start and postStart, in this order.
    Starting,
    /// preStop and stop; dead by `deadline` at the latest.
    Stopping {
        deadline: Timestamp,
    },
    Removing,
}

/// Shown as the waiting state of a container that could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    pub reason: String,
    pub message: String,
    pub failed_at: Timestamp,
    /// No further try before.
    pub retry_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillReason {
    pub container_id: String,
    /// For the Killing event.
    pub message: String,
    /// Grace of the probe, if it has its own.
    pub grace_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerMemory {
    pub busy: Option<Busy>,
    pub failure: Option<StartFailure>,
    /// Of restarts after exits.
    pub crash_backoff: Backoff,
    /// Of pulls of its image.
    pub pull_backoff: Backoff,
    /// Set when a probe failed its threshold or a hook failed; cleared by a new instance.
    pub kill: Option<KillReason>,
    /// The instance that the three below speak of.
    pub container_id: String,
    /// `None`: not known yet. Absent probes never set them.
    pub startup: Option<bool>,
    pub readiness: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodMemory {
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Set once by admission, eviction or the deadline.
    pub verdict: Option<Verdict>,
    /// Refused at admission: nothing was ever started.
    pub refused: bool,
    /// Admitted at the cost of pods that have not ended yet: nothing starts before.
    pub held: bool,
    pub sandbox_busy: bool,
    pub sandbox_retry_at: Option<Timestamp>,
    /// Volumes, cgroup and directories are in place.
    pub prepared: bool,
    /// The same, taken away again after the end.
    pub cleaned: bool,
    pub cleaning: bool,
    /// The API object is gone; only the runtime's remains are left to remove.
    pub gone: bool,
    /// When termination began, for the order of sidecars.
    pub terminating_since: Option<Timestamp>,
    /// Deletion was sent to the API.
    pub delete_sent: bool,
    /// A shorter grace than the pod's own (eviction).
    pub grace_override: Option<Duration>,
}

impl PodMemory {
    pub fn container(&self, name: &str) -> Option<&ContainerMemory> {
        self.containers.get(name)
    }

    pub fn busy(&self, name: &str) -> Option<&Busy> {
        self.containers.get(name).and_then(|memory| memory.busy.as_ref())
    }

    pub fn any_starting(&self) -> bool {
        self.containers.values().any(|memory| memory.busy == Some(Busy::Starting))
    }

    pub fn any_busy(&self) -> bool {
        self.sandbox_busy || self.containers.values().any(|memory| memory.busy.is_some())
    }
}

//! The pod state machine: what to do next for one pod, and what to tell the API.
//!
//! Input: [`PlanInputs`]. Output: [`PodPlan`]. Invariant: an action that is already in flight (per [`PodMemory`]) is not
//! asked for again; a plan whose stage needs time sets `wake_in`; no plan ever starts a container of a pod that ends.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::backoff::elapsed;
use crate::memory::{PodMemory, Verdict};
use crate::observed::{Observed, RunState};
use crate::probe::ProbeKind;
use crate::spec::{ephemeral_containers, find_container, init_containers, is_sidecar, pod_spec};
use crate::{starting, status, termination};

/// Where a pod stands. Computed anew by every plan; never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Admission said no: phase Failed, nothing was or will be started. Deletion moves it on.
    Refused,
    /// No usable sandbox: one is being made, with the volumes beside it, once those that make room have ended. Ready sandbox and
    /// volumes move it on.
    Sandboxing,
    /// The sandbox is there; init containers run in order. The last one's success (sidecars: start) moves it on.
    Initializing,
    /// Ordinary containers run and restart by policy. Deletion, a verdict or the end of all of them move it on.
    Running,
    /// It must end, and something lives still: preStop, SIGTERM, SIGKILL, sidecars last, then the sandbox.
    Terminating,
    /// Nothing of it lives; volumes and cgroup are being taken away, then a deleted pod is removed from the API.
    Terminated,
    /// Gone from the API and from the machine but for its dead containers and directories, which go now.
    Forgotten,
}

/// One thing to do. The worker runs them at the same time; order within a container is the plan's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Mount volumes. Repeats inside the worker until they are all there.
    Prepare,
    /// Stop older sandboxes, then run a new one.
    CreateSandbox {
        attempt: u32,
    },
    /// Pull, create, start, postStart. `restart`: an earlier instance exited, so its back-off advances.
    StartContainer {
        name: String,
        attempt: u32,
        sandbox_id: String,
        restart: bool,
    },
    /// Give up a start in flight.
    CancelStart {
        name: String,
    },
    /// preStop (if any and wanted), then stop within `grace_seconds` counted from now.
    StopContainer {
        name: String,
        id: String,
        grace_seconds: i64,
        pre_stop: bool,
        message: String,
    },
    /// Remove a dead instance that no status needs.
    RemoveContainer {
        name: String,
        id: String,
    },
    StopSandbox {
        id: String,
    },
    /// Unmount volumes, remove cgroup.
    CleanUp,
    /// Delete from the API with grace 0 and the uid as precondition.
    DeletePod,
    /// Remove dead containers, sandboxes, directories; the worker ends.
    Forget,
    /// An event worth telling: a container waits out its back-off.
    ReportBackOff {
        name: String,
    },
}

/// A probe that should be running now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeTarget {
    pub container: String,
    pub container_id: String,
    pub kind: ProbeKind,
    /// Nanoseconds since 1970, the base of the initial delay.
    pub started_at: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PodPlan {
    pub stage: Stage,
    pub actions: Vec<Action>,
    pub status: PodStatus,
    pub probes: Vec<ProbeTarget>,
    /// Plan again after this much time even if nothing happens.
    pub wake_in: Option<Duration>,
}

/// What is true of the node for all its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub host_ips: Vec<String>,
    /// The scheme of `containerID`: `containerd`.
    pub runtime_name: String,
}

/// Everything that a plan may look at.
#[derive(Clone, Copy)]
pub struct PlanInputs<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub memory: &'a PodMemory,
    pub facts: &'a NodeFacts,
    /// The status published last, or the API's at first sight.
    pub previous: &'a PodStatus,
    pub now: Timestamp,
}

/// See the module doc.
pub fn plan_pod(inputs: &PlanInputs<'_>) -> PodPlan {
    let draft = status::derive_status(inputs, false);
    let ending = must_end(inputs, draft.phase.as_deref().unwrap_or_default());
    let mut wake = Wake::default();
    let (stage, actions) = if inputs.memory.refused {
        (Stage::Refused, termination::plan_refused(inputs))
    } else if ending {
        termination::plan_ending(inputs, &mut wake)
    } else if inputs.memory.held {
        (Stage::Sandboxing, Vec::new())
    } else {
        starting::plan_running(inputs, &mut wake)
    };
    let over = matches!(stage, Stage::Terminated | Stage::Forgotten);
    let status = if over { status::derive_status(inputs, true) } else { draft };
    wake.status(inputs);
    PodPlan { stage, actions, probes: derive_probes(inputs, &status, ending), status, wake_in: wake.after }
}

/// `activeDeadlineSeconds` has passed since `status.startTime`.
pub fn deadline_passed(pod: &Pod, previous: &PodStatus, now: Timestamp) -> bool {
    deadline_left(pod, previous, now).is_some_and(|left| left.is_zero())
}

/// Text and reason are upstream's.
pub fn deadline_verdict() -> Verdict {
    Verdict::new("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
}

pub(crate) fn deadline_left(pod: &Pod, previous: &PodStatus, now: Timestamp) -> Option<Duration> {
    let seconds = u64::try_from(pod_spec(pod).active_deadline_seconds?).ok()?;
    let started = previous.start_time.as_ref()?.0;
    Some(Duration::from_secs(seconds).saturating_sub(elapsed(started, now)))
}

fn must_end(inputs: &PlanInputs<'_>, phase: &str) -> bool {
    let terminal = |phase: Option<&str>| matches!(phase, Some("Succeeded" | "Failed"));
    inputs.memory.gone
        || inputs.memory.verdict.is_some()
        || inputs.pod.metadata.deletion_timestamp.is_some()
        || terminal(Some(phase))
        || terminal(inputs.previous.phase.as_deref())
        || terminal(inputs.pod.status.as_ref().and_then(|status| status.phase.as_deref()))
}

/// Liveness and startup end with the decision to end; readiness goes on until the container does.
fn derive_probes(inputs: &PlanInputs<'_>, status: &PodStatus, ending: bool) -> Vec<ProbeTarget> {
    let statuses = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let ephemeral = ephemeral_containers(inputs.pod);
    let mut targets = Vec::new();
    for container_status in statuses {
        let name = container_status.name.as_str();
        if ephemeral.iter().any(|container| container.name == name) {
            continue;
        }
        let Some(container) = find_container(inputs.pod, name) else { continue };
        let is_plain_init =
            !is_sidecar(&container) && init_containers(inputs.pod).iter().any(|init| init.name == container.name);
        let Some(record) = inputs.observed.newest(name).filter(|record| record.state == RunState::Running) else {
            continue;
        };
        // A container being started (postStart runs) is not probed; one being stopped is, for readiness only.
        if is_plain_init || inputs.memory.busy(name) == Some(&crate::memory::Busy::Starting) {
            continue;
        }
        let started = container_status.started == Some(true);
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            let in_turn = started != (kind == ProbeKind::Startup);
            let wanted = !ending || kind == ProbeKind::Readiness;
            if in_turn && wanted && kind.of(&container).is_some() {
                targets.push(ProbeTarget {
                    container: name.to_owned(),
                    container_id: record.id.clone(),
                    kind,
                    started_at: record.started_at,
                });
            }
        }
    }
    targets
}

/// The soonest of several waits.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    after: Option<Duration>,
}

impl Wake {
    pub(crate) fn after(&mut self, wait: Duration) {
        // A wait of exactly zero would spin if its cause did not clear; one millisecond cannot.
        let wait = wait.max(Duration::from_millis(1));
        self.after = Some(self.after.map_or(wait, |known| known.min(wait)));
    }

    pub(crate) fn at(&mut self, time: Timestamp, now: Timestamp) {
        self.after(elapsed(now, time));
    }

    fn status(&mut self, inputs: &PlanInputs<'_>) {
        if let Some(wait) = status::next_change(inputs) {
            self.after(wait);
        }
    }
}

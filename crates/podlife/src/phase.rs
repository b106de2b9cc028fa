//! A pod's phase. Input: the spec, the container statuses to be published, whether the pod ended for good.
//!
//! Invariant: Succeeded and Failed are reached only when nothing can start again.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use crate::restart::should_restart;
use crate::spec::{containers, init_containers, is_sidecar};

/// What one status says about its container.
enum Standing {
    Absent,
    /// Never ran yet.
    Waiting,
    Running {
        started: bool,
    },
    /// Ended with this code; may be waiting to start again.
    Ended(i32),
}

fn standing(status: Option<&ContainerStatus>) -> Standing {
    let Some(status) = status else { return Standing::Absent };
    let state = status.state.as_ref();
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    if state.is_some_and(|state| state.running.is_some()) {
        return Standing::Running { started: status.started == Some(true) };
    }
    match (state.and_then(|state| state.terminated.as_ref()), last) {
        (Some(terminated), _) | (None, Some(terminated)) => Standing::Ended(terminated.exit_code),
        (None, None) => Standing::Waiting,
    }
}

#[derive(Default)]
struct Tally {
    pending_init: u32,
    pending_sidecars: u32,
    failed_init: bool,
    running: u32,
    waiting: u32,
    unknown: u32,
    stopped: u32,
    stopped_for_good: u32,
    succeeded: u32,
}

/// `initialized`: some ordinary container is or was running in the current sandbox.
pub fn derive_phase(pod: &Pod, statuses: &[ContainerStatus], terminal: bool, initialized: bool) -> &'static str {
    let tally = count(pod, statuses);
    if tally.failed_init {
        return "Failed";
    }
    let initializing = tally.pending_init > 0 || (tally.pending_sidecars > 0 && !initialized);
    if initializing || tally.waiting > 0 || tally.unknown > 0 {
        return "Pending";
    }
    if tally.running > 0 {
        return "Running";
    }
    if tally.stopped == 0 {
        return "Pending";
    }
    if !terminal && tally.stopped != tally.stopped_for_good {
        return "Running";
    }
    if tally.stopped == tally.succeeded { "Succeeded" } else { "Failed" }
}

fn count(pod: &Pod, statuses: &[ContainerStatus]) -> Tally {
    let mut tally = Tally::default();
    let find = |container: &Container| statuses.iter().find(|status| status.name == container.name);
    for container in init_containers(pod) {
        if is_sidecar(container) {
            count_sidecar(&mut tally, standing(find(container)));
        } else {
            match standing(find(container)) {
                Standing::Ended(0) => {}
                Standing::Ended(code) => tally.failed_init |= !should_restart(pod, container, code),
                _ => tally.pending_init += 1,
            }
        }
    }
    for container in containers(pod) {
        match standing(find(container)) {
            Standing::Absent => tally.unknown += 1,
            Standing::Waiting => tally.waiting += 1,
            Standing::Running { .. } => tally.running += 1,
            Standing::Ended(code) => {
                tally.stopped += 1;
                tally.succeeded += u32::from(code == 0);
                tally.stopped_for_good += u32::from(!should_restart(pod, container, code));
            }
        }
    }
    tally
}

fn count_sidecar(tally: &mut Tally, standing: Standing) {
    match standing {
        Standing::Absent => tally.unknown += 1,
        Standing::Waiting => {
            tally.pending_sidecars += 1;
            tally.waiting += 1;
        }
        Standing::Running { started } => {
            tally.pending_sidecars += u32::from(!started);
            tally.running += 1;
        }
        Standing::Ended(_) => {}
    }
}

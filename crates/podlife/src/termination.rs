//! Plans for a pod that must end: stop its containers within one grace period, sidecars last and in reverse order, then
//! the sandbox, then what it held, then the API object.
//!
//! Invariants: a shorter grace set later takes effect; SIGKILL never waits for a preStop hook beyond the grace; the API
//! object is deleted only when nothing of the pod lives.

use std::time::Duration;

use jiff::Timestamp;

use crate::backoff::elapsed;
use crate::memory::Busy;
use crate::observed::{ContainerRecord, RunState};
use crate::plan::{Action, PlanInputs, Stage, Wake};
use crate::spec::{grace_seconds, init_containers, is_sidecar};

/// A container whose turn comes late still gets this much after SIGTERM.
const GRACE_SECONDS_MIN: i64 = 2;

pub(crate) fn plan_refused(inputs: &PlanInputs<'_>) -> Vec<Action> {
    if inputs.memory.gone {
        return vec![Action::Forget];
    }
    let deleted = inputs.pod.metadata.deletion_timestamp.is_some() && !inputs.memory.delete_sent;
    if deleted { vec![Action::DeletePod] } else { Vec::new() }
}

pub(crate) fn plan_ending(inputs: &PlanInputs<'_>, wake: &mut Wake) -> (Stage, Vec<Action>) {
    let mut actions = Vec::new();
    for (name, memory) in &inputs.memory.containers {
        if memory.busy == Some(Busy::Starting) {
            actions.push(Action::CancelStart { name: name.clone() });
        }
    }
    let alive = inputs.observed.containers.iter().filter(|r| r.state == RunState::Running).collect::<Vec<_>>();
    let grace = total_grace(inputs);
    let since = inputs.memory.terminating_since.unwrap_or(inputs.now);
    let deadline = since.checked_add(grace).unwrap_or(Timestamp::MAX);
    for record in &alive {
        if !has_turn(inputs, record, &alive, deadline, wake) {
            continue;
        }
        let left = seconds_up(elapsed(inputs.now, deadline));
        let total = seconds_up(grace);
        let grace_seconds = left.max(GRACE_SECONDS_MIN).min(total);
        if wants_stop(inputs, record, grace_seconds) {
            actions.push(Action::StopContainer {
                name: record.name.clone(),
                id: record.id.clone(),
                grace_seconds,
                pre_stop: inputs.memory.busy(&record.name).is_none(),
                message: format!("Stopping container {}", record.name),
            });
        }
    }
    if !alive.is_empty() || inputs.memory.any_busy() {
        return (Stage::Terminating, actions);
    }
    let ready = inputs.observed.sandboxes.iter().filter(|sandbox| sandbox.ready);
    actions.extend(ready.map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() }));
    if !actions.is_empty() {
        return (Stage::Terminating, actions);
    }
    plan_over(inputs)
}

fn plan_over(inputs: &PlanInputs<'_>) -> (Stage, Vec<Action>) {
    let memory = inputs.memory;
    if !memory.cleaned {
        let actions = if memory.cleaning { Vec::new() } else { vec![Action::CleanUp] };
        return (Stage::Terminated, actions);
    }
    if memory.gone {
        return (Stage::Forgotten, vec![Action::Forget]);
    }
    let deleted = inputs.pod.metadata.deletion_timestamp.is_some() && !memory.delete_sent;
    (Stage::Terminated, if deleted { vec![Action::DeletePod] } else { Vec::new() })
}

/// One second at least, as upstream: zero would race the runtime.
fn total_grace(inputs: &PlanInputs<'_>) -> Duration {
    let own = grace_seconds(inputs.pod);
    let seconds = if inputs.pod.metadata.deletion_timestamp.is_some() {
        inputs.pod.metadata.deletion_grace_period_seconds.unwrap_or(own)
    } else {
        own
    };
    let seconds = Duration::from_secs(u64::try_from(seconds.max(1)).unwrap_or(1));
    inputs.memory.grace_override.map_or(seconds, |short| seconds.min(short.max(Duration::from_secs(1))))
}

fn seconds_up(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// Sidecars wait until the others ended, the later ones first, but not beyond the deadline.
fn has_turn(
    inputs: &PlanInputs<'_>,
    record: &ContainerRecord,
    alive: &[&ContainerRecord],
    deadline: Timestamp,
    wake: &mut Wake,
) -> bool {
    let order = |name: &str| {
        init_containers(inputs.pod).iter().position(|container| container.name == name && is_sidecar(container))
    };
    let Some(mine) = order(&record.name) else { return true };
    let waits = alive.iter().any(|other| order(&other.name).is_none_or(|theirs| theirs > mine));
    if !waits || inputs.now >= deadline {
        return true;
    }
    wake.at(deadline, inputs.now);
    false
}

fn wants_stop(inputs: &PlanInputs<'_>, record: &ContainerRecord, grace_seconds: i64) -> bool {
    match inputs.memory.busy(&record.name) {
        None => true,
        Some(Busy::Stopping { deadline }) => {
            let now = inputs.now;
            let wanted =
                now.checked_add(Duration::from_secs(grace_seconds.unsigned_abs() + 1)).unwrap_or(Timestamp::MAX);
            wanted < *deadline
        }
        // Cancelled above; its end is a new plan.
        Some(Busy::Starting | Busy::Removing) => false,
    }
}

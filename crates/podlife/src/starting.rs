//! Plans for a pod that should live: sandbox, volumes, then containers in their order, restarts and back-off.
//!
//! Invariants: one container of a pod starts at a time and in order, since a postStart hook holds back the next; an
//! init container starts only after those before it are done (sidecars: started); dead instances beyond the two newest
//! are removed.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::memory::{Busy, ContainerMemory};
use crate::observed::{ContainerRecord, RunState, Sandbox};
use crate::plan::{Action, PlanInputs, Stage, Wake, deadline_left};
use crate::restart::should_restart;
use crate::spec::{
    container_hash, containers, ephemeral_containers, grace_seconds, init_containers, is_host_network, is_sidecar,
};
use crate::status::is_started;

/// What a container needs now.
enum Need {
    /// Nothing: it runs, is done, or something is in flight.
    Nothing,
    Start {
        attempt: u32,
        restart: bool,
    },
    /// In back-off; a timer is set.
    Wait,
}

pub(crate) fn plan_running(inputs: &PlanInputs<'_>, wake: &mut Wake) -> (Stage, Vec<Action>) {
    let mut actions = Vec::new();
    if !inputs.memory.prepared {
        actions.push(Action::Prepare);
    }
    if let Some(left) = deadline_left(inputs.pod, inputs.previous, inputs.now) {
        wake.after(left);
    }
    let Some(sandbox) = usable_sandbox(inputs) else {
        plan_sandbox(inputs, wake, &mut actions);
        return (Stage::Sandboxing, actions);
    };
    plan_kills(inputs, &mut actions);
    plan_removals(inputs, &mut actions);
    if !inputs.memory.prepared {
        return (Stage::Sandboxing, actions);
    }
    let mut starter = Starter { inputs, sandbox, wake, actions, blocked: inputs.memory.any_starting() };
    for container in ephemeral_containers(inputs.pod) {
        if inputs.observed.newest(&container.name).is_none() {
            starter.consider(&container);
        }
    }
    let initialized = starter.advance_init();
    if initialized {
        for container in containers(inputs.pod) {
            starter.consider(container);
        }
    }
    (if initialized { Stage::Running } else { Stage::Initializing }, starter.actions)
}

/// The newest sandbox, ready and, outside the host's network, with an address.
pub(crate) fn usable_sandbox<'a>(inputs: &PlanInputs<'a>) -> Option<&'a Sandbox> {
    inputs.observed.ready_sandbox().filter(|sandbox| is_host_network(inputs.pod) || !sandbox.ips.is_empty())
}

fn plan_sandbox(inputs: &PlanInputs<'_>, wake: &mut Wake, actions: &mut Vec<Action>) {
    let mut alive = false;
    for record in inputs.observed.containers.iter().filter(|record| record.state == RunState::Running) {
        alive = true;
        if inputs.memory.busy(&record.name).is_none() {
            actions.push(stop(inputs.pod, record, "Pod sandbox changed, it will be killed and re-created.", None));
        }
    }
    if alive || inputs.memory.sandbox_busy || !anything_to_start(inputs) {
        return;
    }
    if let Some(retry_at) = inputs.memory.sandbox_retry_at.filter(|retry_at| *retry_at > inputs.now) {
        wake.at(retry_at, inputs.now);
        return;
    }
    let attempt = inputs.observed.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
    actions.push(Action::CreateSandbox { attempt });
}

/// A pod whose containers are all done for good needs no new sandbox.
fn anything_to_start(inputs: &PlanInputs<'_>) -> bool {
    containers(inputs.pod).iter().any(|container| match inputs.observed.newest(&container.name) {
        Some(record) if record.state == RunState::Exited => should_restart(inputs.pod, container, record.exit_code),
        _ => true,
    })
}

/// Running containers that must be replaced: failed probes, changed image.
fn plan_kills(inputs: &PlanInputs<'_>, actions: &mut Vec<Action>) {
    let sidecars = init_containers(inputs.pod).iter().filter(|container| is_sidecar(container));
    for container in sidecars.chain(containers(inputs.pod)) {
        let Some(record) = inputs.observed.newest(&container.name).filter(|r| r.state == RunState::Running) else {
            continue;
        };
        let memory = inputs.memory.container(&container.name);
        if memory.is_some_and(|memory| memory.busy.is_some()) {
            continue;
        }
        if let Some(kill) = memory.and_then(|m| m.kill.as_ref()).filter(|kill| kill.container_id == record.id) {
            let restarts = should_restart(inputs.pod, container, 137);
            let message = if restarts { format!("{}, will be restarted", kill.message) } else { kill.message.clone() };
            actions.push(stop(inputs.pod, record, &message, kill.grace_seconds));
        } else if record.hash != 0 && record.hash != container_hash(container) {
            let message = format!("Container {} definition changed, will be restarted", container.name);
            actions.push(stop(inputs.pod, record, &message, None));
        }
    }
}

fn stop(pod: &Pod, record: &ContainerRecord, message: &str, grace: Option<i64>) -> Action {
    Action::StopContainer {
        name: record.name.clone(),
        id: record.id.clone(),
        grace_seconds: grace.unwrap_or_else(|| grace_seconds(pod)),
        pre_stop: true,
        message: message.to_owned(),
    }
}

fn plan_removals(inputs: &PlanInputs<'_>, actions: &mut Vec<Action>) {
    let mut names = inputs.observed.containers.iter().map(|record| record.name.as_str()).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    for name in names.into_iter().filter(|name| inputs.memory.busy(name).is_none()) {
        let surplus = inputs.observed.instances(name).skip(2).filter(|record| record.state != RunState::Running);
        actions.extend(
            surplus.take(1).map(|record| Action::RemoveContainer { name: name.to_owned(), id: record.id.clone() }),
        );
    }
}

struct Starter<'a, 'b> {
    inputs: &'b PlanInputs<'a>,
    sandbox: &'a Sandbox,
    wake: &'b mut Wake,
    actions: Vec<Action>,
    /// Something is starting already.
    blocked: bool,
}

impl Starter<'_, '_> {
    /// Starts the next init container if it is due; true once ordinary containers may run.
    fn advance_init(&mut self) -> bool {
        let init = init_containers(self.inputs.pod);
        let initialized = ordinary_started(self.inputs, &self.sandbox.id);
        for container in init {
            if is_sidecar(container) {
                self.consider(container);
                if !initialized && !is_started(self.inputs, container) {
                    return false;
                }
            } else if !initialized {
                let record = self.inputs.observed.newest_in(&container.name, &self.sandbox.id);
                if !record.is_some_and(|record| record.state == RunState::Exited && record.exit_code == 0) {
                    self.consider(container);
                    return false;
                }
            }
        }
        true
    }

    fn consider(&mut self, container: &Container) {
        match self.need(container) {
            Need::Nothing => {}
            Need::Wait => self.actions.push(Action::ReportBackOff { name: container.name.clone() }),
            Need::Start { attempt, restart } => {
                if !self.blocked {
                    self.blocked = true;
                    self.actions.push(Action::StartContainer {
                        name: container.name.clone(),
                        attempt,
                        sandbox_id: self.sandbox.id.clone(),
                        restart,
                    });
                }
            }
        }
    }

    fn need(&mut self, container: &Container) -> Need {
        let memory = self.inputs.memory.container(&container.name);
        if memory.is_some_and(|memory| memory.busy.is_some()) {
            return Need::Nothing;
        }
        let newest = self.inputs.observed.newest(&container.name);
        let here = newest.filter(|record| record.sandbox_id == self.sandbox.id);
        let done = here.is_some_and(|record| match record.state {
            RunState::Running => true,
            RunState::Exited => !should_restart(self.inputs.pod, container, record.exit_code),
            RunState::Created | RunState::Unknown => false,
        });
        if done {
            return Need::Nothing;
        }
        if let Some(failure) = memory.and_then(|m| m.failure.as_ref()).filter(|f| f.retry_at > self.inputs.now) {
            self.wake.at(failure.retry_at, self.inputs.now);
            return Need::Wait;
        }
        if let Some(left) = crash_wait(memory, newest, self.inputs.now) {
            self.wake.after(left);
            return Need::Wait;
        }
        let exited = newest.is_some_and(|record| record.state == RunState::Exited);
        Need::Start { attempt: newest.map_or(0, |record| record.attempt + 1), restart: exited }
    }
}

fn crash_wait(
    memory: Option<&ContainerMemory>,
    newest: Option<&ContainerRecord>,
    now: jiff::Timestamp,
) -> Option<std::time::Duration> {
    let record = newest.filter(|record| record.state == RunState::Exited)?;
    let finished = crate::status::timestamp(record.finished_at)?;
    memory?.crash_backoff.remaining(finished, now).map(|(left, _)| left)
}

/// Some ordinary container exists in this sandbox, so its initialization is over.
pub(crate) fn ordinary_started(inputs: &PlanInputs<'_>, sandbox_id: &str) -> bool {
    containers(inputs.pod).iter().any(|container| {
        inputs.observed.newest_in(&container.name, sandbox_id).is_some()
            || inputs.memory.busy(&container.name) == Some(&Busy::Starting)
    })
}

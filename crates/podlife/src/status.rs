//! The status of a pod as it is published. Input: [`PlanInputs`]. Output: a whole `PodStatus`.
//!
//! Invariants: a phase that is Succeeded or Failed is told only once no container runs, and never taken back; a restart
//! count never falls; what a lost container last said is kept from the status before.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::backoff::{elapsed, format_seconds};
use crate::conditions::{ConditionInputs, derive_conditions};
use crate::memory::{Busy, StartFailure};
use crate::observed::{ContainerRecord, RunState};
use crate::phase::derive_phase;
use crate::plan::PlanInputs;
use crate::resources::qos_class;
use crate::restart::should_restart;
use crate::spec::{containers, ephemeral_containers, init_containers, is_host_network, is_sidecar, pod_label};
use crate::starting::usable_sandbox;

/// ErrImagePull is shown for this long, then ImagePullBackOff until the next try.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
const LOST: &str = "The container could not be located when the pod was terminated";

/// `over`: nothing of the pod lives and nothing will start again.
pub fn derive_status(inputs: &PlanInputs<'_>, over: bool) -> PodStatus {
    if inputs.memory.refused {
        return derive_refused(inputs);
    }
    let mut init = init_containers(inputs.pod).iter().map(|c| derive_container(inputs, c, true)).collect::<Vec<_>>();
    let mut ordinary = containers(inputs.pod).iter().map(|c| derive_container(inputs, c, false)).collect::<Vec<_>>();
    let ephemeral = ephemeral_containers(inputs.pod);
    let ephemeral = ephemeral.iter().map(|c| derive_container(inputs, c, false)).collect::<Vec<_>>();
    let initialized = ordinary_ever_started(inputs);
    if over && initialized {
        ordinary.iter_mut().chain(&mut init).for_each(end_lost);
    }
    let all = init.iter().chain(&ordinary).cloned().collect::<Vec<_>>();
    let mut phase = derive_phase(inputs.pod, &all, over, initialized);
    if over && phase != "Succeeded" {
        phase = "Failed";
    }
    let (phase, reason, message) = settle_phase(inputs, phase);
    let disruption = inputs.memory.verdict.as_ref().and_then(|verdict| verdict.disruption.as_deref());
    let conditions = derive_conditions(&ConditionInputs {
        pod: inputs.pod,
        statuses: Some(&all),
        phase: &phase,
        sandbox_problem: sandbox_problem(inputs),
        initialized,
        disruption: disruption.filter(|_| phase == "Failed"),
        previous: inputs.previous,
        now: inputs.now,
    });
    PodStatus {
        phase: Some(phase),
        reason,
        message,
        conditions: Some(conditions),
        container_statuses: Some(ordinary),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        ..derive_basics(inputs)
    }
}

/// Texts are upstream's.
fn sandbox_problem(inputs: &PlanInputs<'_>) -> Option<&'static str> {
    if usable_sandbox(inputs).is_some() {
        return None;
    }
    Some(match inputs.observed.sandboxes.first() {
        None => "no pod sandbox exists",
        Some(sandbox) if !sandbox.ready => "pod sandbox is not ready",
        Some(_) => "pod sandbox has no IP address",
    })
}

/// Addresses, start time, QoS and generation: the same for every stage.
fn derive_basics(inputs: &PlanInputs<'_>) -> PodStatus {
    let api = inputs.pod.status.clone().unwrap_or_default();
    let pod_ips = derive_pod_ips(inputs);
    let start_time = inputs.previous.start_time.clone().or(api.start_time).or(Some(Time(inputs.now)));
    PodStatus {
        host_ip: inputs.facts.host_ips.first().cloned(),
        host_ips: Some(inputs.facts.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time,
        qos_class: Some(api.qos_class.unwrap_or_else(|| qos_class(inputs.pod).as_str().to_owned())),
        observed_generation: inputs.pod.metadata.generation.filter(|generation| *generation > 0),
        nominated_node_name: api.nominated_node_name,
        resource_claim_statuses: api.resource_claim_statuses,
        ..PodStatus::default()
    }
}

fn derive_pod_ips(inputs: &PlanInputs<'_>) -> Vec<String> {
    if is_host_network(inputs.pod) {
        let started = !inputs.observed.sandboxes.is_empty() || inputs.previous.pod_ip.is_some();
        return if started { inputs.facts.host_ips.clone() } else { Vec::new() };
    }
    let shown = inputs.observed.sandboxes.first().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
    if shown.is_empty() {
        return inputs.previous.pod_ips.iter().flatten().map(|pod_ip| pod_ip.ip.clone()).collect();
    }
    shown
}

fn derive_refused(inputs: &PlanInputs<'_>) -> PodStatus {
    let verdict = inputs.memory.verdict.clone();
    let conditions = derive_conditions(&ConditionInputs {
        pod: inputs.pod,
        statuses: None,
        phase: "Failed",
        sandbox_problem: sandbox_problem(inputs),
        initialized: false,
        disruption: None,
        previous: inputs.previous,
        now: inputs.now,
    });
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: verdict.as_ref().map(|verdict| verdict.reason.clone()),
        message: verdict.map(|verdict| format!("Pod was rejected: {}", verdict.message)),
        conditions: Some(conditions),
        ..derive_basics(inputs)
    }
}

/// Holds back a terminal phase while containers run, and keeps one that was told.
fn settle_phase(inputs: &PlanInputs<'_>, derived: &str) -> (String, Option<String>, Option<String>) {
    let told = inputs.previous.phase.as_deref().unwrap_or("Pending");
    let api = inputs.pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let terminal = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    if let Some(kept) = [api, told].into_iter().find(|phase| terminal(phase)) {
        return (kept.to_owned(), inputs.previous.reason.clone(), inputs.previous.message.clone());
    }
    let alive = inputs.observed.containers.iter().any(|record| record.state == RunState::Running)
        || inputs.memory.containers.values().any(|memory| memory.busy.is_some());
    if let Some(verdict) = &inputs.memory.verdict {
        let phase = if alive { told } else { "Failed" };
        return (phase.to_owned(), Some(verdict.reason.clone()), Some(verdict.message.clone()));
    }
    let phase = if terminal(derived) && alive { told } else { derived };
    let (reason, message) =
        if phase == told { (inputs.previous.reason.clone(), inputs.previous.message.clone()) } else { (None, None) };
    (phase.to_owned(), reason, message)
}

fn ordinary_ever_started(inputs: &PlanInputs<'_>) -> bool {
    let was = |status: &ContainerStatus| {
        let ran = |state: &Option<ContainerState>| {
            state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        ran(&status.state) || ran(&status.last_state)
    };
    containers(inputs.pod)
        .iter()
        .any(|container| inputs.observed.newest(&container.name).is_some_and(|record| record.started_at > 0))
        || inputs.previous.container_statuses.iter().flatten().any(was)
}

/// At the end of a pod nothing is left waiting or running.
fn end_lost(status: &mut ContainerStatus) {
    let ended = status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    if !ended {
        status.state = Some(terminated_unknown());
        status.ready = false;
        status.started = Some(false);
    }
}

fn terminated_unknown() -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(LOST.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    }
}

/// `None` for the runtime's zero time.
pub fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()).flatten()
}

fn terminated(record: &ContainerRecord, id: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id.to_owned()),
            exit_code: record.exit_code,
            finished_at: timestamp(record.finished_at).map(Time),
            message: (!record.message.is_empty()).then(|| record.message.clone()),
            reason: (!record.reason.is_empty()).then(|| record.reason.clone()),
            signal: None,
            started_at: timestamp(record.started_at).map(Time),
        }),
        ..ContainerState::default()
    }
}

/// Waiting reason of a container that never ran.
fn first_reason(inputs: &PlanInputs<'_>) -> &'static str {
    if init_containers(inputs.pod).is_empty() { "ContainerCreating" } else { "PodInitializing" }
}

fn previous_of<'a>(inputs: &PlanInputs<'a>, name: &str) -> Option<&'a ContainerStatus> {
    let previous = inputs.previous;
    let lists =
        [&previous.init_container_statuses, &previous.container_statuses, &previous.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

fn derive_container(inputs: &PlanInputs<'_>, container: &Container, is_init: bool) -> ContainerStatus {
    let previous = previous_of(inputs, &container.name);
    let mut status = match inputs.observed.newest(&container.name) {
        Some(record) => derive_seen(inputs, container, record, previous),
        None => derive_unseen(inputs, container, is_init, previous),
    };
    let starting = inputs.memory.busy(&container.name) == Some(&Busy::Starting);
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let started = running && !starting && is_started(inputs, container);
    status.started = Some(started);
    status.ready = if is_init && !is_sidecar(container) {
        status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|t| t.exit_code == 0)
    } else {
        started && is_ready(inputs, container)
    };
    status.volume_mounts = derive_mounts(container);
    status
}

fn derive_seen(
    inputs: &PlanInputs<'_>,
    container: &Container,
    record: &ContainerRecord,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let id_of = |record: &ContainerRecord| format!("{}://{}", inputs.facts.runtime_name, record.id);
    let before = inputs.observed.instances(&container.name).nth(1);
    let before_state = before
        .filter(|record| record.state == RunState::Exited)
        .map(|record| terminated(record, &id_of(record)))
        .or_else(|| previous.and_then(|status| status.last_state.clone()));
    let starting = inputs.memory.busy(&container.name) == Some(&Busy::Starting);
    let (state, last_state) = match record.state {
        // A start in flight (postStart included) is not told as running, as a kubelet that waits for it would not.
        RunState::Running if !starting => {
            let started_at = timestamp(record.started_at).map(Time);
            let running = ContainerStateRunning { started_at };
            (ContainerState { running: Some(running), ..ContainerState::default() }, before_state)
        }
        RunState::Exited => derive_exited(inputs, container, record, &id_of(record), before_state),
        RunState::Unknown if previous.is_some_and(was_running) => (terminated_unknown(), before_state),
        RunState::Running | RunState::Created | RunState::Unknown => {
            let failure = inputs.memory.container(&container.name).and_then(|memory| memory.failure.as_ref());
            let state = failure
                .map_or_else(|| waiting(first_reason(inputs), ""), |failure| show_failure(inputs, container, failure));
            (state, before_state)
        }
    };
    let resources = container.resources.clone().unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        image: if record.image.is_empty() { container.image.clone().unwrap_or_default() } else { record.image.clone() },
        image_id: record.image_ref.clone(),
        container_id: Some(id_of(record)),
        restart_count: i32::try_from(record.attempt).unwrap_or(i32::MAX).max(previous.map_or(0, |p| p.restart_count)),
        allocated_resources: resources.requests.clone(),
        resources: Some(resources),
        user: derive_user(record),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        ..ContainerStatus::default()
    }
}

/// Terminated, or waiting to run again with the end as last state.
fn derive_exited(
    inputs: &PlanInputs<'_>,
    container: &Container,
    record: &ContainerRecord,
    id: &str,
    before: Option<ContainerState>,
) -> (ContainerState, Option<ContainerState>) {
    let ended = terminated(record, id);
    let ending =
        inputs.pod.metadata.deletion_timestamp.is_some() || inputs.memory.gone || inputs.memory.verdict.is_some();
    if ending || !should_restart(inputs.pod, container, record.exit_code) {
        return (ended, before);
    }
    let Some(memory) = inputs.memory.container(&container.name) else { return (ended, before) };
    if let Some(failure) = &memory.failure {
        return (show_failure(inputs, container, failure), Some(ended));
    }
    if memory.busy == Some(Busy::Starting) {
        return (ended, before);
    }
    let finished = timestamp(record.finished_at).unwrap_or(inputs.now);
    if let Some((_, delay)) = memory.crash_backoff.remaining(finished, inputs.now) {
        let message = crash_message(inputs.pod, &container.name, delay);
        return (waiting("CrashLoopBackOff", &message), Some(ended));
    }
    (ended, before)
}

/// Also the text of the BackOff event, with another beginning.
pub fn crash_message(pod: &Pod, container: &str, delay: Duration) -> String {
    format!("back-off {} restarting failed container={container} pod={}", format_seconds(delay), pod_label(pod))
}

fn show_failure(inputs: &PlanInputs<'_>, container: &Container, failure: &StartFailure) -> ContainerState {
    if failure.reason == "ErrImagePull" && pull_error_shown(inputs, failure).is_none() {
        let image = container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
        return waiting("ImagePullBackOff", &message);
    }
    waiting(&failure.reason, &failure.message)
}

/// How long ErrImagePull is still to be shown.
fn pull_error_shown(inputs: &PlanInputs<'_>, failure: &StartFailure) -> Option<Duration> {
    PULL_ERROR_SHOWN.checked_sub(elapsed(failure.failed_at, inputs.now)).filter(|left| !left.is_zero())
}

/// When the status changes by the passing of time alone.
pub(crate) fn next_change(inputs: &PlanInputs<'_>) -> Option<Duration> {
    let failures = inputs.memory.containers.values().filter_map(|memory| memory.failure.as_ref());
    failures.filter(|failure| failure.reason == "ErrImagePull").filter_map(|f| pull_error_shown(inputs, f)).min()
}

fn was_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn derive_unseen(
    inputs: &PlanInputs<'_>,
    container: &Container,
    is_init: bool,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let kept = previous.filter(|status| status.state.as_ref().is_some_and(|state| state.terminated.is_some()));
    if let Some(kept) = kept {
        return kept.clone();
    }
    let failure = inputs.memory.container(&container.name).and_then(|memory| memory.failure.as_ref());
    let started = ordinary_ever_started(inputs);
    let state = match failure {
        Some(failure) => show_failure(inputs, container, failure),
        None if is_init && started && !is_sidecar(container) => init_done_before(),
        None => waiting(first_reason(inputs), ""),
    };
    let last_state = match previous {
        Some(status) if was_running(status) => Some(terminated_unknown()),
        Some(status) => status.last_state.clone(),
        None => None,
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        restart_count: previous.map_or(0, |status| status.restart_count + i32::from(was_running(status))),
        ..ContainerStatus::default()
    }
}

/// Its record was cleaned away, but ordinary containers ran after it.
fn init_done_before() -> ContainerState {
    let message = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally";
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 0,
            reason: Some("Completed".to_owned()),
            message: Some(message.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// Running, and past its startup probe if it has one.
pub(crate) fn is_started(inputs: &PlanInputs<'_>, container: &Container) -> bool {
    let Some(record) = inputs.observed.newest(&container.name).filter(|r| r.state == RunState::Running) else {
        return false;
    };
    if inputs.memory.busy(&container.name) == Some(&Busy::Starting) {
        return false;
    }
    if container.startup_probe.is_none() {
        return true;
    }
    let told = told_of(inputs, record).is_some_and(|status| status.started == Some(true));
    inputs
        .memory
        .container(&container.name)
        .filter(|m| m.container_id == record.id)
        .and_then(|m| m.startup)
        .unwrap_or(told)
}

fn is_ready(inputs: &PlanInputs<'_>, container: &Container) -> bool {
    if container.readiness_probe.is_none() {
        return true;
    }
    let Some(record) = inputs.observed.newest(&container.name) else { return false };
    // After a restart of the kubelet, what was told holds until a probe says otherwise.
    let told = told_of(inputs, record).is_some_and(|status| status.ready);
    let memory = inputs.memory.container(&container.name).filter(|memory| memory.container_id == record.id);
    memory.and_then(|memory| memory.readiness).unwrap_or(told)
}

/// The status published before, if it speaks of this very instance.
fn told_of<'a>(inputs: &PlanInputs<'a>, record: &ContainerRecord) -> Option<&'a ContainerStatus> {
    let id = format!("{}://{}", inputs.facts.runtime_name, record.id);
    previous_of(inputs, &record.name).filter(|status| status.container_id.as_deref() == Some(&id))
}

fn derive_user(record: &ContainerRecord) -> Option<ContainerUser> {
    let (uid, gid, groups) = record.user.clone()?;
    let linux = LinuxContainerUser { uid, gid, supplemental_groups: (!groups.is_empty()).then_some(groups) };
    Some(ContainerUser { linux: Some(linux) })
}

fn derive_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let status = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = mount.read_only == Some(true);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    (!mounts.is_empty()).then(|| mounts.iter().map(status).collect())
}

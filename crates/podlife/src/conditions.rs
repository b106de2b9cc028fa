//! The conditions of a pod that the kubelet owns. Input: statuses, phase, sandbox, the status published before.
//! Output: the whole condition list, foreign conditions kept. Invariant: a transition time changes only with the status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::spec::{containers, init_containers, is_sidecar, pod_spec};

const OWNED: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Shared with whoever else ends pods.
const DISRUPTION: &str = "DisruptionTarget";

/// (status, reason, message) of one condition.
struct Verdict(bool, &'static str, String);

impl Verdict {
    fn yes() -> Self {
        Self(true, "", String::new())
    }
}

/// What the conditions are derived from.
pub struct ConditionInputs<'a> {
    pub pod: &'a Pod,
    /// Init and ordinary statuses together; `None` before the first were made (refused pods).
    pub statuses: Option<&'a [ContainerStatus]>,
    pub phase: &'a str,
    /// Why containers cannot be started yet; `None` once the sandbox with its network is there.
    pub sandbox_problem: Option<&'static str>,
    /// Some ordinary container was started.
    pub initialized: bool,
    /// The message of a condition DisruptionTarget that becomes true.
    pub disruption: Option<&'a str>,
    pub previous: &'a PodStatus,
    pub now: Timestamp,
}

/// In upstream's order, after the conditions of others.
pub fn derive_conditions(inputs: &ConditionInputs<'_>) -> Vec<PodCondition> {
    let api = inputs.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut conditions =
        api.iter().filter(|condition| !OWNED.contains(&condition.type_.as_str())).cloned().collect::<Vec<_>>();
    if let Some(message) = inputs.disruption {
        add_disruption(message, inputs, &mut conditions);
    }
    let sandbox = inputs
        .sandbox_problem
        .map_or_else(Verdict::yes, |problem| Verdict(false, "PodSandboxNotReady", problem.to_owned()));
    let containers_ready = derive_containers_ready(inputs);
    let ready = derive_ready(&containers_ready, inputs, &conditions);
    let own = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", derive_initialized(inputs)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    conditions.extend(own.into_iter().map(|(kind, verdict)| stamp(kind, verdict, inputs)));
    conditions
}

/// Others set this condition too: the time of the first one stays.
fn add_disruption(message: &str, inputs: &ConditionInputs<'_>, conditions: &mut Vec<PodCondition>) {
    let mut condition = stamp(DISRUPTION, Verdict(true, "TerminationByKubelet", message.to_owned()), inputs);
    match conditions.iter_mut().find(|other| other.type_ == DISRUPTION) {
        Some(other) => {
            if other.status == condition.status {
                condition.last_transition_time.clone_from(&other.last_transition_time);
            }
            *other = condition;
        }
        None => conditions.push(condition),
    }
}

fn stamp(kind: &str, verdict: Verdict, inputs: &ConditionInputs<'_>) -> PodCondition {
    let Verdict(yes, reason, message) = verdict;
    let status = if yes { "True" } else { "False" };
    let previous = inputs.previous.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let since = previous
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone())
        .unwrap_or(Time(inputs.now));
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then_some(message),
        last_transition_time: Some(since),
        last_probe_time: None,
        observed_generation: inputs.pod.metadata.generation.filter(|generation| *generation > 0),
    }
}

/// Go's `%v` of a list of names.
fn go_list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn unready_message(unknown: &[&str], rest: &[&str], rest_is: &str) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", go_list(unknown)));
    }
    if !rest.is_empty() {
        parts.push(format!("containers with {rest_is} status: {}", go_list(rest)));
    }
    parts.join(", ")
}

fn derive_containers_ready(inputs: &ConditionInputs<'_>) -> Verdict {
    if inputs.phase == "Failed" {
        return Verdict(false, "PodFailed", String::new());
    }
    let Some(statuses) = inputs.statuses else {
        return Verdict(false, "UnknownContainerStatuses", String::new());
    };
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = init_containers(inputs.pod).iter().filter(|container| is_sidecar(container));
    for container in sidecars.chain(containers(inputs.pod)) {
        match statuses.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if inputs.phase == "Succeeded" && unknown.is_empty() {
        return Verdict(false, "PodCompleted", String::new());
    }
    let message = unready_message(&unknown, &unready, "unready");
    if message.is_empty() { Verdict::yes() } else { Verdict(false, "ContainersNotReady", message) }
}

fn derive_ready(containers_ready: &Verdict, inputs: &ConditionInputs<'_>, foreign: &[PodCondition]) -> Verdict {
    if !containers_ready.0 {
        return Verdict(false, containers_ready.1, containers_ready.2.clone());
    }
    let mut unready = Vec::new();
    for gate in pod_spec(inputs.pod).readiness_gates.iter().flatten() {
        match foreign.iter().find(|condition| condition.type_ == gate.condition_type) {
            None => unready.push(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
            Some(condition) if condition.status != "True" => unready.push(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            Some(_) => {}
        }
    }
    if unready.is_empty() { Verdict::yes() } else { Verdict(false, "ReadinessGatesNotReady", unready.join(", ")) }
}

fn derive_initialized(inputs: &ConditionInputs<'_>) -> Verdict {
    let init = init_containers(inputs.pod);
    let Some(statuses) = inputs.statuses else {
        return if init.is_empty() {
            Verdict::yes()
        } else {
            Verdict(false, "UnknownContainerStatuses", String::new())
        };
    };
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in init {
        match statuses.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) => {
                let done = if is_sidecar(container) { status.started == Some(true) } else { status.ready };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if inputs.phase == "Succeeded" && unknown.is_empty() {
        return Verdict(true, "PodCompleted", String::new());
    }
    if inputs.initialized {
        return Verdict::yes();
    }
    let message = unready_message(&unknown, &incomplete, "incomplete");
    if message.is_empty() { Verdict::yes() } else { Verdict(false, "ContainersNotInitialized", message) }
}

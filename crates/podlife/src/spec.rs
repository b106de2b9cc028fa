//! Readings of a pod's spec that many decisions share. Input: the typed Pod. Output: views and plain answers.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
pub use semantics::pod::{is_pod_terminal, is_sidecar};

/// An empty spec for pods that the API could not have stored.
static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

pub fn pod_spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&EMPTY_SPEC)
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as upstream writes it in messages.
pub fn pod_label(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    pod_spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub fn containers(pod: &Pod) -> &[Container] {
    &pod_spec(pod).containers
}

/// Ephemeral containers seen as ordinary ones.
pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    pod_spec(pod).ephemeral_containers.iter().flatten().map(as_container).collect()
}

/// True for a pod of which nothing was started yet, as far as the API knows.
pub fn is_new(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && matches!(semantics::pod::phase(pod), "" | "Pending")
}

/// 0 where the API left it out.
pub fn priority(pod: &Pod) -> i32 {
    pod_spec(pod).priority.unwrap_or(0)
}

/// True for a pod that the cluster cannot do without: upstream's system-critical priority.
pub fn is_critical(pod: &Pod) -> bool {
    priority(pod) >= 2_000_000_000
}

pub fn is_host_network(pod: &Pod) -> bool {
    pod_spec(pod).host_network == Some(true)
}

/// `terminationGracePeriodSeconds`, 30 where the API left it out.
pub fn grace_seconds(pod: &Pod) -> i64 {
    pod_spec(pod).termination_grace_period_seconds.unwrap_or(30)
}

/// Any container of the pod by name: init, ordinary or ephemeral.
pub fn find_container(pod: &Pod, name: &str) -> Option<Container> {
    init_containers(pod)
        .iter()
        .chain(containers(pod))
        .find(|container| container.name == name)
        .cloned()
        .or_else(|| ephemeral_containers(pod).into_iter().find(|container| container.name == name))
}

/// `containers{name}`: the field path of events.
pub fn field_path(pod: &Pod, container: &str) -> String {
    let list = if init_containers(pod).iter().any(|c| c.name == container) {
        "initContainers"
    } else if containers(pod).iter().any(|c| c.name == container) {
        "containers"
    } else {
        "ephemeralContainers"
    };
    format!("spec.{list}{{{container}}}")
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// A running container whose hash no longer fits is replaced. Covers what may change in place: the image. FNV-1a.
pub fn container_hash(container: &Container) -> u64 {
    let text = [container.name.as_str(), "\0", container.image.as_deref().unwrap_or_default()];
    text.iter()
        .flat_map(|part| part.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

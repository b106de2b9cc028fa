//! Words about pods that many components share: ready, available, terminal, which containers are sidecars.
//!
//! Input: the pod struct of k8s-openapi (and the time). Output: yes or no, or a part of the pod. Nothing is changed here.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec};

/// The condition `type_` of the pod.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// True if the Ready condition is True.
pub fn is_pod_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// True if the pod has been ready for at least `min_ready_seconds` at `now`.
pub fn is_pod_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    let Some(ready) = condition(pod, "Ready").filter(|c| c.status == "True") else { return false };
    if min_ready_seconds == 0 {
        return true;
    }
    let wait = jiff::SignedDuration::from_secs(i64::from(min_ready_seconds));
    ready.last_transition_time.as_ref().is_some_and(|since| now.duration_since(since.0) >= wait)
}

/// The pod's phase, `""` if it has none.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// True once the pod has Succeeded or Failed: it will never run again.
pub fn is_pod_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// True if the pod is neither terminal nor being deleted: the pods a controller counts.
pub fn is_pod_active(pod: &Pod) -> bool {
    !is_pod_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// True for an init container that keeps running beside the others.
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// All containers of a spec that have resources: init containers first.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn available_after_the_wait() {
        let pod: Pod = from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(is_pod_ready(&pod));
        assert!(is_pod_available(&pod, 0, at("2026-01-01T00:00:00Z")));
        assert!(!is_pod_available(&pod, 10, at("2026-01-01T00:00:09Z")));
        assert!(is_pod_available(&pod, 10, at("2026-01-01T00:00:10Z")));
    }

    #[test]
    fn active_means_neither_terminal_nor_leaving() {
        let check = |pod, expect| assert_eq!(is_pod_active(&from_value(pod).unwrap()), expect);
        check(json!({"status": {"phase": "Running"}}), true);
        check(json!({"status": {"phase": "Failed"}}), false);
        check(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false);
    }
}

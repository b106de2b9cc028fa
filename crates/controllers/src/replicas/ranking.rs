//! Which pods to delete first when there are too many: pods -> the same pods, least worth keeping first.
//!
//! The order is upstream's: unassigned; earlier phase; not ready; lower deletion cost; more ready siblings on its node;
//! ready more recently; more restarts; younger. Times are compared by magnitude (log2 of the age), so that equally
//! old pods are spread by UID.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use semantics::pod::{condition, is_pod_active, is_pod_ready, phase};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods of `pods` to delete; `related` are the pods whose spread over nodes matters.
pub(super) fn pods_to_delete(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_pod_active(pod)) {
        *on_node.entry(node_of(pod)).or_default() += 1;
    }
    let mut ranked = pods.to_vec();
    ranked.sort_by(|a, b| {
        let crowd = |pod: &Pod| on_node.get(node_of(pod)).copied().unwrap_or(0);
        compare(a, b, crowd(b).cmp(&crowd(a)), now)
    });
    ranked.truncate(count);
    ranked
}

fn compare(a: &Pod, b: &Pod, more_crowded: Ordering, now: Timestamp) -> Ordering {
    let ready = is_pod_ready(a) && is_pod_ready(b);
    (!node_of(a).is_empty())
        .cmp(&!node_of(b).is_empty())
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_pod_ready(a).cmp(&is_pod_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then(more_crowded)
        .then_with(|| if ready { compare_ages(ready_since(a), ready_since(b), a, b, now) } else { Ordering::Equal })
        .then_with(|| compare_restarts(a, b))
        .then_with(|| compare_ages(created(a), created(b), a, b, now))
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Unknown times first, then the younger by order of magnitude, then by UID.
fn compare_ages(a: Option<Timestamp>, b: Option<Timestamp>, pod_a: &Pod, pod_b: &Pod, now: Timestamp) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    match (a, b) {
        (Some(a), Some(b)) => {
            magnitude(a, now).cmp(&magnitude(b, now)).then_with(|| pod_a.metadata.uid.cmp(&pod_b.metadata.uid))
        }
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// log2 of the age in nanoseconds; -1 for the future.
fn magnitude(since: Timestamp, now: Timestamp) -> i64 {
    let age = now.duration_since(since).as_nanos();
    if age <= 0 { -1 } else { i64::from(age.ilog2()) }
}

/// More restarts first: of restartable init containers, then of ordinary ones.
fn compare_restarts(a: &Pod, b: &Pod) -> Ordering {
    let max = |statuses: Option<&Vec<ContainerStatus>>| {
        statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
    };
    let counts = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            max(status.and_then(|s| s.container_statuses.as_ref())),
            max(status.and_then(|s| s.init_container_statuses.as_ref())),
        )
    };
    counts(b).cmp(&counts(a))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready: bool, extra: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": phase, "conditions": [
                { "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
        });
        if let (Value::Object(extra), Value::Object(meta)) = (extra, &mut pod["metadata"]) {
            meta.extend(extra);
        }
        Arc::new(from_value(pod).unwrap())
    }

    #[test]
    fn the_least_useful_goes_first() {
        let pods = [
            pod("alone", "n2", "Running", true, json!({})),
            pod("crowded", "n1", "Running", true, json!({})),
            pod("crowded-too", "n1", "Running", true, json!({})),
            pod("cheap", "n2", "Running", true, json!({ "annotations": { DELETION_COST: "-5" } })),
            pod("not-ready", "n2", "Running", false, json!({})),
            pod("pending", "n2", "Pending", false, json!({})),
            pod("unassigned", "", "Pending", false, json!({})),
            pod("young", "n1", "Running", true, json!({ "creationTimestamp": "2026-01-02T00:00:00Z" })),
        ];
        let now = "2026-01-02T00:00:01Z".parse().unwrap();
        let order: Vec<_> = pods_to_delete(&pods, &pods, pods.len(), now)
            .iter()
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect();
        // "alone" shares its node with three others that are active, "n1" holds three.
        let expect = ["unassigned", "pending", "not-ready", "cheap", "alone", "young", "crowded", "crowded-too"];
        assert_eq!(order, expect);
    }
}

//! Rolling a DaemonSet's template out: old pods are deleted within `maxUnavailable`, or replaced beside themselves within
//! `maxSurge`. A pod that is unavailable anyway is replaced at once.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use reconcile::{Input, Plan};
use semantics::pod::is_pod_available;

use super::placement::{Fit, decide_fit};
use super::{BURST, ByNode, create_on};
use crate::numbers::scaled;
use crate::pods;
use crate::revisions::{HASH_LABEL, History, hash};

pub(super) fn is_of(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).is_some_and(|found| found == hash)
}

pub(super) fn is_available(set: &DaemonSet, pod: &Pod, input: &Input<'_>) -> bool {
    is_pod_available(pod, set.spec.min_ready_seconds.unwrap_or(0), input.now)
}

fn rolling(set: &DaemonSet) -> Option<&RollingUpdateDaemonSet> {
    let strategy = set.spec.update_strategy.as_ref()?;
    strategy.rolling_update.as_ref().filter(|_| strategy.type_.as_deref() != Some("OnDelete"))
}

pub(super) fn max_surge(set: &DaemonSet, nodes: i32) -> i32 {
    scaled(rolling(set).and_then(|rolling| rolling.max_surge.as_ref()), nodes, true)
}

pub(super) fn plan_rollout(set: &DaemonSet, by_node: &ByNode, history: &History, input: &Input<'_>, plan: &mut Plan) {
    let strategy = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    if strategy == Some("OnDelete") {
        return;
    }
    let nodes = input.view.list::<Node>();
    let wanted: Vec<&Arc<Node>> = nodes.iter().filter(|node| decide_fit(set, node) == Fit::Run).collect();
    let count = wanted.len() as i32;
    let surge = max_surge(set, count);
    if surge > 0 {
        return plan_surge(set, by_node, history, surge, input, plan);
    }
    let bound = scaled(rolling(set).and_then(|rolling| rolling.max_unavailable.as_ref()), count, true).max(1);
    let missing =
        wanted.iter().filter(|node| !by_node.contains_key(node.metadata.name.as_deref().unwrap_or_default())).count();
    let mut unavailable = missing as i32;
    let (mut now, mut candidates) = (Vec::new(), Vec::new());
    for pods in by_node.values() {
        let living: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        match living.as_slice() {
            [pod] if is_of(pod, hash(&history.current)) => unavailable += i32::from(!is_available(set, pod, input)),
            [pod] if is_available(set, pod, input) => candidates.push((*pod).clone()),
            [pod] => {
                unavailable += 1;
                now.push((*pod).clone());
            }
            _ => unavailable += 1,
        }
    }
    candidates.truncate(usize::try_from(bound - unavailable).unwrap_or(0));
    plan.writes.extend(now.iter().chain(&candidates).take(BURST).map(|pod| pods::delete(set, pod)));
}

/// Starts new pods beside old ones; the pair is taken apart once the new one is available (see `surplus`).
fn plan_surge(set: &DaemonSet, by_node: &ByNode, history: &History, surge: i32, input: &Input<'_>, plan: &mut Plan) {
    let current = hash(&history.current);
    let mut surging = 0;
    let (mut now, mut candidates) = (Vec::new(), Vec::new());
    for (name, pods) in by_node {
        let fits = input.view.get::<Node>("", name).is_some_and(|node| decide_fit(set, &node) == Fit::Run);
        let living: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        match living.as_slice() {
            [pod] if is_of(pod, current) || !fits => {}
            [pod] if is_available(set, pod, input) => candidates.push(name),
            [_] => now.push(name),
            _ => surging += 1,
        }
    }
    candidates.truncate(usize::try_from(surge - surging).unwrap_or(0));
    plan.writes.extend(now.into_iter().chain(candidates).take(BURST).map(|name| create_on(set, name, history)));
}

//! DaemonSets: one pod on every node that fits.
//!
//! Input: the DaemonSet, its pods and revisions, and all nodes. Output: pods to create (bound to their node by affinity, so
//! that the scheduler places them) or delete, at most 250 a plan, and the status. Invariants: a rollout makes at most
//! `maxUnavailable` nodes unavailable, or has at most `maxSurge` nodes with two pods; a node gets no second pod otherwise.
//! Resources don't matter here: a pod that doesn't fit stays pending.

mod placement;
mod rollout;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use reconcile::{Controller, Event, Input, Key, Plan, View, Watches, Write, controller_of};
use semantics::label_selector::is_empty;
use semantics::pod::{is_pod_ready, is_pod_terminal, phase};

use crate::claims::{Claims, decide_claims};
use crate::labels::is_selected;
use crate::pods;
use crate::revisions::{History, decide_history, expired, hash, hashes_in_use};
use placement::{Fit, decide_fit, derive_daemon_pod, target_node};

const BURST: usize = 250;
/// Back-off between failed pods on one node.
const FAILED_BACKOFF: Duration = Duration::from_secs(1);
const FAILED_BACKOFF_MAX: Duration = Duration::from_secs(900);

/// The controller.
#[derive(Debug, Default)]
pub struct DaemonSetController;

/// Failed pods seen on each node: how many, and when (monotonic) the last was deleted.
pub type FailedPods = BTreeMap<String, (u32, Duration)>;

impl Controller for DaemonSetController {
    type Memory = FailedPods;

    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn workers(&self) -> usize {
        2
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<DaemonSet>(reconcile::controller::own_key);
        watches.watch::<ControllerRevision>(reconcile::controller::controller_key::<ControllerRevision, DaemonSet>);
        watches.watch::<Pod>(pod_keys);
        watches.watch::<Node>(|_, view| view.list::<DaemonSet>().iter().map(|set| Key::of(&set.metadata)).collect());
    }

    fn plan(&self, input: &Input<'_>, failed: &mut FailedPods) -> Plan {
        let set = input.view.get::<DaemonSet>(&input.key.namespace, &input.key.name);
        set.map(|set| plan_daemons(&set, input, failed)).unwrap_or_default()
    }
}

fn pod_keys(pod: &Pod, view: &View) -> Vec<Key> {
    if controller_of(&pod.metadata).is_some() {
        return reconcile::controller::controller_key::<Pod, DaemonSet>(pod, view);
    }
    let mut sets = view.list_in::<DaemonSet>(pod.metadata.namespace.as_deref().unwrap_or_default());
    sets.retain(|set| !is_empty(&set.spec.selector) && is_selected(&set.spec.selector, &pod.metadata));
    sets.iter().map(|set| Key::of(&set.metadata)).collect()
}

/// A DaemonSet's pods by the node that each is meant for.
type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

fn plan_daemons(set: &DaemonSet, input: &Input<'_>, failed: &mut FailedPods) -> Plan {
    let mut plan = Plan::empty();
    if is_empty(&set.spec.selector) {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        plan.events.push(Event::warning(set, "SelectingAll", message));
        return plan;
    }
    let pods = input.view.list_in::<Pod>(&input.key.namespace);
    let pods: Claims<Pod> = decide_claims(set, &set.spec.selector, pods, input.observed);
    let revisions = input.view.list_in::<ControllerRevision>(&input.key.namespace);
    let revisions: Claims<ControllerRevision> = decide_claims(set, &set.spec.selector, revisions, input.observed);
    plan.observe.extend(pods.observe.or(revisions.observe));
    if !plan.observe.is_empty() || set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    plan.writes.extend(pods.patches.into_iter().chain(revisions.patches));
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let history = decide_history(set, &set.spec.template, collisions, revisions.mine);
    if history.is_name_taken {
        return status::plan_collision(set);
    }
    plan.writes.extend(history.write.clone());
    let used = hashes_in_use(pods.mine.iter().map(|pod| &pod.metadata));
    plan.writes.extend(expired(&history, set.spec.revision_history_limit, |revision| used.contains(hash(revision))));
    let by_node = group_by_node(&pods.mine);
    if input.failure.is_none() {
        let before = plan.writes.len();
        plan_nodes(set, &by_node, &history, input, failed, &mut plan);
        if plan.writes.len() == before {
            rollout::plan_rollout(set, &by_node, &history, input, &mut plan);
        }
    }
    status::plan_status(set, &by_node, &history, input, &mut plan);
    plan
}

fn group_by_node(pods: &[Arc<Pod>]) -> ByNode {
    let mut by_node = ByNode::new();
    for pod in pods {
        let ended = pod.metadata.deletion_timestamp.is_some() && is_pod_terminal(pod);
        if let Some(node) = target_node(pod).filter(|_| !ended) {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by(|a, b| age_order(a).cmp(&age_order(b)));
    }
    by_node
}

/// Oldest first; a pod that is bound before one that isn't.
fn age_order(pod: &Pod) -> (bool, Option<jiff::Timestamp>, &Option<String>) {
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    (!bound, pod.metadata.creation_timestamp.as_ref().map(|time| time.0), &pod.metadata.name)
}

/// Creates what is missing and deletes what is too much, failed, or in the wrong place.
fn plan_nodes(
    set: &DaemonSet,
    by_node: &ByNode,
    history: &History,
    input: &Input<'_>,
    failed: &mut FailedPods,
    plan: &mut Plan,
) {
    let mut deletions = Vec::new();
    let mut creations = Vec::new();
    for node in input.view.list::<Node>() {
        let name = node.metadata.name.clone().unwrap_or_default();
        let pods = by_node.get(&name).map(Vec::as_slice).unwrap_or_default();
        let living: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        match decide_fit(set, &node) {
            Fit::No => deletions.extend(living.into_iter().cloned()),
            fit => {
                let (ended, running): (Vec<&Arc<Pod>>, Vec<_>) =
                    living.into_iter().partition(|pod| is_pod_terminal(pod));
                for pod in ended {
                    if may_delete_ended(set, pod, &name, input, failed, plan) {
                        deletions.push(pod.clone());
                    }
                }
                let surging = rollout::max_surge(set, 1) > 0;
                deletions.extend(surplus(set, &running, hash(&history.current), surging, input));
                let none_left = if surging {
                    running.is_empty() && pods.iter().all(|pod| !is_pod_terminal(pod))
                } else {
                    pods.is_empty()
                };
                if fit == Fit::Run && none_left {
                    creations.push(name);
                }
            }
        }
    }
    deletions.extend(by_node.iter().filter(|(name, _)| input.view.get::<Node>("", name).is_none()).flat_map(
        |(_, pods)| {
            // The node is gone: pods that were never bound to it would wait for ever.
            pods.iter()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none() && crate::nodes::node_of(pod).is_empty())
                .cloned()
        },
    ));
    plan.writes.extend(deletions.iter().take(BURST).map(|pod| pods::delete(set, pod)));
    plan.writes.extend(creations.iter().take(BURST).map(|name| create_on(set, name, history)));
}

fn create_on(set: &DaemonSet, node: &str, history: &History) -> Write {
    pods::create(set, &derive_daemon_pod(set, node, hash(&history.current)))
}

/// Pods on one node beyond the one (or, when surging, the new and the old one) that it should have.
fn surplus(set: &DaemonSet, running: &[&Arc<Pod>], current: &str, surging: bool, input: &Input<'_>) -> Vec<Arc<Pod>> {
    if !surging {
        return running.iter().skip(1).map(|pod| (*pod).clone()).collect();
    }
    let (new, old): (Vec<&Arc<Pod>>, Vec<_>) = running.iter().partition(|pod| rollout::is_of(pod, current));
    let mut deletions: Vec<Arc<Pod>> = new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| (*pod).clone()).collect();
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!is_pod_ready(old) || rollout::is_available(set, new, input))
    {
        deletions.push((*old).clone());
    }
    deletions
}

/// A pod that ended is replaced; one that failed, not more often than the node's back-off allows.
fn may_delete_ended(
    set: &DaemonSet,
    pod: &Pod,
    node: &str,
    input: &Input<'_>,
    failed: &mut FailedPods,
    plan: &mut Plan,
) -> bool {
    let name = Key::of(&pod.metadata);
    if phase(pod) == "Succeeded" {
        let message = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
        plan.events.push(Event::normal(set, "SucceededDaemonPod", message));
        return true;
    }
    let (count, last) = failed.get(node).copied().unwrap_or_default();
    let delay = if count == 0 {
        Duration::ZERO
    } else {
        (FAILED_BACKOFF * 2u32.saturating_pow(count - 1)).min(FAILED_BACKOFF_MAX)
    };
    let due = last + delay;
    if input.monotonic < due {
        plan.requeue(due - input.monotonic);
        return false;
    }
    failed.insert(node.to_owned(), ((count + 1).min(16), input.monotonic));
    let message = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
    plan.events.push(Event::warning(set, "FailedDaemonPod", message));
    true
}

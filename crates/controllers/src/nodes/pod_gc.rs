//! Pods that nobody will ever finish: those of nodes that are gone, those that were deleted before they had a node, those
//! of nodes declared out of service, and terminated ones beyond 12,500.
//!
//! Invariant: a pod of a missing node goes only after the node was missing for 40 s and a live read confirmed it.
//! One key stands for the whole cluster; it is looked at every 20 s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{Controller, Input, Key, Observation, Observe, Plan, ResourceId, View, Watches, Write};
use semantics::pod::is_pod_terminal;
use serde_json::json;

use super::{is_ready, node_of};
use crate::times::whole_seconds;

const PERIOD: Duration = Duration::from_secs(20);
const QUARANTINE: Duration = Duration::from_secs(40);
const TERMINATED_MAX: usize = 12_500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Deletions in one plan; the rest follow in the next.
const DELETIONS_MAX: usize = 500;

/// The controller.
#[derive(Debug, Default)]
pub struct PodGarbageCollector;

impl Controller for PodGarbageCollector {
    /// Since when (monotonic) each missing node has been missing.
    type Memory = BTreeMap<String, Duration>;

    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn workers(&self) -> usize {
        1
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Node>(|_, _| vec![cluster()]);
        watches.watch::<Pod>(pod_keys);
    }

    fn plan(&self, input: &Input<'_>, missing: &mut BTreeMap<String, Duration>) -> Plan {
        let mut plan = Plan::empty();
        plan.requeue(PERIOD);
        let pods = input.view.list::<Pod>();
        let gone = decide_gone(&pods, input, missing, &mut plan);
        if !plan.observe.is_empty() || input.failure.is_some() {
            return plan;
        }
        for pod in &pods {
            if gone.contains(node_of(pod)) {
                plan.writes.extend(plan_end(pod, Some("PodGC: node no longer exists"), input));
            } else if is_unassigned_and_deleted(pod) {
                plan.writes.extend(plan_end(pod, None, input));
            } else if is_out_of_service(pod, input.view) {
                plan.writes.extend(plan_end(pod, Some("PodGC: deleting due to out-of-service taint"), input));
            }
        }
        plan.writes.extend(surplus(&pods).into_iter().map(|pod| Write::delete(&*pod).with_grace(0)));
        if plan.writes.len() > DELETIONS_MAX {
            plan.writes.truncate(DELETIONS_MAX);
            plan.requeue(Duration::from_secs(1));
        }
        plan
    }
}

fn cluster() -> Key {
    Key::cluster("pods")
}

/// Pods wake the collector only where there is no node to wait for.
fn pod_keys(pod: &Pod, _: &View) -> Vec<Key> {
    is_unassigned_and_deleted(pod).then(cluster).into_iter().collect()
}

fn is_unassigned_and_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && node_of(pod).is_empty()
}

fn is_out_of_service(pod: &Pod, view: &View) -> bool {
    let declared = |node: &Node| {
        let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        !is_ready(node) && taints.any(|taint| taint.key == OUT_OF_SERVICE)
    };
    pod.metadata.deletion_timestamp.is_some() && view.get::<Node>("", node_of(pod)).is_some_and(|node| declared(&node))
}

/// The nodes that pods name and that are gone for certain. Asks live for those that have been missing long enough.
fn decide_gone(
    pods: &[Arc<Pod>],
    input: &Input<'_>,
    missing: &mut BTreeMap<String, Duration>,
    plan: &mut Plan,
) -> BTreeSet<String> {
    let named: BTreeSet<&str> = pods.iter().map(|pod| node_of(pod)).filter(|name| !name.is_empty()).collect();
    let absent: BTreeSet<&str> = named.into_iter().filter(|name| input.view.get::<Node>("", name).is_none()).collect();
    missing.retain(|name, _| absent.contains(name.as_str()));
    let mut gone = BTreeSet::new();
    for name in absent {
        let since = *missing.entry(name.to_owned()).or_insert(input.monotonic);
        if input.monotonic.saturating_sub(since) < QUARANTINE {
            continue;
        }
        let live = Observe::Get { resource: ResourceId::of::<Node>(), key: Key::cluster(name) };
        match input.observed.get(&live) {
            None => plan.observe.push(live),
            Some(Observation::Absent) => drop(gone.insert(name.to_owned())),
            Some(_) => {}
        }
    }
    gone
}

/// Marks a pod that will never report again as failed, then removes it.
fn plan_end(pod: &Pod, reason: Option<&str>, input: &Input<'_>) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(message) = reason.filter(|_| !is_pod_terminal(pod)) {
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
            "lastTransitionTime": Time(whole_seconds(input.now)),
        });
        let body = json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": { "phase": "Failed", "conditions": [condition] },
        });
        writes.push(Write::status_patch::<Pod>(Key::of(&pod.metadata), body));
    }
    writes.push(Write::delete(pod).with_grace(0));
    writes
}

/// The oldest terminated pods beyond what is kept.
fn surplus(pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut ended: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_pod_terminal(pod)).cloned().collect();
    let count = ended.len().saturating_sub(TERMINATED_MAX);
    if count > 0 {
        let created = |pod: &Arc<Pod>| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        ended.sort_by(|a, b| created(a).cmp(&created(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name)));
    }
    ended.truncate(count);
    ended
}

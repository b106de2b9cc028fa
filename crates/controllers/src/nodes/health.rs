//! Node health: heartbeats -> the node's conditions become Unknown when none came for 40 s (none ever: 60 s).
//!
//! A heartbeat is a renewed Lease in `kube-node-lease` or a newer heartbeat time in the Ready condition; both are only
//! compared with what was seen before, so the node's clock doesn't matter. Invariants: a node is judged only if this
//! controller itself looked at it all the time, every 5 s: after any pause of ours, or while the API can't be asked, its
//! time begins anew; and a live read of the Lease confirms each judgement. Taints are kept by the same plan.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{Controller, Event, Input, Key, Observation, Observe, Plan, ResourceId, View, Watches, Write};
use semantics::pod::{is_pod_ready, is_pod_terminal};
use serde_json::json;

use super::taints::derive_taints;
use super::{condition, is_ready, node_of};
use crate::times::whole_seconds;

/// How often each node is looked at.
const TICK: Duration = Duration::from_secs(5);
/// No look for so long means that we stood still.
const PAUSE: Duration = Duration::from_secs(15);
/// Time without a heartbeat after which a node is given up.
const GRACE: Duration = Duration::from_secs(40);
/// The same for a node that never had a Ready condition.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
const LEASES: &str = "kube-node-lease";
/// The conditions that become Unknown.
const JUDGED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The controller.
#[derive(Debug, Default)]
pub struct NodeHealthController;

/// What is remembered of a node. Times are monotonic.
#[derive(Debug, Default)]
pub struct Health {
    /// The newest heartbeat seen, in the node's own words.
    heartbeat: Option<(Option<String>, Option<Time>)>,
    /// When it was seen.
    heard: Duration,
    looked: Duration,
}

impl Controller for NodeHealthController {
    type Memory = Health;

    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Node>(reconcile::controller::own_key);
        watches.watch::<Lease>(lease_keys);
        watches.watch::<Pod>(reconcile::controller::no_keys);
    }

    fn plan(&self, input: &Input<'_>, health: &mut Health) -> Plan {
        let Some(node) = input.view.get::<Node>("", &input.key.name) else { return Plan::empty() };
        let mut plan = Plan::empty();
        plan.requeue(TICK);
        note_heartbeat(&node, health, input);
        if input.failure.is_some() {
            return plan;
        }
        let grace = if condition(&node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
        if input.monotonic.saturating_sub(health.heard) > grace && !is_given_up(&node) {
            judge(&node, health, input, &mut plan);
        }
        if plan.observe.is_empty() && plan.writes.is_empty() {
            plan_taints(&node, input, &mut plan);
        }
        plan
    }
}

fn lease_keys(lease: &Lease, _: &View) -> Vec<Key> {
    let is_nodes = lease.metadata.namespace.as_deref() == Some(LEASES);
    lease.metadata.name.clone().filter(|_| is_nodes).map(Key::cluster).into_iter().collect()
}

/// Notes a new heartbeat, or the end of a pause of ours.
fn note_heartbeat(node: &Node, health: &mut Health, input: &Input<'_>) {
    let lease = input.view.get::<Lease>(LEASES, &input.key.name);
    let renewed = lease.and_then(|lease| lease.metadata.resource_version.clone());
    let ready = condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone());
    let heartbeat = Some((renewed, ready));
    let paused = input.monotonic.saturating_sub(health.looked) > PAUSE;
    if health.heartbeat != heartbeat || paused {
        health.heartbeat = heartbeat;
        health.heard = input.monotonic;
    }
    health.looked = input.monotonic;
}

fn is_given_up(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "Unknown")
}

/// Declares the node's state unknown, once a live read shows that no newer heartbeat is on its way through the caches.
fn judge(node: &Node, health: &mut Health, input: &Input<'_>, plan: &mut Plan) {
    let live = Observe::Get { resource: ResourceId::of::<Lease>(), key: Key::new(LEASES, input.key.name.clone()) };
    let seen = health.heartbeat.as_ref().and_then(|(lease, _)| lease.as_deref());
    match input.observed.get(&live) {
        None => return plan.observe.push(live),
        Some(Observation::Absent) => {}
        Some(Observation::Found(lease)) if lease["metadata"]["resourceVersion"].as_str() == seen => {}
        Some(_) => {
            // It has renewed, or nobody could be asked: neither is the node's fault.
            health.heard = input.monotonic;
            return plan.wait("HeartbeatUnconfirmed", "the API has newer news of the node than the cache, or none");
        }
    }
    plan.writes.push(Write::replace_status(&derive_given_up(node, input)));
    let message = format!("Node {} status is now: NodeNotReady", input.key.name);
    plan.events.push(Event::normal(node, "NodeNotReady", message));
}

fn derive_given_up(node: &Node, input: &Input<'_>) -> Node {
    let mut next = node.clone();
    let now = Some(Time(whole_seconds(input.now)));
    let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in JUDGED {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: now.clone(),
            }),
            Some(current) if current.status != "Unknown" => {
                current.status = "Unknown".to_owned();
                current.reason = Some("NodeStatusUnknown".to_owned());
                current.message = Some("Kubelet stopped posting node status.".to_owned());
                current.last_transition_time.clone_from(&now);
            }
            Some(_) => {}
        }
    }
    next
}

/// Keeps the taints that the conditions ask for, and tells the pods of a node that was given up that they aren't ready.
fn plan_taints(node: &Node, input: &Input<'_>, plan: &mut Plan) {
    // When no node at all is ready, the fault is more likely ours: nothing is evicted.
    let may_evict = input.view.list::<Node>().iter().any(|node| is_ready(node));
    if let Some(taints) = derive_taints(node, may_evict, input.now) {
        let meta = &node.metadata;
        let body = json!({
            "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
            "spec": { "taints": taints },
        });
        plan.writes.push(Write::merge_patch::<Node>(input.key.clone(), body));
    }
    if !is_given_up(node) {
        return;
    }
    let on_node =
        input.view.list::<Pod>().into_iter().filter(|pod| node_of(pod) == input.key.name && !is_pod_terminal(pod));
    for pod in on_node.filter(|pod| is_pod_ready(pod)) {
        let condition = json!({
            "type": "Ready", "status": "False", "lastTransitionTime": Time(whole_seconds(input.now)),
        });
        let body = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
        plan.writes.push(Write::status_patch::<Pod>(Key::of(&pod.metadata), body));
        plan.events.push(Event::warning(&*pod, "NodeNotReady", "Node is not ready"));
    }
}

//! Eviction by taints: a pod and its node's NoExecute taints -> the pod is deleted at once, later, or never.
//!
//! Invariant: a pod that tolerates all taints for some time is deleted after the shortest of those times, counted from
//! when this controller first saw the taints (so a pause of ours only lengthens it). Does not taint.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{Controller, Event, Input, Key, Plan, View, Watches, Write};
use semantics::taints::{NO_EXECUTE, tolerates};
use serde_json::json;

use super::node_of;
use crate::times::whole_seconds;

/// The controller.
#[derive(Debug, Default)]
pub struct TaintEvictionController;

impl Controller for TaintEvictionController {
    /// When the taints were first seen (monotonic).
    type Memory = Option<Duration>;

    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Pod>(assigned_keys);
        watches.watch::<Node>(node_keys);
    }

    fn plan(&self, input: &Input<'_>, tainted_since: &mut Option<Duration>) -> Plan {
        let pod = input.view.get::<Pod>(&input.key.namespace, &input.key.name);
        let Some(pod) = pod.filter(|pod| pod.metadata.deletion_timestamp.is_none()) else { return Plan::empty() };
        let taints = input.view.get::<Node>("", node_of(&pod)).map(|node| executing(&node)).unwrap_or_default();
        if taints.is_empty() {
            *tainted_since = None;
            return Plan::empty();
        }
        let since = *tainted_since.get_or_insert(input.monotonic);
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
        match decide_stay(&taints, &tolerations) {
            Stay::Forever => Plan::empty(),
            Stay::For(time) if since + time > input.monotonic => {
                let mut plan = Plan::empty();
                plan.requeue(since + time - input.monotonic);
                plan.wait("EvictionDue", "the node's taints are tolerated only for a time");
                plan
            }
            Stay::For(_) => plan_eviction(&pod, input),
        }
    }
}

fn assigned_keys(pod: &Pod, _: &View) -> Vec<Key> {
    if node_of(pod).is_empty() { Vec::new() } else { vec![Key::of(&pod.metadata)] }
}

/// A node that has, or had, NoExecute taints wakes its pods.
fn node_keys(node: &Node, view: &View) -> Vec<Key> {
    if executing(node).is_empty() {
        return Vec::new();
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    view.list::<Pod>().iter().filter(|pod| node_of(pod) == name).map(|pod| Key::of(&pod.metadata)).collect()
}

fn executing(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
}

/// How long a pod may stay with these taints.
#[derive(Debug, PartialEq)]
enum Stay {
    Forever,
    For(Duration),
}

fn decide_stay(taints: &[Taint], tolerations: &[Toleration]) -> Stay {
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Stay::For(Duration::ZERO);
        };
        if let Some(seconds) = toleration.toleration_seconds {
            let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            shortest = Some(shortest.map_or(time, |known| known.min(time)));
        }
    }
    shortest.map_or(Stay::Forever, Stay::For)
}

fn plan_eviction(pod: &Pod, input: &Input<'_>) -> Plan {
    let mut plan = Plan::empty();
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "observedGeneration": pod.metadata.generation,
        "lastTransitionTime": Time(whole_seconds(input.now)),
    });
    let told = semantics::pod::condition(pod, "DisruptionTarget");
    if told.is_none_or(|condition| condition.status != "True") {
        let body = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
        plan.writes.push(Write::status_patch::<Pod>(input.key.clone(), body));
    }
    plan.writes.push(Write::delete(pod));
    plan.events.push(Event::normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {}", input.key)));
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn check(taints: Value, tolerations: Value, expect: Stay) {
        let (taints, tolerations): (Vec<Taint>, Vec<Toleration>) =
            (from_value(taints).unwrap(), from_value(tolerations).unwrap());
        assert_eq!(decide_stay(&taints, &tolerations), expect);
    }

    #[test]
    fn the_shortest_toleration_counts_and_one_intolerable_taint_is_enough() {
        let a = json!({ "key": "a", "effect": "NoExecute" });
        let b = json!({ "key": "b", "effect": "NoExecute" });
        check(json!([a]), json!([]), Stay::For(Duration::ZERO));
        check(json!([a]), json!([{ "operator": "Exists" }]), Stay::Forever);
        check(
            json!([a]),
            json!([{ "key": "a", "operator": "Exists", "tolerationSeconds": 300 }]),
            Stay::For(Duration::from_secs(300)),
        );
        check(
            json!([a, b]),
            json!([{ "key": "a", "operator": "Exists", "tolerationSeconds": 300 }]),
            Stay::For(Duration::ZERO),
        );
        check(json!([a]), json!([{ "operator": "Exists", "tolerationSeconds": -1 }]), Stay::For(Duration::ZERO));
    }
}

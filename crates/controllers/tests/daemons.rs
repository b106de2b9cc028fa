//! DaemonSets against the simulated API: placement, rollouts within bounds, history.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use controllers::daemons::DaemonSetController;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use reconcile::Registrar as _;
use reconcile::harness::{Harness, World, check_crash_safety};
use serde_json::{Value, from_value, json};

fn node(name: &str, taints: Value) -> Node {
    from_value(json!({ "metadata": { "name": name }, "spec": { "taints": taints } })).unwrap()
}

fn daemon_set(rolling: Value) -> DaemonSet {
    from_value(json!({
        "metadata": { "name": "agent", "namespace": "ns" },
        "spec": {
            "revisionHistoryLimit": 1,
            "selector": { "matchLabels": { "app": "agent" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling },
            "template": { "metadata": { "labels": { "app": "agent" } }, "spec": { "containers": [{ "name": "a", "image": "v1" }] } },
        },
    }))
    .unwrap()
}

fn harness(rolling: Value, nodes: u8) -> Harness {
    let mut harness = Harness::new();
    harness.register(DaemonSetController);
    harness.add(&daemon_set(rolling));
    (0..nodes).for_each(|number| harness.add(&node(&format!("n{number}"), json!(null))));
    harness
}

/// Scheduler and kubelet: one pod at a time is bound where its affinity says, and becomes ready.
fn run_a_pod(world: &mut World) -> bool {
    let mut left = 1;
    world.update_each::<Pod>(|pod| {
        if pod.status.is_none() && left > 0 {
            left -= 1;
            let spec = pod.spec.as_mut().unwrap();
            let required = spec
                .affinity
                .clone()
                .unwrap()
                .node_affinity
                .unwrap()
                .required_during_scheduling_ignored_during_execution;
            spec.node_name = Some(
                required.unwrap().node_selector_terms[0].match_fields.clone().unwrap()[0].values.clone().unwrap()[0]
                    .clone(),
            );
            pod.status =
                from_value(json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }))
                    .unwrap();
        }
    }) > 0
}

fn set_image(harness: &mut Harness, image: &str) {
    harness.world.update_each::<DaemonSet>(|set| {
        set.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned())
    });
}

fn images(harness: &Harness) -> Vec<String> {
    let pods = harness.world.list::<Pod>();
    let mut all: Vec<_> = pods
        .iter()
        .map(|pod| {
            let spec = pod.spec.as_ref().unwrap();
            format!("{}:{}", spec.node_name.clone().unwrap_or_default(), spec.containers[0].image.clone().unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_pod_runs_on_every_node_that_fits_and_nowhere_else() {
    let mut harness = harness(json!({ "maxUnavailable": 1 }), 2);
    harness.add(&node("tainted", json!([{ "key": "mine", "effect": "NoSchedule" }])));
    harness.add(&node("sick", json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }])));
    harness.settle_with(run_a_pod);
    assert_eq!(images(&harness), ["n0:v1", "n1:v1", "sick:v1"]);
    // A taint that forbids scheduling lets a pod stay; one that forbids execution doesn't.
    harness.world.update_each::<Node>(|node| {
        let effect = if node.metadata.name.as_deref() == Some("n0") { "NoSchedule" } else { "NoExecute" };
        node.spec.as_mut().unwrap().taints = from_value(json!([{ "key": "mine", "effect": effect }])).unwrap();
    });
    harness.settle_with(run_a_pod);
    assert_eq!(images(&harness), ["n0:v1"]);
    let status = harness.world.get::<DaemonSet>("ns", "agent").unwrap().status.unwrap();
    assert_eq!((status.desired_number_scheduled, status.number_misscheduled), (0, 1));
}

/// Rolls three nodes out from v1 to v2, with a crash after every write too, and holds `invariant` all the way.
fn check_rollout(rolling: fn() -> Value, invariant: fn(&World)) -> Harness {
    let setup = || {
        let mut harness = harness(rolling(), 3);
        harness.settle_with(run_a_pod);
        harness.set_invariant(invariant);
        set_image(&mut harness, "v2");
        harness
    };
    check_crash_safety(setup, run_a_pod);
    let mut harness = setup();
    harness.settle_with(run_a_pod);
    assert_eq!(images(&harness), ["n0:v2", "n1:v2", "n2:v2"]);
    harness
}

/// No more than one node without a ready pod, and no node with two.
fn one_unavailable(world: &World) {
    let pods = world.list::<Pod>();
    assert!(pods.iter().filter(|pod| pod.status.is_some()).count() >= 2, "two nodes are unavailable");
    assert!(pods.len() <= 3, "a node has two pods");
}

#[test]
fn a_rollout_keeps_within_max_unavailable() {
    let harness = check_rollout(|| json!({ "maxUnavailable": 1, "maxSurge": 0 }), one_unavailable);
    let status = harness.world.get::<DaemonSet>("ns", "agent").unwrap().status.unwrap();
    assert_eq!(
        (status.desired_number_scheduled, status.updated_number_scheduled, status.number_available),
        (3, Some(3), Some(3))
    );
}

/// Every node keeps a ready pod, and one node at most has two.
fn one_surging(world: &World) {
    let mut ready: BTreeMap<String, usize> = BTreeMap::new();
    for pod in world.list::<Pod>().iter().filter(|pod| pod.status.is_some()) {
        *ready.entry(pod.spec.as_ref().unwrap().node_name.clone().unwrap()).or_default() += 1;
    }
    assert_eq!(ready.len(), 3, "a node has no ready pod");
    assert!(world.list::<Pod>().len() <= 4, "two nodes surge");
}

#[test]
fn a_surging_rollout_never_leaves_a_node_without() {
    check_rollout(|| json!({ "maxUnavailable": 0, "maxSurge": 1 }), one_surging);
}

#[test]
fn history_keeps_its_limit_and_going_back_makes_the_newest() {
    let mut harness = harness(json!({ "maxUnavailable": 1 }), 1);
    for image in ["v1", "v2", "v3", "v2"] {
        set_image(&mut harness, image);
        harness.settle_with(run_a_pod);
    }
    let mut numbers: Vec<_> =
        harness.world.list::<ControllerRevision>().iter().map(|revision| revision.revision.unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 4]);
}

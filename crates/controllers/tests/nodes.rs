//! Node health, evictions, pod garbage and CIDRs, against the simulated API and a clock that moves when told to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use controllers::nodes::cidr::{CidrRange, NodeCidrController};
use controllers::nodes::eviction::TaintEvictionController;
use controllers::nodes::health::NodeHealthController;
use controllers::nodes::pod_gc::PodGarbageCollector;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use reconcile::Registrar as _;
use reconcile::harness::{Harness, World, check_crash_safety};
use serde_json::{from_value, json};

fn node(name: &str) -> Node {
    from_value(json!({ "metadata": { "name": name }, "spec": {}, "status": { "conditions": [
        { "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z" }] } }))
    .unwrap()
}

fn lease(name: &str) -> Lease {
    from_value(
        json!({ "metadata": { "name": name, "namespace": "kube-node-lease" }, "spec": { "leaseDurationSeconds": 40 } }),
    )
    .unwrap()
}

fn pod(name: &str, node: &str) -> Pod {
    from_value(json!({
        "metadata": { "name": name, "namespace": "ns" },
        "spec": { "nodeName": node, "containers": [], "tolerations": [
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 }] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
    }))
    .unwrap()
}

fn cluster() -> Harness {
    let mut harness = Harness::new();
    harness.register(NodeHealthController);
    harness.register(TaintEvictionController);
    for name in ["a", "b"] {
        harness.add(&node(name));
        harness.add(&lease(name));
        harness.add(&pod(&format!("on-{name}"), name));
    }
    harness
}

fn renew(world: &mut World, name: &str) {
    world.update_each::<Lease>(|lease| {
        if lease.metadata.name.as_deref() == Some(name) {
            let transitions = lease.spec.as_ref().unwrap().lease_transitions.unwrap_or(0);
            lease.spec.as_mut().unwrap().lease_transitions = Some(transitions + 1);
        }
    });
}

/// Lets time pass in 5 s ticks while the nodes named renew their leases.
fn pass(harness: &mut Harness, seconds: u64, alive: &[&str]) {
    for _ in 0..seconds / 5 {
        harness.advance(Duration::from_secs(5));
        alive.iter().for_each(|name| renew(&mut harness.world, name));
        harness.settle();
    }
}

fn ready_of(harness: &Harness, name: &str) -> (String, usize) {
    let node: Node = harness.world.get("", name).unwrap();
    let ready = node.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    (ready.status, node.spec.unwrap_or_default().taints.unwrap_or_default().len())
}

#[test]
fn a_silent_node_is_given_up_after_40_s_its_pods_evicted_after_their_toleration() {
    let mut harness = cluster();
    harness.settle();
    pass(&mut harness, 40, &["a"]);
    assert_eq!(ready_of(&harness, "b"), ("True".to_owned(), 0));
    pass(&mut harness, 5, &["a"]);
    assert_eq!(ready_of(&harness, "b"), ("Unknown".to_owned(), 2));
    assert_eq!(ready_of(&harness, "a"), ("True".to_owned(), 0));
    pass(&mut harness, 25, &["a"]);
    assert_eq!(harness.world.list::<Pod>().len(), 2);
    pass(&mut harness, 5, &["a"]);
    let left: Vec<_> = harness.world.list::<Pod>().into_iter().map(|pod| pod.metadata.name.unwrap()).collect();
    assert_eq!(left, ["on-a"]);
    // It comes back: the kubelet says ready, the taints go.
    harness.world.update_each::<Node>(|node| {
        let ready = &mut node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
        ready.status = "True".to_owned();
    });
    pass(&mut harness, 5, &["a", "b"]);
    assert_eq!(ready_of(&harness, "b"), ("True".to_owned(), 0));
}

#[test]
fn after_a_pause_of_ours_no_node_is_judged_before_its_heartbeats_could_arrive_again() {
    let mut harness = cluster();
    harness.settle();
    harness.advance(Duration::from_secs(600));
    harness.settle();
    assert_eq!(ready_of(&harness, "b"), ("True".to_owned(), 0));
    pass(&mut harness, 40, &["a"]);
    assert_eq!(ready_of(&harness, "b"), ("True".to_owned(), 0));
    pass(&mut harness, 5, &["a"]);
    assert_eq!(ready_of(&harness, "b").0, "Unknown");
}

#[test]
fn when_no_node_is_heard_nothing_is_evicted() {
    let mut harness = cluster();
    harness.settle();
    pass(&mut harness, 300, &[]);
    assert_eq!(harness.world.list::<Pod>().len(), 2);
}

#[test]
fn pods_of_a_node_that_is_gone_go_after_a_quarantine() {
    let mut harness = Harness::new();
    harness.register(PodGarbageCollector);
    harness.add(&node("a"));
    harness.add(&pod("on-a", "a"));
    harness.add(&pod("on-gone", "gone"));
    harness.settle();
    harness.advance(Duration::from_secs(20));
    harness.settle();
    assert_eq!(harness.world.list::<Pod>().len(), 2);
    harness.advance(Duration::from_secs(20));
    harness.settle();
    let left: Vec<_> = harness.world.list::<Pod>().into_iter().map(|pod| pod.metadata.name.unwrap()).collect();
    assert_eq!(left, ["on-a"]);
}

#[test]
fn each_node_gets_a_part_of_its_own() {
    fn setup() -> Harness {
        let mut harness = Harness::new();
        harness.register(NodeCidrController::new(CidrRange::parse("10.42.0.0/22", 24).unwrap()));
        let mut taken = node("c");
        taken.spec.get_or_insert_default().pod_cidr = Some("10.42.1.0/24".to_owned());
        harness.add(&taken);
        ["a", "b", "d", "e"].iter().for_each(|name| harness.add(&node(name)));
        harness
    }
    fn idle(_: &mut World) -> bool {
        false
    }
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    let cidrs: Vec<_> =
        harness.world.list::<Node>().into_iter().map(|node| node.spec.unwrap().pod_cidr.unwrap_or_default()).collect();
    assert_eq!(cidrs, ["10.42.0.0/24", "10.42.2.0/24", "10.42.1.0/24", "10.42.3.0/24", ""]);
    assert_eq!(harness.events.last().unwrap().reason, "CIDRNotAvailable");
}

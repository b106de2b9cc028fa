//! Decisions on small clusters: which node is chosen, and what a Pod that fits nowhere is told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::snapshot::PodView;
use scheduler::{Decision, Snapshot, decide, explain};
use serde_json::{Value, json};

fn node(name: &str, cpu: &str, extra: Value) -> Arc<Node> {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"zone": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}},
    });
    merge(&mut value, extra);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let mut value =
        json!({"metadata": {"namespace": "d", "name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    merge(&mut value["spec"], spec);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v))
        }
        (into, from) => *into = from,
    }
}

fn requests(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": cpu}}}]})
}

fn cluster(nodes: impl IntoIterator<Item = Arc<Node>>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.into_iter().for_each(|n| snapshot.set_node(n));
    snapshot
}

fn chosen(snapshot: &Snapshot, spec: Value) -> String {
    match decide(&PodView::new(pod("p", spec)), snapshot, 0) {
        Decision::Bind { node, .. } => node,
        other => explain(&other).unwrap(),
    }
}

#[test]
fn the_emptier_node_wins() {
    let mut snapshot = cluster([node("a", "2", json!({})), node("b", "2", json!({}))]);
    snapshot.set_pod(&pod("other", requests("1500m")), "a");
    assert_eq!(chosen(&snapshot, requests("100m")), "b");
}

#[test]
fn node_selector_and_affinity_bind_to_labels() {
    let snapshot = cluster([node("a", "2", json!({})), node("b", "2", json!({}))]);
    assert_eq!(chosen(&snapshot, json!({"nodeSelector": {"zone": "b"}})), "b");
    let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["b"]}]}]}}}});
    assert_eq!(chosen(&snapshot, affinity), "a");
}

#[test]
fn taints_keep_out_and_tolerations_let_in() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let snapshot = cluster([node("a", "2", tainted)]);
    assert_eq!(
        chosen(&snapshot, json!({})),
        "0/1 nodes are available: 1 node(s) had untolerated taint(s). preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    assert_eq!(chosen(&snapshot, json!({"tolerations": [{"key": "k", "operator": "Exists"}]})), "a");
}

#[test]
fn every_node_has_its_reason() {
    let mut snapshot = cluster([
        node("a", "1", json!({})),
        node("b", "2", json!({"spec": {"unschedulable": true}})),
        node("c", "4", json!({"status": {"allocatable": {"pods": "1"}}})),
    ]);
    snapshot.set_pod(&pod("one", json!({})), "c");
    assert_eq!(
        chosen(&snapshot, requests("2")),
        "0/3 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) were unschedulable. preemption: 0/3 nodes are available: \
         1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    );
}

#[test]
fn an_ended_pod_takes_nothing() {
    let mut snapshot = cluster([node("a", "1", json!({}))]);
    let running = pod("p1", requests("1"));
    snapshot.set_pod(&running, "a");
    assert!(chosen(&snapshot, requests("1")).starts_with("0/1"));
    let mut ended = (*running).clone();
    ended.status = Some(serde_json::from_value(json!({"phase": "Succeeded"})).unwrap());
    snapshot.set_pod(&Arc::new(ended), "a");
    assert_eq!(chosen(&snapshot, requests("1")), "a");
}

#[test]
fn host_ports_clash_only_on_the_same_address() {
    let with_port = |ip: &str| json!({"containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": "TCP"}]}]});
    let mut snapshot = cluster([node("a", "2", json!({}))]);
    snapshot.set_pod(&pod("one", with_port("10.0.0.1")), "a");
    assert_eq!(chosen(&snapshot, with_port("10.0.0.2")), "a");
    assert!(chosen(&snapshot, with_port("")).contains("free ports"));
}

#[test]
fn the_node_with_the_image_wins() {
    let with_image = json!({"status": {"images": [{"names": ["i:1"], "sizeBytes": 900_000_000}]}});
    let snapshot = cluster([node("a", "2", json!({})), node("b", "2", with_image)]);
    assert_eq!(chosen(&snapshot, json!({})), "b");
}

#[test]
fn pods_that_came_before_their_node_count_on_it() {
    let mut snapshot = cluster([]);
    snapshot.set_pod(&pod("early", requests("1")), "a");
    snapshot.set_node(node("a", "1", json!({})));
    assert!(chosen(&snapshot, requests("500m")).contains("Insufficient cpu"));
}

#[test]
fn gates_are_not_tried() {
    let gated = pod("p", json!({"schedulingGates": [{"name": "wait"}]}));
    assert_eq!(decide(&PodView::new(gated), &cluster([]), 0), Decision::Gated { gates: vec!["wait".to_owned()] });
}

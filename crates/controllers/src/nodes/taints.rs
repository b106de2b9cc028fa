//! The taints that a node's conditions ask for: a node -> its taints, if they have to change.
//!
//! Invariant: only the taints named here are added or removed; all others, and the times of those that stay, are kept.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use semantics::taints::{NO_EXECUTE, NO_SCHEDULE};

use super::condition;
use crate::times::whole_seconds;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, its status, and the NoSchedule taint that it asks for.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// All taints that the node should have; none if it has them. `may_evict` allows NoExecute.
pub(super) fn derive_taints(node: &Node, may_evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let wanted = wanted_taints(node, may_evict);
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect);
    let mut taints: Vec<Taint> = current.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let time_added = Some(Time(whole_seconds(now)));
            taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
        }
    }
    (taints != current).then_some(taints)
}

fn wanted_taints(node: &Node, may_evict: bool) -> Vec<(&'static str, &'static str)> {
    let holds = |(type_, status, _): &&(&str, &str, &str)| {
        condition(node, type_).map(|condition| condition.status.as_str()) == Some(*status)
    };
    let keys = BY_CONDITION.iter().filter(holds).map(|(_, _, key)| *key);
    let mut wanted: Vec<_> = keys.map(|key| (key, NO_SCHEDULE)).collect();
    let lost = wanted.iter().find(|(key, _)| [NOT_READY, UNREACHABLE].contains(key)).map(|(key, _)| *key);
    wanted.extend(lost.filter(|_| may_evict).map(|key| (key, NO_EXECUTE)));
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

/// Whether the taint is one of those that conditions govern.
fn is_ours(taint: &Taint) -> bool {
    let by_condition = BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key) || taint.key == UNSCHEDULABLE;
    match taint.effect.as_str() {
        NO_SCHEDULE => by_condition,
        NO_EXECUTE => [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn check(node: Value, may_evict: bool, expect: Option<&[&str]>) {
        let node: Node = from_value(node).unwrap();
        let found = derive_taints(&node, may_evict, "2026-01-01T00:00:00Z".parse().unwrap());
        let found = found
            .map(|taints| taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect::<Vec<_>>());
        let found: Option<Vec<&str>> = found.as_ref().map(|found| found.iter().map(String::as_str).collect());
        assert_eq!(found.as_deref(), expect);
    }

    #[test]
    fn conditions_ask_for_taints_and_foreign_taints_stay() {
        let mine = json!({ "key": "mine", "effect": "NoSchedule" });
        let node = |ready: &str, taints: Value| json!({ "spec": { "taints": taints }, "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
        check(node("True", json!([mine])), true, None);
        check(
            node("Unknown", json!([mine])),
            true,
            Some(&[
                "mine:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
            ]),
        );
        check(node("False", json!([])), false, Some(&["node.kubernetes.io/not-ready:NoSchedule"]));
        let lost = json!([{ "key": UNREACHABLE, "effect": "NoExecute" }, mine]);
        check(node("True", lost), true, Some(&["mine:NoSchedule"]));
        check(
            json!({ "spec": { "unschedulable": true } }),
            true,
            Some(&["node.kubernetes.io/unschedulable:NoSchedule"]),
        );
    }
}

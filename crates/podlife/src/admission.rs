//! The node's last look at a pod before it starts anything. Input: the pod, the node's labels and allocatable, the
//! requests of the pods already admitted. Output: fine, or the verdict that makes it Failed.
//!
//! Invariant: the scheduler's rules, so that a pod bound by hand or by a stale decision cannot overcommit the node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use semantics::node_selector::{NodeFacts, matches_pod_requirements};

use crate::memory::Verdict;
use crate::resources::pod_requests;
use crate::spec::pod_spec;

/// What is left to compare with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory_bytes: i64,
    pub max_pods: u32,
    /// Of pods admitted and not ended.
    pub used_cpu_milli: i64,
    pub used_memory_bytes: i64,
    pub used_pods: u32,
}

/// `Err` carries reason and message as upstream words them.
pub fn decide_admission(pod: &Pod, node: &NodeView) -> Result<(), Verdict> {
    let spec = pod_spec(pod);
    let facts = NodeFacts { name: &node.name, labels: &node.labels };
    if !matches_pod_requirements(spec.node_selector.as_ref(), spec.affinity.as_ref(), facts) {
        return Err(Verdict {
            reason: "NodeAffinity".to_owned(),
            message:
                "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
                    .to_owned(),
        });
    }
    let (cpu, memory) = pod_requests(pod);
    let lacks = [
        ("pods", 1, i64::from(node.used_pods), i64::from(node.max_pods)),
        ("cpu", cpu, node.used_cpu_milli, node.allocatable_cpu_milli),
        ("memory", memory, node.used_memory_bytes, node.allocatable_memory_bytes),
    ];
    for (name, requested, used, capacity) in lacks {
        if requested > 0 && used.saturating_add(requested) > capacity {
            return Err(Verdict {
                reason: format!("OutOf{name}"),
                message: format!(
                    "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_refuses() {
        let mut node = NodeView { max_pods: 1, used_pods: 1, ..NodeView::default() };
        let refused = decide_admission(&Pod::default(), &node).unwrap_err();
        assert_eq!(refused.reason, "OutOfpods");
        node.used_pods = 0;
        assert_eq!(decide_admission(&Pod::default(), &node), Ok(()));
    }

    #[test]
    fn a_selector_must_match() {
        let spec = k8s_openapi::api::core::v1::PodSpec {
            node_selector: Some(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())])),
            ..Default::default()
        };
        let pod = Pod { spec: Some(spec), ..Default::default() };
        let mut node = NodeView { max_pods: 9, ..NodeView::default() };
        assert_eq!(decide_admission(&pod, &node).unwrap_err().reason, "NodeAffinity");
        node.labels.insert("disk".to_owned(), "ssd".to_owned());
        assert_eq!(decide_admission(&pod, &node), Ok(()));
    }
}

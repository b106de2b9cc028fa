//! NodeResourcesFit: filters by free resources, scores by LeastAllocated over cpu and memory.

use semantics::node_fit::find_shortages;

use crate::plugin::{Plugin, SCORE_MAX, Verdict};
use crate::snapshot::{NodeView, PodView, nonzero_requests};

pub struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
        let shortages = find_shortages(&pod.requests, &node.allocatable, &node.requested, pods);
        if shortages.is_empty() {
            return Verdict::Fits;
        }
        let reason =
            |name: &str| if name == "pods" { "Too many pods".to_owned() } else { format!("Insufficient {name}") };
        Verdict::Unschedulable(shortages.iter().map(|shortage| reason(&shortage.resource)).collect())
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodView, nodes: &[&NodeView], _total_nodes: usize) -> Vec<i64> {
        let wanted = nonzero_requests(pod);
        nodes.iter().map(|node| (free_share(node, &wanted, "cpu") + free_share(node, &wanted, "memory")) / 2).collect()
    }
}

fn allocatable(node: &NodeView, name: &str) -> i64 {
    node.allocatable.get(name).copied().unwrap_or(0)
}

/// The share of `name` that stays free with the Pod on the node, in 0..=SCORE_MAX.
fn free_share(node: &NodeView, wanted: &crate::snapshot::Resources, name: &str) -> i64 {
    let (capacity, after) = super::fit::load_after(node, wanted, name);
    if capacity == 0 || after > capacity { 0 } else { (capacity - after) * SCORE_MAX / capacity }
}

/// (allocatable, requested with the Pod on the node) of one resource.
pub fn load_after(node: &NodeView, wanted: &crate::snapshot::Resources, name: &str) -> (i64, i64) {
    let requested = node.requested_nonzero.get(name).copied().unwrap_or(0);
    (allocatable(node, name), requested + wanted.get(name).copied().unwrap_or(0))
}

//! NodeResourcesFit: filters by free resources, scores by LeastAllocated over cpu and memory.

use crate::plugin::{Plugin, SCORE_MAX, Verdict};
use crate::snapshot::{NodeView, PodView, nonzero_requests};

pub struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        let mut reasons = Vec::new();
        if node.pods.len() as i64 + 1 > allocatable(node, "pods") {
            reasons.push("Too many pods".to_owned());
        }
        for (name, wanted) in &pod.requests {
            let taken = node.requested.get(name).copied().unwrap_or(0);
            if *wanted > 0 && *wanted > allocatable(node, name) - taken {
                reasons.push(format!("Insufficient {name}"));
            }
        }
        if reasons.is_empty() { Verdict::Fits } else { Verdict::Unschedulable(reasons) }
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

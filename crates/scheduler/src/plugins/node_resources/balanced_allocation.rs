//! NodeResourcesBalancedAllocation: prefers nodes whose cpu and memory are used in like proportion, so that neither strands the other.

use super::fit::load_after;
use crate::plugin::{Plugin, SCORE_MAX};
use crate::snapshot::{NodeView, PodView};

pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodView, nodes: &[&NodeView], _total_nodes: usize) -> Vec<i64> {
        // Upstream skips Pods that request nothing: they move no balance.
        if pod.requests.values().all(|n| *n == 0) {
            return vec![0; nodes.len()];
        }
        let fraction = |node: &NodeView, name: &str| {
            let (capacity, after) = load_after(node, &pod.requests, name);
            if capacity == 0 { 1.0 } else { (after as f64 / capacity as f64).min(1.0) }
        };
        let score = |node: &&NodeView| {
            let deviation = ((fraction(node, "cpu") - fraction(node, "memory")) / 2.0).abs();
            ((1.0 - deviation) * SCORE_MAX as f64) as i64
        };
        nodes.iter().map(score).collect()
    }
}

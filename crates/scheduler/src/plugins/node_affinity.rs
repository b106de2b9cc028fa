//! NodeAffinity: `nodeSelector` and required node affinity filter; preferred terms score by the sum of their weights.

use crate::plugin::{Plugin, Verdict, normalize};
use crate::snapshot::{NodeView, PodView};

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        if semantics::node_selector::pod_matches_node(&pod.pod, &node.node) {
            Verdict::Fits
        } else {
            Verdict::Unresolvable("node(s) didn't match Pod's node affinity/selector".to_owned())
        }
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodView, nodes: &[&NodeView], _total_nodes: usize) -> Vec<i64> {
        let affinity = pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
        let preferred =
            affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default();
        let liked = |node: &&NodeView| {
            let matching = preferred.iter().filter(|p| semantics::node_selector::term_matches(&p.preference, &node.node));
            matching.map(|p| i64::from(p.weight)).sum()
        };
        normalize(nodes.iter().map(liked).collect(), false)
    }
}

//! NodeAffinity: `nodeSelector` and required node affinity filter; preferred terms score by the sum of their weights.

use semantics::node_fit::AFFINITY_MISMATCH;
use semantics::node_selector::{matches_pod_requirements, preferred_weight};

use crate::plugin::{Plugin, Verdict, normalize};
use crate::snapshot::{NodeView, PodView};

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        let Some(spec) = &pod.pod.spec else { return Verdict::Fits };
        if matches_pod_requirements(spec.node_selector.as_ref(), spec.affinity.as_ref(), node.facts()) {
            Verdict::Fits
        } else {
            Verdict::Unresolvable(AFFINITY_MISMATCH.to_owned())
        }
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodView, nodes: &[&NodeView], _total_nodes: usize) -> Vec<i64> {
        let affinity = pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
        let preferred = affinity
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default();
        normalize(nodes.iter().map(|node| preferred_weight(preferred, node.facts())).collect(), false)
    }
}

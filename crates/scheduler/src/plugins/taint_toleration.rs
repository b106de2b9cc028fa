//! TaintToleration: filters by NoSchedule and NoExecute taints, prefers nodes with fewer untolerated PreferNoSchedule ones.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::plugin::{Plugin, Verdict, normalize};
use crate::snapshot::{NodeView, PodView};

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        let tolerations = tolerations(pod);
        let untolerated =
            semantics::taints::find_untolerated(taints(node), tolerations, semantics::taints::blocks_scheduling);
        match untolerated {
            None => Verdict::Fits,
            Some(_) => Verdict::Unresolvable("node(s) had untolerated taint(s)".to_owned()),
        }
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &PodView, nodes: &[&NodeView], _total_nodes: usize) -> Vec<i64> {
        let tolerations = tolerations(pod);
        let disliked = |node: &&NodeView| {
            let unliked = taints(node)
                .iter()
                .filter(|t| t.effect == "PreferNoSchedule" && !semantics::taints::is_tolerated(tolerations, t));
            unliked.count() as i64
        };
        normalize(nodes.iter().map(disliked).collect(), true)
    }
}

fn tolerations(pod: &PodView) -> &[Toleration] {
    pod.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

fn taints(node: &NodeView) -> &[Taint] {
    node.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

//! NodeUnschedulable: a cordoned node takes only Pods that tolerate `node.kubernetes.io/unschedulable:NoSchedule`.

use k8s_openapi::api::core::v1::Taint;

use crate::plugin::{Plugin, Verdict};
use crate::snapshot::{NodeView, PodView};

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        if !node.node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false) {
            return Verdict::Fits;
        }
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        let tolerations = pod.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        if semantics::taints::is_tolerated(tolerations, &taint) {
            Verdict::Fits
        } else {
            Verdict::Unresolvable("node(s) were unschedulable".to_owned())
        }
    }
}

//! NodeName: `spec.nodeName`, if set, is the only node that fits.

use semantics::node_fit::NAME_MISMATCH;

use crate::plugin::{Plugin, Verdict};
use crate::snapshot::{NodeView, PodView};

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        match pod.pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) {
            Some(name) if !name.is_empty() && name != node.name() => Verdict::Unresolvable(NAME_MISMATCH.to_owned()),
            _ => Verdict::Fits,
        }
    }
}

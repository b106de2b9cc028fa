//! NodePorts: two Pods can't claim the same host port on one node.

use semantics::node_fit::PORTS_TAKEN;

use crate::plugin::{Plugin, Verdict};
use crate::snapshot::{NodeView, PodView};

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        if pod.host_ports.is_empty() {
            return Verdict::Fits;
        }
        let mut taken = node.pods.values().flat_map(|p| &p.host_ports);
        if taken.any(|taken| pod.host_ports.iter().any(|wanted| wanted.clashes(taken))) {
            Verdict::Unschedulable(vec![PORTS_TAKEN.to_owned()])
        } else {
            Verdict::Fits
        }
    }
}

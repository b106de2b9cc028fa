//! NodePorts: two Pods can't claim the same host port on one node.

use crate::plugin::{Plugin, Verdict};
use crate::snapshot::{HostPort, NodeView, PodView};

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodView, node: &NodeView) -> Verdict {
        if pod.host_ports.is_empty() {
            return Verdict::Fits;
        }
        let taken = node.pods.values().flat_map(|p| &p.host_ports);
        let clash = taken.into_iter().any(|t| pod.host_ports.iter().any(|wanted| clashes(wanted, t)));
        if clash {
            Verdict::Unschedulable(vec!["node(s) didn't have free ports for the requested pod ports".to_owned()])
        } else {
            Verdict::Fits
        }
    }
}

fn clashes(a: &HostPort, b: &HostPort) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || any(&a.1) || any(&b.1))
}

//! Addresses for pods: nodes without a pod CIDR -> a free /24 each of the cluster's range.
//!
//! Invariant: no two nodes get overlapping ranges: one key stands for the whole cluster, one worker plans it, and it is
//! not planned again before its own writes are seen. A node's range never changes. IPv4 only.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;
use reconcile::{Controller, Event, Input, Key, Plan, Watches, Write};
use serde_json::json;

/// The cluster's pod range, and the length of each node's part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CidrRange {
    base: u32,
    prefix: u8,
    node_prefix: u8,
}

impl CidrRange {
    /// `10.42.0.0/16` and 24, say. None if the text is no IPv4 range, or nodes' parts would be larger than the whole.
    pub fn parse(text: &str, node_prefix: u8) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix: u8 = prefix.parse().ok()?;
        let address: Ipv4Addr = address.parse().ok()?;
        let fits = prefix > 0 && prefix <= node_prefix && node_prefix <= 32;
        fits.then(|| Self { base: u32::from(address) & (u32::MAX << (32 - prefix)), prefix, node_prefix })
    }

    fn count(&self) -> u64 {
        1 << (self.node_prefix - self.prefix)
    }

    fn part(&self, index: u64) -> (u32, u8) {
        let offset = index << (32 - self.node_prefix);
        (self.base.wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX)), self.node_prefix)
    }
}

/// The controller.
#[derive(Debug)]
pub struct NodeCidrController {
    range: CidrRange,
}

impl NodeCidrController {
    pub fn new(range: CidrRange) -> Self {
        Self { range }
    }
}

impl Controller for NodeCidrController {
    type Memory = ();

    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn workers(&self) -> usize {
        1
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Node>(|_, _| vec![Key::cluster("nodes")]);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let mut plan = Plan::empty();
        let nodes = input.view.list::<Node>();
        let mut used: Vec<(u32, u8)> = nodes.iter().filter_map(|node| parse_range(pod_cidr(node)?)).collect();
        let mut free = (0..self.range.count()).map(|index| self.range.part(index));
        let waiting =
            nodes.iter().filter(|node| pod_cidr(node).is_none() && node.metadata.deletion_timestamp.is_none());
        let mut seen = BTreeSet::new();
        for node in waiting {
            let part =
                free.by_ref().find(|part| !used.iter().any(|taken| overlap(*taken, *part)) && seen.insert(*part));
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let Some((base, prefix)) = part else {
                plan.events.push(Event::normal(
                    &**node,
                    "CIDRNotAvailable",
                    format!("Node {name} status is now: CIDRNotAvailable"),
                ));
                plan.wait("CIDRNotAvailable", name);
                continue;
            };
            used.push((base, prefix));
            let cidr = format!("{}/{prefix}", Ipv4Addr::from(base));
            let body = json!({
                "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
                "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
            });
            plan.writes.push(Write::merge_patch::<Node>(Key::cluster(name), body));
        }
        plan
    }
}

fn pod_cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|cidr| !cidr.is_empty())
}

fn parse_range(text: &str) -> Option<(u32, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    Some((u32::from(address), prefix.parse().ok().filter(|prefix| *prefix <= 32)?))
}

fn overlap((a, a_prefix): (u32, u8), (b, b_prefix): (u32, u8)) -> bool {
    let shared = a_prefix.min(b_prefix);
    shared == 0 || (a ^ b) >> (32 - shared) == 0
}

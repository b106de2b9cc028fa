//! Whether a node has room for a pod: resources and host ports. The scheduler asks before it binds, the node before it starts.
//!
//! Input: what a pod wants, what a node has and what the pods on it hold. Output: what is missing. Labels are `node_selector`'s
//! business, taints are `taints`'.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::is_sidecar;
use crate::resources::Amounts;

/// Why a node is no place for a pod, as upstream words it.
pub const AFFINITY_MISMATCH: &str = "node(s) didn't match Pod's node affinity/selector";
pub const NAME_MISMATCH: &str = "node(s) didn't match the requested node name";
pub const PORTS_TAKEN: &str = "node(s) didn't have free ports for the requested pod ports";

/// Amounts by resource name: `cpu` in milli-cores, everything else in units (bytes, counts).
pub type WholeAmounts = BTreeMap<String, i64>;

/// Rounded up to what nodes count in.
pub fn whole_amounts(amounts: &Amounts) -> WholeAmounts {
    let amount = |name: &str| if name == "cpu" { amounts.milli(name) } else { amounts.whole(name) };
    amounts.iter().map(|(name, _)| (name.to_owned(), amount(name))).collect()
}

/// A resource of which a node has too little left, in the units of [`WholeAmounts`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    pub resource: String,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

/// What is short if one more pod, with these `requests`, comes to a node that holds `pods` pods with `used` in all: the number
/// of pods first, then cpu, memory and ephemeral storage, then the rest by name.
pub fn find_shortages(
    requests: &WholeAmounts,
    allocatable: &WholeAmounts,
    used: &WholeAmounts,
    pods: i64,
) -> Vec<Shortage> {
    let amount = |of: &WholeAmounts, name: &str| of.get(name).copied().unwrap_or(0);
    let shortage = |name: &str, requested: i64, used: i64| {
        let capacity = amount(allocatable, name);
        let short = requested > 0 && used.saturating_add(requested) > capacity;
        short.then(|| Shortage { resource: name.to_owned(), requested, used, capacity })
    };
    let mut found: Vec<Shortage> =
        requests.iter().filter_map(|(name, requested)| shortage(name, *requested, amount(used, name))).collect();
    found.extend(shortage("pods", 1, pods));
    found.sort_by_key(|shortage| rank(&shortage.resource));
    found
}

fn rank(resource: &str) -> usize {
    const FIRST: [&str; 4] = ["pods", "cpu", "memory", "ephemeral-storage"];
    FIRST.iter().position(|name| *name == resource).unwrap_or(FIRST.len())
}

/// A port of a node that a pod claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub protocol: String,
    /// Empty, `0.0.0.0` and `::` claim the port on all addresses.
    pub ip: String,
    pub port: i32,
}

impl HostPort {
    /// True if two pods on one node can't have both.
    pub fn clashes(&self, other: &Self) -> bool {
        let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.protocol == other.protocol
            && self.port == other.port
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// The ports of the node that a pod's containers and sidecars claim.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(HostPort {
                port: port.host_port.filter(|port| *port > 0)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn shortages_come_in_upstreams_order() {
        let amounts =
            |pairs: &[(&str, i64)]| pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<WholeAmounts>();
        let requests = amounts(&[("cpu", 600), ("example.com/gpu", 1), ("memory", 10), ("zero", 0)]);
        let allocatable = amounts(&[("cpu", 1000), ("memory", 10), ("pods", 3)]);
        let used = amounts(&[("cpu", 500)]);
        let short = |pods| {
            let found = find_shortages(&requests, &allocatable, &used, pods);
            found.into_iter().map(|s| (s.resource, s.requested, s.used, s.capacity)).collect::<Vec<_>>()
        };
        let (cpu, gpu) = (("cpu".to_owned(), 600, 500, 1000), ("example.com/gpu".to_owned(), 1, 0, 0));
        assert_eq!(short(2), [cpu.clone(), gpu.clone()]);
        assert_eq!(short(3), [("pods".to_owned(), 1, 3, 3), cpu, gpu]);
    }

    #[test]
    fn ports_clash_on_the_same_address_and_protocol() {
        let check = |a: (&str, &str, i32), b: (&str, &str, i32), expect: bool| {
            let port =
                |(protocol, ip, port): (&str, &str, i32)| HostPort { protocol: protocol.into(), ip: ip.into(), port };
            assert_eq!(port(a).clashes(&port(b)), expect, "{a:?} {b:?}");
            assert_eq!(port(b).clashes(&port(a)), expect, "{b:?} {a:?}");
        };
        check(("TCP", "", 80), ("TCP", "10.0.0.1", 80), true);
        check(("TCP", "0.0.0.0", 80), ("TCP", "::", 80), true);
        check(("TCP", "10.0.0.1", 80), ("TCP", "10.0.0.1", 80), true);
        check(("TCP", "10.0.0.1", 80), ("TCP", "10.0.0.2", 80), false);
        check(("TCP", "", 80), ("UDP", "", 80), false);
        check(("TCP", "", 80), ("TCP", "", 81), false);
    }

    #[test]
    fn sidecars_claim_ports_and_other_init_containers_do_not() {
        let container =
            |name: &str, port: i32| json!({"name": name, "ports": [{"containerPort": 1, "hostPort": port}]});
        let mut sidecar = container("s", 2);
        sidecar["restartPolicy"] = json!("Always");
        let pod: Pod = from_value(json!({"spec": {
            "containers": [container("c", 1), {"name": "d", "ports": [{"containerPort": 9}]}],
            "initContainers": [sidecar, container("i", 3)]}}))
        .unwrap();
        assert_eq!(host_ports(&pod).iter().map(|p| p.port).collect::<Vec<_>>(), [1, 2]);
    }
}

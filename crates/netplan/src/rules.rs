//! One Service's part of the proxy rules: Service and its EndpointSlices in, nftables elements and chains out.
//!
//! Invariant: [`derive_rules`] depends on nothing but its arguments; with unchanged backends it gives the same slots, so
//! the difference to before is as small as the change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::element::{Clients, Element, Family, Frontend, MARK, Protocol, Value};
use crate::endpoints::{Backends, select_backends};
use crate::node::NodeView;

/// Another proxy than the node's own cares for a Service with this label.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// A Service with this label is headless, whatever addresses it has.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// The older way to write `spec.loadBalancerSourceRanges`, separated by commas.
const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// How long a client sticks to its backend when the Service does not say.
const AFFINITY_SECONDS: i32 = 10_800;

/// A chain or set that belongs to one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// Rules in order.
    Chain(Family, Vec<String>),
    /// Its declaration.
    Set(Family, String),
}

/// Which backend has which number, by (port, local only, family). Kept from one derivation to the next.
pub type Slots = BTreeMap<(String, bool, Family), Vec<SocketAddr>>;

/// One Service's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceRules {
    pub elements: BTreeMap<Element, Value>,
    pub objects: BTreeMap<String, Object>,
    pub slots: Slots,
    /// Where each UDP frontend leads, for the clean-up of tracked flows.
    pub udp: BTreeMap<Frontend, BTreeSet<SocketAddr>>,
}

/// Derives the rules of `service`, whose key is `name` (`namespace/name`). `previous` are the slots of the last time.
pub fn derive_rules(
    name: &str,
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    node: &NodeView,
    previous: &Slots,
) -> ServiceRules {
    let mut rules = ServiceRules::default();
    let Some(spec) = &service.spec else { return rules };
    let is_labelled = |label| service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
    if spec.type_.as_deref() == Some("ExternalName") || is_labelled(PROXY_NAME_LABEL) || is_labelled(HEADLESS_LABEL) {
        return rules;
    }
    let addresses = Addresses::of(service, spec, node);
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
        for family in addresses.families() {
            let mut planner = PortPlanner { name, spec, node, port, protocol, family, previous, rules: &mut rules };
            planner.plan(&addresses, slices);
        }
    }
    rules
}

/// The addresses that lead to a Service.
struct Addresses {
    cluster: Vec<IpAddr>,
    /// External and balancer addresses.
    external: Vec<IpAddr>,
    /// The balancer addresses, if only some sources may use them.
    guarded: Vec<IpAddr>,
    /// The prefixes that may, as written.
    sources: Vec<String>,
}

impl Addresses {
    fn of(service: &Service, spec: &ServiceSpec, node: &NodeView) -> Self {
        let parse = |text: &String| text.parse::<IpAddr>().ok();
        let ours = |address: &IpAddr| node.local_address.map(IpAddr::V4) == Some(*address);
        let listed = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.as_ref());
        let mut cluster: Vec<IpAddr> = listed.filter_map(parse).filter(|address| !ours(address)).collect();
        cluster.dedup();
        let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
        let balancer: Vec<IpAddr> = ingress
            .flat_map(|status| status.ingress.iter().flatten())
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.as_ref().and_then(parse))
            .collect();
        let external: BTreeSet<IpAddr> =
            spec.external_ips.iter().flatten().filter_map(parse).chain(balancer.iter().copied()).collect();
        let sources = source_ranges(service, spec);
        let guarded = if sources.is_empty() { Vec::new() } else { balancer };
        cluster.sort_unstable();
        cluster.dedup();
        Self { cluster, external: external.into_iter().collect(), guarded, sources }
    }

    /// The families that the Service has; a headless one has no cluster address and hence none.
    fn families(&self) -> BTreeSet<Family> {
        self.cluster.iter().map(|address| Family::of(*address)).collect()
    }
}

/// The prefixes that may use the balancer's addresses; empty for everyone. What is no prefix is left out, but a list of
/// nothing else lets nobody in, as its author would rather have it.
fn source_ranges(service: &Service, spec: &ServiceSpec) -> Vec<String> {
    let annotated = service.metadata.annotations.as_ref().and_then(|all| all.get(SOURCE_RANGES_ANNOTATION));
    match (&spec.load_balancer_source_ranges, annotated) {
        (Some(ranges), _) if !ranges.is_empty() => ranges.iter().map(|range| range.trim().to_owned()).collect(),
        (_, Some(text)) if !text.trim().is_empty() => text.split(',').map(|range| range.trim().to_owned()).collect(),
        _ => Vec::new(),
    }
}

/// Whether `text` is a prefix of the family, hence safe to put into a rule.
fn is_prefix(text: &str, family: Family) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    match (address.parse::<IpAddr>(), length.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(0..=32)) => family == Family::V4,
        (Ok(IpAddr::V6(_)), Ok(0..=128)) => family == Family::V6,
        _ => false,
    }
}

struct PortPlanner<'a> {
    name: &'a str,
    spec: &'a ServiceSpec,
    node: &'a NodeView,
    port: &'a ServicePort,
    protocol: Protocol,
    family: Family,
    previous: &'a Slots,
    rules: &'a mut ServiceRules,
}

impl PortPlanner<'_> {
    fn plan(&mut self, addresses: &Addresses, slices: &[Arc<EndpointSlice>]) {
        let port_name = self.port.name.as_deref().unwrap_or("");
        let Backends { all, local } = select_backends(slices, self.family, port_name, self.protocol, self.node);
        let inside_local = self.spec.internal_traffic_policy.as_deref() == Some("Local");
        let outside_local = self.spec.external_traffic_policy.as_deref() == Some("Local");
        let number = u16::try_from(self.port.port).unwrap_or_default();
        self.plan_hairpins(&local);

        for address in self.of_family(&addresses.cluster) {
            let frontend = self.frontend(Some(address), number);
            if inside_local && local.is_empty() && !all.is_empty() {
                self.rules.elements.insert(Element::Dispatch(Clients::Everyone, frontend), Value::Drop);
            } else {
                let backends = if inside_local { &local } else { &all };
                self.plan_frontend(Clients::Everyone, frontend, backends, inside_local);
            }
        }
        for address in self.of_family(&addresses.guarded) {
            let chain = self.plan_guard(&addresses.sources);
            self.rules.elements.insert(Element::Guard(self.frontend(Some(address), number)), Value::Jump(chain));
        }
        let mut external: Vec<Frontend> = self
            .of_family(&addresses.external)
            .into_iter()
            .map(|address| self.frontend(Some(address), number))
            .collect();
        if let Some(node_port) = self.port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
        {
            external.push(self.frontend(None, node_port));
        }
        for frontend in external {
            self.plan_frontend(Clients::Everyone, frontend, &all, false);
            if all.is_empty() {
                if frontend.address.is_some() {
                    self.rules.elements.insert(Element::Refuse(frontend), Value::Reject);
                }
            } else if outside_local && local.is_empty() {
                self.rules.elements.insert(Element::Dispatch(Clients::Outside, frontend), Value::Drop);
            } else if outside_local {
                self.plan_frontend(Clients::Outside, frontend, &local, true);
            }
        }
    }

    /// Traffic of a Pod that comes back to itself must not keep its own address as the source.
    fn plan_hairpins(&mut self, local: &BTreeSet<SocketAddr>) {
        let pods = local.iter().filter(|backend| match backend.ip() {
            IpAddr::V4(address) => self.node.pod_cidr.contains(address),
            IpAddr::V6(_) => true,
        });
        self.rules.elements.extend(pods.map(|backend| (Element::Hairpin(backend.ip()), Value::Member)));
    }

    /// A chain that lets only `sources` (and the node itself) pass.
    fn plan_guard(&mut self, sources: &[String]) -> String {
        let family = self.family.name();
        let allowed: Vec<&str> =
            sources.iter().map(String::as_str).filter(|range| is_prefix(range, self.family)).collect();
        let chain = format!("allow_{:016x}", fnv(&format!("{}/{family}", self.name)));
        let mut rules = vec!["fib saddr type local return".to_owned()];
        rules.extend(allowed.iter().map(|range| format!("{family} saddr {range} return")));
        rules.push("drop".to_owned());
        self.rules.objects.insert(chain.clone(), Object::Chain(self.family, rules));
        chain
    }

    fn plan_frontend(&mut self, clients: Clients, frontend: Frontend, backends: &BTreeSet<SocketAddr>, local: bool) {
        if backends.is_empty() {
            return;
        }
        if self.protocol == Protocol::Udp {
            self.rules.udp.entry(frontend).or_default().extend(backends);
        }
        let key = (self.port_key(), local, self.family);
        let dispatch = Element::Dispatch(clients, frontend);
        if self.spec.session_affinity.as_deref() == Some("ClientIP") {
            let chain = self.plan_sticky(backends, local);
            self.rules.elements.insert(dispatch, Value::Chain(chain));
            return;
        }
        let empty = Vec::new();
        let slots = assign_slots(self.previous.get(&key).unwrap_or(&empty), backends);
        self.rules.elements.insert(dispatch, Value::Pick(slots.len() as u32));
        for (slot, backend) in slots.iter().enumerate() {
            let element = Element::Backend(clients, frontend, slot as u32);
            self.rules.elements.insert(element, Value::Backend(*backend));
        }
        self.rules.slots.insert(key, slots);
    }

    /// Chains and sets for `sessionAffinity: ClientIP`: a set of the clients seen for each backend. They are the Service's
    /// own, since what a set remembers must go when its backend goes.
    fn plan_sticky(&mut self, backends: &BTreeSet<SocketAddr>, local: bool) -> String {
        let (family, protocol) = (self.family.name(), self.protocol.name());
        let timeout = self
            .spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .unwrap_or(AFFINITY_SECONDS);
        let base = format!("{}/{}/{local}/{family}", self.name, self.port_key());
        let chain = format!("sticky_{:016x}", fnv(&base));
        let (mut remembered, mut choices) = (Vec::new(), Vec::new());
        for (index, backend) in backends.iter().enumerate() {
            let id = format!("{:016x}", fnv(&format!("{base}/{backend}/{timeout}")));
            let (set, to) = (format!("seen_{id}"), format!("to_{id}"));
            let declaration = format!(
                "type {}_addr; flags dynamic,timeout; timeout {timeout}s; size 65535;",
                address_word(self.family)
            );
            self.rules.objects.insert(set.clone(), Object::Set(self.family, declaration));
            let translate = vec![
                format!("update @{set} {{ {family} saddr }}"),
                format!("meta l4proto {protocol} meta mark set meta mark or {MARK} dnat {family} to {backend}"),
            ];
            self.rules.objects.insert(to.clone(), Object::Chain(self.family, translate));
            remembered.push(format!("{family} saddr @{set} goto {to}"));
            choices.push(format!("{index} : goto {to}"));
        }
        remembered.push(format!("numgen random mod {} vmap {{ {} }}", choices.len(), choices.join(", ")));
        self.rules.objects.insert(chain.clone(), Object::Chain(self.family, remembered));
        chain
    }

    fn port_key(&self) -> String {
        format!("{}/{}", self.protocol.name(), self.port.port)
    }

    fn frontend(&self, address: Option<IpAddr>, port: u16) -> Frontend {
        Frontend { family: self.family, address, protocol: self.protocol, port }
    }

    fn of_family(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        addresses.iter().copied().filter(|address| Family::of(*address) == self.family).collect()
    }
}

/// Numbers the wanted backends 0..n so that as few as possible change their number: who stays below n keeps it, gaps are
/// filled by newcomers and then by those from beyond the end.
pub fn assign_slots(previous: &[SocketAddr], wanted: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
    let kept: Vec<Option<SocketAddr>> =
        (0..wanted.len()).map(|slot| previous.get(slot).copied().filter(|backend| wanted.contains(backend))).collect();
    let placed: BTreeSet<SocketAddr> = kept.iter().flatten().copied().collect();
    let mut rest = wanted.iter().copied().filter(|backend| !placed.contains(backend));
    kept.into_iter().filter_map(|slot| slot.or_else(|| rest.next())).collect()
}

fn address_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// 64-bit FNV-1a: names that stay the same from run to run.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

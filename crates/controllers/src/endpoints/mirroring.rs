//! EndpointSlices of Endpoints that somebody made by hand: Endpoints of a Service without a selector -> slices that show the
//! same, so that readers need to know slices only.
//!
//! Invariants: one slice for each family and set of ports, with at most 1,000 endpoints; the Endpoints' labels and
//! annotations are the slice's; touches only slices that carry its label. Endpoints that say so, or that hold an election,
//! are not mirrored. The Endpoints own the slices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Controller, Event, Input, Key, Plan, View, Watches, Write, owner_reference};

use super::Family;
use super::legacy::PortKey;
use super::slices::{Group, MANAGED_BY, SERVICE_NAME, group_of, service_of, sort_ports};
use crate::labels::Labels;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// On Endpoints that are the lock of an election of old.
const ELECTION: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints themselves.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Upstream's default.
const ENDPOINTS_MAX: usize = 1000;

/// The controller. Its keys are Endpoints.
#[derive(Debug, Default)]
pub struct EndpointSliceMirroringController;

impl Controller for EndpointSliceMirroringController {
    type Memory = ();

    fn name(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Endpoints>(reconcile::controller::own_key);
        watches.watch::<EndpointSlice>(slice_keys);
        watches.watch::<Service>(reconcile::controller::own_key);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let mut plan = Plan::empty();
        if input.failure.is_some() {
            return plan;
        }
        let mut mirrors = input.view.list_in::<EndpointSlice>(&input.key.namespace);
        mirrors.retain(|slice| {
            slice.metadata.deletion_timestamp.is_none() && service_of(slice, MANAGER).as_ref() == Some(input.key)
        });
        match mirrored(input) {
            Some(endpoints) => plan_mirrors(&endpoints, mirrors, &mut plan),
            None => plan.writes.extend(mirrors.iter().map(|slice| Write::delete(&**slice))),
        }
        plan
    }
}

fn slice_keys(slice: &EndpointSlice, _: &View) -> Vec<Key> {
    service_of(slice, MANAGER).into_iter().collect()
}

/// The Endpoints of the key, if they are to be mirrored.
fn mirrored(input: &Input<'_>) -> Option<Arc<Endpoints>> {
    let endpoints = input.view.get_key::<Endpoints>(input.key)?;
    let service = input.view.get_key::<Service>(input.key)?;
    let has_selector = service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
    let meta = &endpoints.metadata;
    let skips = meta.labels.as_ref().and_then(|labels| labels.get(SKIP)).is_some_and(|skip| skip == "true");
    let elects = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ELECTION));
    (!has_selector && !skips && !elects).then_some(endpoints)
}

fn plan_mirrors(endpoints: &Endpoints, mirrors: Vec<Arc<EndpointSlice>>, plan: &mut Plan) {
    let (groups, skipped) = derive_groups(endpoints);
    let mut spare = mirrors;
    let mut missing = Vec::new();
    for (group, content) in groups {
        match spare.iter().position(|slice| group_of(slice).as_ref() == Some(&group)) {
            Some(at) => plan_replacement(endpoints, &spare.remove(at), &group, content, plan),
            None => missing.push((group, content)),
        }
    }
    for (group, content) in missing {
        // A slice whose ports nobody has any more may take others; its family is for ever.
        match spare.iter().position(|slice| slice.address_type == group.family) {
            Some(at) => plan_replacement(endpoints, &spare.remove(at), &group, content, plan),
            None if endpoints.metadata.deletion_timestamp.is_none() => {
                plan.writes.push(Write::create(&derive_slice(endpoints, &group, content)));
            }
            None => {}
        }
    }
    plan.writes.extend(spare.iter().map(|slice| Write::delete(&**slice)));
    if !plan.writes.is_empty() {
        plan.events.extend(skipped.events(endpoints));
    }
}

/// Brings an existing slice to the wanted state, if it is in another.
fn plan_replacement(
    endpoints: &Endpoints,
    slice: &EndpointSlice,
    group: &Group,
    content: Vec<Endpoint>,
    plan: &mut Plan,
) {
    let wanted = derive_slice(endpoints, group, content);
    let mut next = slice.clone();
    next.endpoints = wanted.endpoints;
    if group_of(slice).as_ref() != Some(group) {
        next.ports = wanted.ports;
    }
    next.metadata.labels = wanted.metadata.labels;
    next.metadata.annotations = wanted.metadata.annotations;
    next.metadata.owner_references = wanted.metadata.owner_references;
    if next != *slice {
        plan.writes.push(Write::replace(&next));
    }
}

fn derive_slice(endpoints: &Endpoints, group: &Group, content: Vec<Endpoint>) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels: Labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![owner_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: group.family.to_owned(),
        endpoints: Some(content),
        ports: (!group.ports.is_empty()).then(|| group.ports.clone()),
    }
}

/// Addresses that are not mirrored, and why.
#[derive(Debug, Default)]
struct Skipped {
    invalid: usize,
    surplus: usize,
}

impl Skipped {
    fn events(&self, endpoints: &Endpoints) -> Vec<Event> {
        let mut events = Vec::new();
        if self.invalid > 0 {
            let message = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", self.invalid);
            events.push(Event::warning(endpoints, "InvalidIPAddress", message));
        }
        if self.surplus > 0 {
            let skipped = self.invalid + self.surplus;
            let message = format!(
                "A max of {ENDPOINTS_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
            );
            events.push(Event::warning(endpoints, "TooManyAddressesToMirror", message));
        }
        events
    }
}

/// The endpoints by family and ports: what the slices are to hold.
fn derive_groups(endpoints: &Endpoints) -> (Vec<(Group, Vec<Endpoint>)>, Skipped) {
    let mut skipped = Skipped::default();
    let mut groups = Vec::new();
    for (members, ports) in repack(endpoints.subsets.as_deref().unwrap_or_default()) {
        let mut by_family: BTreeMap<Family, Vec<Endpoint>> = BTreeMap::new();
        let mut taken = 0;
        // Ready ones first: they are the last to be left out.
        let (ready, unready): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.ready);
        for member in ready.into_iter().chain(unready) {
            match member.address.ip.parse::<IpAddr>() {
                Err(_) => skipped.invalid += 1,
                Ok(_) if taken == ENDPOINTS_MAX => skipped.surplus += 1,
                Ok(ip) => {
                    taken += 1;
                    by_family.entry(Family::of(&member.address.ip)).or_default().push(derive_endpoint(&member, ip));
                }
            }
        }
        let ports = derive_ports(ports);
        groups.extend(
            by_family
                .into_iter()
                .map(|(family, content)| (Group { family: family.name(), ports: ports.clone() }, content)),
        );
    }
    (groups, skipped)
}

fn derive_endpoint(member: &Member, ip: IpAddr) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(member.ready), serving: None, terminating: None }),
        hostname: member.address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: member.address.node_name.clone(),
        target_ref: member.address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn derive_ports(ports: Vec<PortKey>) -> Vec<EndpointPort> {
    let port = |(name, port, protocol, app_protocol)| EndpointPort {
        name: Some(name),
        port: Some(port),
        protocol: Some(protocol),
        app_protocol,
    };
    let mut ports: Vec<EndpointPort> = ports.into_iter().map(port).collect();
    sort_ports(&mut ports);
    ports
}

/// An address of some subset.
#[derive(Debug, Clone, PartialEq)]
struct Member {
    ready: bool,
    address: EndpointAddress,
}

/// Addresses by IP and the UID of what is behind them.
type Members = BTreeMap<(String, String), Member>;

/// Subsets in a normal form, however they were written: addresses that offer the same ports are together, each once; one
/// that is ready here and not ready there is not.
fn repack(subsets: &[EndpointSubset]) -> Vec<(Vec<Member>, Vec<PortKey>)> {
    // `None`: offers no ports.
    let mut by_port: BTreeMap<Option<PortKey>, Members> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.ports.as_deref().unwrap_or_default();
        let keys = ports.iter().map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((port.name.clone().unwrap_or_default(), port.port, protocol, port.app_protocol.clone()))
        });
        for key in keys.chain(ports.is_empty().then_some(None)) {
            let members = by_port.entry(key).or_default();
            subset.addresses.iter().flatten().for_each(|address| note(members, address, true));
            subset.not_ready_addresses.iter().flatten().for_each(|address| note(members, address, false));
        }
    }
    let mut subsets: Vec<(Members, Vec<PortKey>)> = Vec::new();
    for (port, members) in by_port {
        match subsets.iter_mut().find(|(known, _)| is_same(known, &members)) {
            Some((_, ports)) => ports.extend(port),
            None => subsets.push((members, port.into_iter().collect())),
        }
    }
    subsets.into_iter().map(|(members, ports)| (members.into_values().collect(), ports)).collect()
}

fn note(members: &mut Members, address: &EndpointAddress, ready: bool) {
    let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    let member = members.entry((address.ip.clone(), uid)).or_insert_with(|| Member { ready, address: address.clone() });
    member.ready &= ready;
}

fn is_same(left: &Members, right: &Members) -> bool {
    let marks = |members: &Members| members.iter().map(|(key, member)| (key.clone(), member.ready)).collect::<Vec<_>>();
    marks(left) == marks(right)
}

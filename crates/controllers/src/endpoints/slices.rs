//! EndpointSlices: a Service, its pods and their nodes -> slices of at most 100 endpoints, one family and one set of
//! ports each.
//!
//! Invariants: an endpoint stays in its slice while it lives (see `packing`); terminating pods stay endpoints, serving
//! but not ready; a Service without endpoints keeps one empty slice a family. Touches only slices that carry its label.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Controller, Input, Key, Plan, View, Watches, Write, owner_reference};
use semantics::pod::is_pod_ready;

use super::packing::{Packing, pack};
use super::{
    Family, HEADLESS, addresses, families, find_port, has_cluster_ip, hostname, members, pod_keys, protocol, selecting,
};
use crate::labels::Labels;

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The controller.
#[derive(Debug, Default)]
pub struct EndpointSliceController;

impl Controller for EndpointSliceController {
    type Memory = ();

    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Service>(reconcile::controller::own_key);
        watches.watch::<EndpointSlice>(slice_keys);
        watches.watch::<Pod>(pod_keys);
        watches.watch::<Node>(reconcile::controller::no_keys);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let service = input.view.get::<Service>(&input.key.namespace, &input.key.name);
        let planned = service.as_ref().and_then(|service| Some(plan_slices(service, selecting(service)?, input)));
        planned.filter(|_| input.failure.is_none()).unwrap_or_default()
    }
}

fn slice_keys(slice: &EndpointSlice, _: &View) -> Vec<Key> {
    service_of(slice, MANAGER).into_iter().collect()
}

/// The Service that a slice of this manager belongs to.
pub(super) fn service_of(slice: &EndpointSlice, manager: &str) -> Option<Key> {
    let label = |name: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    let service = label(SERVICE_NAME).filter(|_| label(MANAGED_BY).is_some_and(|found| found == manager))?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

/// What the endpoints of one slice have in common.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) family: &'static str,
    pub(super) ports: Vec<EndpointPort>,
}

fn plan_slices(service: &Service, spec: &ServiceSpec, input: &Input<'_>) -> Plan {
    let mut plan = Plan::empty();
    let mut existing: Vec<Arc<EndpointSlice>> = input.view.list_in::<EndpointSlice>(&input.key.namespace);
    existing.retain(|slice| service_of(slice, MANAGER).as_ref() == Some(input.key));
    let groups = derive_groups(service, spec, input.view);
    let mut handled: BTreeSet<String> = BTreeSet::new();
    for (group, endpoints) in &groups {
        let mut same: Vec<Arc<EndpointSlice>> = existing.clone();
        same.retain(|slice| slice.metadata.deletion_timestamp.is_none() && group_of(slice) == Some(group.clone()));
        handled.extend(same.iter().filter_map(|slice| slice.metadata.name.clone()));
        plan_group(service, spec, group, pack(&same, endpoints), &same, &mut plan);
    }
    let stale =
        existing.iter().filter(|slice| slice.metadata.name.as_ref().is_some_and(|name| !handled.contains(name)));
    plan.writes
        .extend(stale.filter(|slice| slice.metadata.deletion_timestamp.is_none()).map(|slice| Write::delete(&**slice)));
    plan
}

fn plan_group(
    service: &Service,
    spec: &ServiceSpec,
    group: &Group,
    packing: Packing,
    same: &[Arc<EndpointSlice>],
    plan: &mut Plan,
) {
    let labels = derive_labels(service, spec);
    for (slice, endpoints) in same.iter().zip(packing.kept) {
        let Some(endpoints) = endpoints else {
            plan.writes.push(Write::delete(&**slice));
            continue;
        };
        let mut next = (**slice).clone();
        next.endpoints = Some(endpoints);
        next.metadata.labels = Some(labels.clone());
        let unchanged = slice.endpoints.clone().unwrap_or_default() == next.endpoints.clone().unwrap_or_default();
        if !unchanged || slice.metadata.labels != next.metadata.labels {
            plan.writes.push(Write::replace(&next));
        }
    }
    for endpoints in packing.new {
        let metadata = ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner_reference(service)]),
            ..ObjectMeta::default()
        };
        plan.writes.push(Write::create(&EndpointSlice {
            metadata,
            address_type: group.family.to_owned(),
            endpoints: Some(endpoints),
            ports: Some(group.ports.clone()),
        }));
    }
}

/// The endpoints by family and ports. A family without any has one empty group, for the empty slice.
fn derive_groups(service: &Service, spec: &ServiceSpec, view: &View) -> Vec<(Group, Vec<Endpoint>)> {
    let mut groups: Vec<(Group, Vec<Endpoint>)> = Vec::new();
    let pods = members(service, spec, view, true);
    for family in families(spec) {
        let before = groups.len();
        for pod in &pods {
            let Some(endpoint) = derive_endpoint(pod, service, spec, family, view) else { continue };
            let group = Group { family: family.name(), ports: derive_ports(pod, spec) };
            match groups.iter_mut().skip(before).find(|(known, _)| *known == group) {
                Some((_, endpoints)) => endpoints.push(endpoint),
                None => groups.push((group, vec![endpoint])),
            }
        }
        if groups.len() == before {
            groups.push((Group { family: family.name(), ports: Vec::new() }, Vec::new()));
        }
    }
    groups
}

pub(super) fn group_of(slice: &EndpointSlice) -> Option<Group> {
    let family = [Family::IPv4, Family::IPv6].into_iter().find(|family| family.name() == slice.address_type)?;
    let mut ports = slice.ports.clone().unwrap_or_default();
    for port in &mut ports {
        port.name.get_or_insert_default();
    }
    sort_ports(&mut ports);
    Some(Group { family: family.name(), ports })
}

fn derive_ports(pod: &Pod, spec: &ServiceSpec) -> Vec<EndpointPort> {
    let resolved = spec.ports.iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(find_port(pod, port)?),
            protocol: Some(protocol(port).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut ports: Vec<EndpointPort> = resolved.collect();
    sort_ports(&mut ports);
    ports
}

pub(super) fn sort_ports(ports: &mut [EndpointPort]) {
    ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
}

fn derive_endpoint(pod: &Pod, service: &Service, spec: &ServiceSpec, family: Family, view: &View) -> Option<Endpoint> {
    let own: Vec<String> =
        addresses(pod).into_iter().filter(|address| Family::of(address) == family).map(str::to_owned).collect();
    if own.is_empty() {
        return None;
    }
    let serving = is_pod_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = spec.publish_not_ready_addresses == Some(true) || (serving && !terminating);
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
    let node = node_name.as_deref().and_then(|name| view.get::<Node>("", name));
    let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned()).filter(|zone| !zone.is_empty());
    let hints = derive_hints(spec, ready, zone.as_ref(), node_name.as_ref());
    Some(Endpoint {
        addresses: own,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name,
        zone,
        hints,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        deprecated_topology: None,
    })
}

/// `trafficDistribution` as hints: each ready endpoint serves its own zone, or its own node.
fn derive_hints(
    spec: &ServiceSpec,
    ready: bool,
    zone: Option<&String>,
    node: Option<&String>,
) -> Option<EndpointHints> {
    let zones = || zone.map(|name| vec![ForZone { name: name.clone() }]);
    match spec.traffic_distribution.as_deref() {
        Some("PreferClose" | "PreferSameZone") if ready => {
            zones().map(|zones| EndpointHints { for_zones: Some(zones), for_nodes: None })
        }
        Some("PreferSameNode") if ready => {
            let nodes = node.map(|name| vec![ForNode { name: name.clone() }]);
            (zones().is_some() || nodes.is_some()).then(|| EndpointHints { for_zones: zones(), for_nodes: nodes })
        }
        _ => None,
    }
}

fn derive_labels(service: &Service, spec: &ServiceSpec) -> Labels {
    let mut labels: Labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|name, _| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&name.as_str()));
    if !has_cluster_ip(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let fixed = BTreeMap::from([
        (SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default()),
        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
    ]);
    labels.extend(fixed);
    labels
}

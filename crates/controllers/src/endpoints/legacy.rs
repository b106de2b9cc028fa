//! core/v1 Endpoints: a Service and its pods -> one object with all addresses, at most 1,000.
//!
//! Invariant: addresses that offer the same ports share a subset; everything is sorted, so equal inputs give equal
//! objects. For old readers only; nothing here reads it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Controller, Input, Plan, Watches, Write};
use semantics::pod::is_pod_ready;

use super::{
    Family, HEADLESS, addresses, families, find_port, has_cluster_ip, hostname, members, pod_keys, protocol, selecting,
};
use crate::labels::Labels;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const ADDRESSES_MAX: usize = 1000;

/// The controller.
#[derive(Debug, Default)]
pub struct EndpointsController;

impl Controller for EndpointsController {
    type Memory = ();

    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Service>(reconcile::controller::own_key);
        watches.watch::<Endpoints>(reconcile::controller::own_key);
        watches.watch::<Pod>(pod_keys);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let mut plan = Plan::empty();
        let current = input.view.get::<Endpoints>(&input.key.namespace, &input.key.name);
        if input.failure.is_some() {
            return plan;
        }
        match input.view.get::<Service>(&input.key.namespace, &input.key.name) {
            None => plan.writes.extend(current.filter(|found| is_ours(found)).map(|found| Write::delete(&*found))),
            Some(service) => {
                if let Some(spec) = selecting(&service) {
                    plan.writes.extend(plan_endpoints(&service, spec, current.as_deref(), input));
                }
            }
        }
        plan
    }
}

/// Endpoints that users made by hand outlive their Service.
fn is_ours(endpoints: &Endpoints) -> bool {
    let manager = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    manager.is_some_and(|manager| manager == MANAGER) && endpoints.metadata.deletion_timestamp.is_none()
}

fn plan_endpoints(
    service: &Service,
    spec: &ServiceSpec,
    current: Option<&Endpoints>,
    input: &Input<'_>,
) -> Option<Write> {
    let mut subsets = derive_subsets(service, spec, input);
    let truncated = truncate(&mut subsets);
    let mut labels: Labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if !has_cluster_ip(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let metadata = match current {
        Some(current) => current.metadata.clone(),
        None => ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
    };
    let mut next = Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) };
    next.metadata.labels = Some(labels);
    let annotations = next.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    next.metadata.annotations = next.metadata.annotations.filter(|annotations| !annotations.is_empty());
    match current {
        None => Some(Write::create(&next)),
        Some(current) if normal(current) == normal(&next) => None,
        Some(_) => Some(Write::replace(&next)),
    }
}

/// The parts that are compared, with absent and empty alike.
fn normal(endpoints: &Endpoints) -> (Vec<EndpointSubset>, Labels, Labels) {
    let meta = &endpoints.metadata;
    (
        endpoints.subsets.clone().unwrap_or_default(),
        meta.labels.clone().unwrap_or_default(),
        meta.annotations.clone().unwrap_or_default(),
    )
}

/// Name, number, protocol, application protocol.
pub(super) type PortKey = (String, i32, String, Option<String>);

/// Address, whether it is ready, and the ports that it offers -> subsets of addresses that offer the same.
fn derive_subsets(service: &Service, spec: &ServiceSpec, input: &Input<'_>) -> Vec<EndpointSubset> {
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let mut by_ports: BTreeMap<BTreeSet<PortKey>, Vec<(bool, EndpointAddress)>> = BTreeMap::new();
    for pod in members(service, spec, input.view, publish_all) {
        let Some(address) = derive_address(&pod, service, spec) else { continue };
        let ports = derive_ports(&pod, spec);
        let may_lack_ports = !has_cluster_ip(spec) && spec.ports.as_ref().is_none_or(Vec::is_empty);
        if ports.is_empty() && !may_lack_ports {
            continue;
        }
        by_ports.entry(ports).or_default().push((publish_all || is_pod_ready(&pod), address));
    }
    by_ports.into_iter().map(|(ports, addresses)| derive_subset(ports, addresses)).collect()
}

fn derive_subset(ports: BTreeSet<PortKey>, addresses: Vec<(bool, EndpointAddress)>) -> EndpointSubset {
    let (mut ready, mut not_ready): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(ready, _)| *ready);
    let order = |(_, a): &(bool, EndpointAddress), (_, b): &(bool, EndpointAddress)| a.ip.cmp(&b.ip);
    ready.sort_by(order);
    not_ready.sort_by(order);
    let list = |part: Vec<(bool, EndpointAddress)>| {
        let part: Vec<EndpointAddress> = part.into_iter().map(|(_, address)| address).collect();
        (!part.is_empty()).then_some(part)
    };
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: (!name.is_empty()).then_some(name),
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    EndpointSubset {
        addresses: list(ready),
        not_ready_addresses: list(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

fn derive_ports(pod: &Pod, spec: &ServiceSpec) -> BTreeSet<PortKey> {
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = find_port(pod, port)?;
        Some((port.name.clone().unwrap_or_default(), number, protocol(port).to_owned(), port.app_protocol.clone()))
    });
    ports.collect()
}

/// The pod's address in the Service's first family.
fn derive_address(pod: &Pod, service: &Service, spec: &ServiceSpec) -> Option<EndpointAddress> {
    let named = spec.ip_families.as_ref().is_some_and(|names| !names.is_empty()) || has_cluster_ip(spec);
    let own = addresses(pod);
    let family = if named { families(spec).into_iter().next()? } else { Family::of(own.first()?) };
    let ip = own.into_iter().find(|address| Family::of(address) == family)?;
    Some(EndpointAddress {
        ip: ip.to_owned(),
        hostname: hostname(pod, service),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

/// Keeps at most 1,000 addresses, ready ones first. True if some were left out.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let mut left = ADDRESSES_MAX;
    let mut cut = false;
    let mut keep = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            cut |= addresses.len() > left;
            addresses.truncate(left);
            left -= addresses.len();
        }
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| keep(&mut subset.not_ready_addresses));
    cut
}

//! Where a Service's traffic goes: Services and pods -> EndpointSlices ([`slices`]) and Endpoints ([`legacy`]); Endpoints that
//! somebody made by hand -> EndpointSlices ([`mirroring`]).
//!
//! Shared here: which Services have endpoints, which pods are among them, and on which port a pod answers. Invariant: the
//! Endpoints of a Service without a selector are left alone; they are somebody else's.

pub mod legacy;
pub mod mirroring;
mod packing;
pub mod slices;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::{Key, View};
use semantics::pod::{is_pod_terminal, is_sidecar};

use crate::labels::{Labels, contains_all};

/// The label that both kinds carry for a Service without a cluster IP.
const HEADLESS: &str = "service.kubernetes.io/headless";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    IPv4,
    IPv6,
}

impl Family {
    fn of(address: &str) -> Self {
        if address.contains(':') { Self::IPv6 } else { Self::IPv4 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }
}

/// The spec of a Service whose endpoints are selected pods.
fn selecting(service: &Service) -> Option<&ServiceSpec> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    (!external && spec.selector.is_some() && service.metadata.deletion_timestamp.is_none()).then_some(spec)
}

/// The pods that the Service selects, that run or are to run, and have an address.
fn members(service: &Service, spec: &ServiceSpec, view: &View, with_terminating: bool) -> Vec<Arc<Pod>> {
    let no_labels = Labels::new();
    let selector = spec.selector.as_ref().unwrap_or(&no_labels);
    let mut pods = view.list_in::<Pod>(service.metadata.namespace.as_deref().unwrap_or_default());
    pods.retain(|pod| {
        contains_all(pod.metadata.labels.as_ref().unwrap_or(&no_labels), selector)
            && !is_pod_terminal(pod)
            && (with_terminating || pod.metadata.deletion_timestamp.is_none())
            && !addresses(pod).is_empty()
    });
    pods
}

fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { all }
}

/// The families that a Service has endpoints in.
fn families(spec: &ServiceSpec) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten().map(|name| if name == "IPv6" { Family::IPv6 } else { Family::IPv4 });
    let named: Vec<Family> = named.collect();
    match spec.cluster_ip.as_deref() {
        _ if !named.is_empty() => named,
        Some(ip) if has_cluster_ip(spec) => vec![Family::of(ip)],
        _ => vec![Family::IPv4, Family::IPv6],
    }
}

fn has_cluster_ip(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty() && ip != "None")
}

/// The number on which the pod answers a Service's port; none if it has no port of that name.
fn find_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => find_named_port(pod, name, protocol(port)),
    }
}

fn find_named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let ports =
        spec.containers.iter().chain(sidecars).flat_map(|container: &Container| container.ports.iter().flatten());
    let mut matching = ports
        .filter(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol);
    matching.next().map(|port| port.container_port)
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The pod's own name in DNS, where it has one under this Service.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name).then_some(hostname)
}

/// A pod wakes the Services that select it.
fn pod_keys(pod: &Pod, view: &View) -> Vec<Key> {
    let no_labels = Labels::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&no_labels);
    let mut services = view.list_in::<Service>(pod.metadata.namespace.as_deref().unwrap_or_default());
    services.retain(|service| {
        selecting(service)
            .and_then(|spec| spec.selector.as_ref())
            .is_some_and(|selector| contains_all(labels, selector))
    });
    services.iter().map(|service| Key::of(&service.metadata)).collect()
}

//! EndpointSlice: one address family, bounded; ports default to nameless TCP.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::json;

use crate::defaults::fill;
use crate::field::{Errors, Path};
use crate::kinds::core::endpoints::validate_endpoint_ip;
use crate::names::{dns1123_label, dns1123_subdomain, port_number, subdomain_name};
use crate::strategy::{Generation, Shape, Write};
use crate::typed::Rules;

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

pub struct EndpointSliceRules;

impl Rules for EndpointSliceRules {
    type Object = EndpointSlice;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::ContentOrLabels);

    fn default(object: &mut EndpointSlice) {
        for port in object.ports.iter_mut().flatten() {
            fill(&mut port.name, String::new());
            fill(&mut port.protocol, "TCP".to_owned());
        }
    }

    fn validate(object: &EndpointSlice, errors: &mut Errors) {
        match object.address_type.as_str() {
            "" => errors.required(Path::root("addressType"), ""),
            "IPv4" | "IPv6" | "FQDN" => {}
            other => errors.not_supported(Path::root("addressType"), other, &["FQDN", "IPv4", "IPv6"]),
        }
        let path = Path::root("endpoints");
        let endpoints = object.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > ENDPOINTS_MAX {
            return errors.too_many(path, endpoints.len(), ENDPOINTS_MAX);
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(endpoint, &object.address_type, &path.index(index), errors);
        }
        validate_ports(object, errors);
    }

    fn validate_update(_write: &Write<'_>, object: &EndpointSlice, old: &EndpointSlice, errors: &mut Errors) {
        if object.address_type != old.address_type {
            errors.invalid(Path::root("addressType"), object.address_type.as_str(), "field is immutable");
        }
    }
}

fn validate_endpoint(endpoint: &Endpoint, address_type: &str, path: &Path, errors: &mut Errors) {
    let path_of = |index: usize| path.child("addresses").index(index);
    if endpoint.addresses.is_empty() {
        errors.required(path.child("addresses"), "must contain at least 1 address");
    }
    if endpoint.addresses.len() > ADDRESSES_MAX {
        errors.too_many(path.child("addresses"), endpoint.addresses.len(), ADDRESSES_MAX);
    }
    for (index, address) in endpoint.addresses.iter().enumerate() {
        let parsed = address.parse::<std::net::IpAddr>().ok();
        match address_type {
            "IPv4" if !parsed.is_some_and(|ip| ip.is_ipv4()) => {
                errors.invalid(path_of(index), address.as_str(), "must be a valid IPv4 address");
            }
            "IPv6" if !parsed.is_some_and(|ip| ip.is_ipv6()) => {
                errors.invalid(path_of(index), address.as_str(), "must be a valid IPv6 address");
            }
            "IPv4" | "IPv6" => validate_endpoint_ip(address, path_of(index), errors),
            "FQDN" => errors.invalid_each(&path_of(index), address, dns1123_subdomain(address)),
            _ => {}
        }
    }
    if let Some(hostname) = endpoint.hostname.as_deref() {
        errors.invalid_each(&path.child("hostname"), hostname, dns1123_label(hostname));
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        errors.invalid_each(&path.child("nodeName"), node, dns1123_subdomain(node));
    }
}

fn validate_ports(object: &EndpointSlice, errors: &mut Errors) {
    let path = Path::root("ports");
    let ports = object.ports.as_deref().unwrap_or_default();
    if ports.len() > PORTS_MAX {
        return errors.too_many(path, ports.len(), PORTS_MAX);
    }
    let mut names = std::collections::BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            errors.invalid_each(&path.child("name"), name, dns1123_label(name));
        }
        if !names.insert(name) {
            errors.duplicate(path.child("name"), json!(port.name));
        }
        match port.protocol.as_deref() {
            Some("TCP" | "UDP" | "SCTP") => {}
            None => errors.required(path.child("protocol"), ""),
            Some(other) => errors.not_supported(path.child("protocol"), other, &["SCTP", "TCP", "UDP"]),
        }
        for message in port.port.map(|number| port_number(i64::from(number))).unwrap_or_default() {
            errors.invalid(path.child("port"), json!(port.port), message);
        }
    }
}

//! EndpointSlice: one address family, bounded; ports default to nameless TCP.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice};
use serde_json::{Value, json};

use crate::defaults::fill;
use crate::field::{Errors, Path};
use crate::kinds::core::endpoints::validate_endpoint_ip;
use crate::names::{dns1123_label, dns1123_subdomain, ip_address, label_value, qualified_name, subdomain_name};
use crate::strategy::{Context, Generation, Shape, Write};
use crate::typed::Rules;
use crate::warnings::address::ip_warning;

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
/// Of zones, and of nodes.
const HINTS_MAX: usize = 8;

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

    fn prepare_create(_context: &Context, object: &mut EndpointSlice) {
        drop_topology(object);
    }

    fn prepare_update(_write: &Write<'_>, object: &mut EndpointSlice, old: &EndpointSlice) {
        if object.endpoints != old.endpoints {
            drop_topology(object);
        }
    }

    fn validate(object: &EndpointSlice, errors: &mut Errors) {
        match object.address_type.as_str() {
            "" => errors.required(Path::root("addressType"), ""),
            "IPv4" | "IPv6" | "FQDN" => {}
            other => errors.not_supported(Path::root("addressType"), other, &["FQDN", "IPv4", "IPv6"]),
        }
        validate_ports(object, errors);
        let path = Path::root("endpoints");
        let endpoints = object.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > ENDPOINTS_MAX {
            return errors.too_many(path, endpoints.len(), ENDPOINTS_MAX);
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(endpoint, &object.address_type, &path.index(index), errors);
        }
    }

    fn validate_update(_write: &Write<'_>, object: &EndpointSlice, old: &EndpointSlice, errors: &mut Errors) {
        if object.address_type != old.address_type {
            // Upstream's generated check does not show the value.
            errors.invalid(Path::root("addressType"), Value::Null, "field is immutable");
        }
    }

    fn warnings(object: &EndpointSlice, _old: Option<&EndpointSlice>) -> Vec<String> {
        let mut found = Vec::new();
        for (index, endpoint) in object.endpoints.iter().flatten().enumerate().filter(|_| object.address_type != "FQDN")
        {
            let path = Path::root("endpoints").index(index).child("addresses");
            found.extend(endpoint.addresses.iter().enumerate().filter_map(|(i, ip)| ip_warning(ip, &path.index(i))));
        }
        found
    }
}

/// The topology labels of v1beta1 are kept where they are stored, but not taken from clients of v1.
fn drop_topology(object: &mut EndpointSlice) {
    for endpoint in object.endpoints.iter_mut().flatten() {
        endpoint.deprecated_topology = None;
    }
}

fn validate_endpoint(endpoint: &Endpoint, address_type: &str, path: &Path, errors: &mut Errors) {
    let path_of = |index: usize| path.child("addresses").index(index);
    if endpoint.addresses.is_empty() {
        errors.required(path.child("addresses"), "");
    }
    if endpoint.addresses.len() > ADDRESSES_MAX {
        errors.too_many(path.child("addresses"), endpoint.addresses.len(), ADDRESSES_MAX);
    }
    for (index, address) in endpoint.addresses.iter().enumerate() {
        match address_type {
            "IPv4" | "IPv6" => validate_address(address, address_type, &path.child("addresses"), index, errors),
            "FQDN" => errors.invalid_each(&path_of(index), address, dns1123_subdomain(address)),
            _ => {}
        }
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        errors.invalid_each(&path.child("nodeName"), node, dns1123_subdomain(node));
    }
    if let Some(hostname) = endpoint.hostname.as_deref() {
        errors.invalid_each(&path.child("hostname"), hostname, dns1123_label(hostname));
    }
    if let Some(hints) = &endpoint.hints {
        validate_hints(hints, &path.child("hints"), errors);
    }
}

/// An address of the slice's family that traffic can be sent to. The wrong family is told of the whole list.
fn validate_address(address: &str, family: &str, path: &Path, index: usize, errors: &mut Errors) {
    let Ok(parsed) = address.parse::<std::net::IpAddr>() else {
        return errors.invalid_each(&path.index(index), address, ip_address(address));
    };
    if parsed.is_ipv4() != (family == "IPv4") {
        errors.invalid(path.clone(), address, format!("must be an {family} address"));
    }
    validate_endpoint_ip(address, path.index(index), errors);
}

/// Zones and nodes that should use an endpoint.
fn validate_hints(hints: &EndpointHints, path: &Path, errors: &mut Errors) {
    let zones: Vec<&str> = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str()).collect();
    validate_hint_names(&zones, label_value, &path.child("forZones"), errors);
    if zones.len() <= HINTS_MAX {
        let nodes: Vec<&str> = hints.for_nodes.iter().flatten().map(|node| node.name.as_str()).collect();
        validate_hint_names(&nodes, dns1123_subdomain, &path.child("forNodes"), errors);
    }
}

/// Few names, each once and good by the rule.
fn validate_hint_names(names: &[&str], rule: fn(&str) -> Vec<String>, path: &Path, errors: &mut Errors) {
    if names.len() > HINTS_MAX {
        return errors.too_many(path.clone(), names.len(), HINTS_MAX);
    }
    for (index, name) in names.iter().enumerate() {
        let path = path.index(index).child("name");
        if names[..index].contains(name) {
            errors.duplicate(path.clone(), *name);
        }
        errors.invalid_each(&path, name, rule(name));
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
        if let Some(protocol) = &port.app_protocol {
            errors.invalid_each(&path.child("appProtocol"), protocol, qualified_name(protocol));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update, run_create};
    use serde_json::{Value, json};

    const KIND: (&str, &str, &str) = ("discovery.k8s.io", "v1", "EndpointSlice");

    fn slice(endpoint: Value) -> Value {
        json!({"addressType": "IPv4", "endpoints": [endpoint], "ports": []})
    }

    fn check(endpoint: Value, expect: &str) {
        check_create(KIND.0, KIND.1, KIND.2, slice(endpoint), expect);
    }

    #[test]
    fn addresses_are_of_the_family() {
        check(json!({"addresses": ["10.1.1.1"]}), "");
        check(json!({"addresses": []}), "endpoints[0].addresses: Required value");
        check(
            json!({"addresses": ["x"]}),
            "endpoints[0].addresses[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
        check(
            json!({"addresses": ["fd00::1"]}),
            "endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
        );
    }

    #[test]
    fn hints_name_each_zone_once() {
        let hints = |names: &[&str]| {
            let zones: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
            json!({"addresses": ["10.1.1.1"], "hints": {"forZones": zones}})
        };
        check(hints(&["a", "b"]), "");
        check(hints(&["a", "a"]), "endpoints[0].hints.forZones[1].name: Duplicate value: \"a\"");
        check(hints(&["z"; 9]), "endpoints[0].hints.forZones: Too many: 9: must have at most 8 items");
    }

    #[test]
    fn old_topology_is_not_taken() {
        let endpoint = json!({"addresses": ["10.1.1.1"], "deprecatedTopology": {"a": "b"}});
        let made = run_create(KIND.0, KIND.1, KIND.2, slice(endpoint)).unwrap();
        assert_eq!(made["endpoints"][0], json!({"addresses": ["10.1.1.1"]}));
    }

    #[test]
    fn the_family_stays() {
        let of = |family: &str, address: &str| json!({"addressType": family, "endpoints": [{"addresses": [address]}]});
        let refusal = "addressType: Invalid value: null: field is immutable";
        check_update(KIND.0, KIND.1, KIND.2, of("IPv6", "fd00::1"), of("IPv4", "10.1.1.1"), refusal);
    }
}

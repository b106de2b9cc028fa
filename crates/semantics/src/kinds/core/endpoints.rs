//! Endpoints: ports default to TCP; addresses are IPs that can be endpoints.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};

use crate::defaults::{fill_text, text};
use crate::field::{Errors, Path};
use crate::names::{dns1123_label, dns1123_subdomain, ip_address, port_number, qualified_name, subdomain_name};
use crate::strategy::Shape;
use crate::typed::Rules;
use crate::warnings::address::ip_warning;

pub struct EndpointsRules;

impl Rules for EndpointsRules {
    type Object = Endpoints;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn default(object: &mut Endpoints) {
        let ports = object.subsets.iter_mut().flatten().flat_map(|subset| subset.ports.iter_mut().flatten());
        for port in ports {
            fill_text(&mut port.protocol, "TCP");
        }
    }

    fn validate(object: &Endpoints, errors: &mut Errors) {
        for (index, subset) in object.subsets.iter().flatten().enumerate() {
            validate_subset(subset, &Path::root("subsets").index(index), errors);
        }
    }

    fn warnings(object: &Endpoints, _old: Option<&Endpoints>) -> Vec<String> {
        let mut found = Vec::new();
        for (index, subset) in object.subsets.iter().flatten().enumerate() {
            let path = Path::root("subsets").index(index);
            for (name, list) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)] {
                let addresses = list.iter().flatten().enumerate();
                found.extend(addresses.filter_map(|(i, a)| ip_warning(&a.ip, &path.child(name).index(i).child("ip"))));
            }
        }
        found
    }
}

fn validate_subset(subset: &EndpointSubset, path: &Path, errors: &mut Errors) {
    let ready = subset.addresses.as_deref().unwrap_or_default();
    let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
    if ready.is_empty() && not_ready.is_empty() {
        errors.required(path.clone(), "must specify `addresses` or `notReadyAddresses`");
    }
    for (name, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        for (index, address) in addresses.iter().enumerate() {
            validate_address(address, &path.child(name).index(index), errors);
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        validate_port(port, ports.len() > 1, &path.child("ports").index(index), errors);
    }
}

fn validate_address(address: &EndpointAddress, path: &Path, errors: &mut Errors) {
    let ip = &address.ip;
    errors.invalid_each(&path.child("ip"), ip, ip_address(ip));
    let hostname = text(&address.hostname);
    if !hostname.is_empty() {
        errors.invalid_each(&path.child("hostname"), hostname, dns1123_label(hostname));
    }
    if let Some(node) = &address.node_name {
        errors.invalid_each(&path.child("nodeName"), node, dns1123_subdomain(node));
    }
    validate_endpoint_ip(ip, path.child("ip"), errors);
}

/// An IP that traffic can be sent to: not unspecified, loopback, link-local.
pub(crate) fn validate_endpoint_ip(ip: &str, path: Path, errors: &mut Errors) {
    let Ok(address) = ip.parse::<std::net::IpAddr>() else {
        return errors.invalid(path, ip, "must be a valid IP address");
    };
    let (link_local, link_local_multicast) = match address {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        errors.invalid(path.clone(), ip, format!("may not be unspecified ({ip})"));
    }
    if address.is_loopback() {
        errors.invalid(path.clone(), ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(path.clone(), ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        errors.invalid(path, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn validate_port(port: &EndpointPort, name_required: bool, path: &Path, errors: &mut Errors) {
    let name = text(&port.name);
    if name.is_empty() && name_required {
        errors.required(path.child("name"), "");
    } else if !name.is_empty() {
        errors.invalid_each(&path.child("name"), name, dns1123_label(name));
    }
    for message in port_number(i64::from(port.port)) {
        errors.invalid(path.child("port"), port.port, message);
    }
    if !matches!(text(&port.protocol), "TCP" | "UDP" | "SCTP") {
        errors.not_supported(path.child("protocol"), text(&port.protocol), &["SCTP", "TCP", "UDP"]);
    }
    if let Some(protocol) = &port.app_protocol {
        errors.invalid_each(&path.child("appProtocol"), protocol, qualified_name(protocol));
    }
}

#[cfg(test)]
mod tests {
    use crate::check::check_create;
    use serde_json::{Value, json};

    fn check(address: Value, port: Value, expect: &str) {
        let subsets = json!([{"addresses": [address], "ports": [port]}]);
        check_create("", "v1", "Endpoints", json!({ "subsets": subsets }), expect);
    }

    #[test]
    fn addresses_and_ports() {
        let (address, port) = (json!({"ip": "10.1.1.1", "nodeName": "n.example"}), json!({"port": 80}));
        check(address.clone(), port.clone(), "");
        check(
            json!({"ip": "x"}),
            port.clone(),
            "[subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff), subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address]",
        );
        check(
            json!({"ip": "127.0.0.1"}),
            port.clone(),
            "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
        check(
            json!({"ip": "10.1.1.1", "nodeName": "N"}),
            port,
            "subsets[0].addresses[0].nodeName: Invalid value: \"N\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        );
        check(
            address,
            json!({"port": 80, "appProtocol": "a/b/c"}),
            "subsets[0].ports[0].appProtocol: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        );
    }
}

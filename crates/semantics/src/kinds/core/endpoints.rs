//! Endpoints: ports default to TCP; addresses are IPs that can be endpoints.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};

use crate::defaults::{fill_text, text};
use crate::field::{Errors, Path};
use crate::names::{dns1123_label, ip_address, port_number, subdomain_name};
use crate::strategy::Shape;
use crate::typed::Rules;

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
    validate_endpoint_ip(&address.ip, path.child("ip"), errors);
    let hostname = text(&address.hostname);
    if !hostname.is_empty() {
        errors.invalid_each(&path.child("hostname"), hostname, dns1123_label(hostname));
    }
}

/// An IP that traffic can be sent to: not unspecified, loopback, link-local.
pub(crate) fn validate_endpoint_ip(ip: &str, path: Path, errors: &mut Errors) {
    let problems = ip_address(ip);
    if !problems.is_empty() {
        return errors.invalid_each(&path, ip, problems);
    }
    let Ok(address) = ip.parse::<std::net::IpAddr>() else { return };
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
}

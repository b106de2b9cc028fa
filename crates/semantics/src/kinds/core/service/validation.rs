//! Validation of Services: ports, addresses and what each type allows.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::json;

use super::{is_externally_accessible, needs_health_check};
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::kinds::core::endpoints::validate_endpoint_ip;
use crate::names::{cidr, dns1123_label, dns1123_subdomain, ip_address, port_number, qualified_name};
use crate::validate::labels::validate_labels;
use crate::validate::ports::validate_port_or_name;

const HOLD_ONE_DAY: i32 = 86_400;

/// The rules for a Service as it is; `old` lets through what was accepted before.
pub(super) fn validate(service: &Service, old: Option<&Service>, errors: &mut Errors) {
    let Some(spec) = &service.spec else { return };
    let path = Path::root("spec");
    validate_type(spec, &path, errors);
    validate_ports(spec, &path, errors);
    validate_labels(&spec.selector, &path.child("selector"), errors);
    validate_affinity(spec, &path, errors);
    if text(&spec.type_) != "ExternalName" {
        validate_addresses(spec, &path, errors);
    }
    validate_external_ips(spec, old.and_then(|old| old.spec.as_ref()), &path.child("externalIPs"), errors);
    validate_balancer(spec, &path, errors);
    validate_traffic(spec, &path, errors);
}

/// What may not change in an allocated Service.
pub(super) fn validate_change(service: &Service, old: &Service, errors: &mut Errors) {
    let (Some(spec), Some(old)) = (&service.spec, &old.spec) else { return };
    let path = Path::root("spec");
    let external = text(&spec.type_) == "ExternalName" || text(&old.type_) == "ExternalName";
    if !(external || is_headless(spec) && is_headless(old)) {
        validate_ip_change(spec, old, &path, errors);
    }
    let both = text(&spec.type_) == "LoadBalancer" && text(&old.type_) == "LoadBalancer";
    if both && spec.load_balancer_class != old.load_balancer_class {
        errors.invalid(path.child("loadBalancerClass"), json!(spec.load_balancer_class), "may not change once set");
    }
    let checked = needs_health_check(spec) && needs_health_check(old);
    if checked && spec.health_check_node_port != old.health_check_node_port {
        errors.forbidden(path.child("healthCheckNodePort"), "field is immutable");
    }
}

fn validate_ip_change(spec: &ServiceSpec, old: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let before = old.cluster_ips.as_deref().unwrap_or_default();
    let path_at = |index: usize| path.child("clusterIPs").index(index);
    for (index, ip) in before.iter().enumerate() {
        match ips.get(index) {
            Some(new) if new != ip => errors.invalid(path_at(index), json!(ips), "may not change once set"),
            None if index == 0 => errors.invalid(path_at(0), json!(ips), "primary clusterIP can not be unset"),
            _ => {}
        }
    }
    if before.len() > 1 && ips.len() == 1 && text(&spec.ip_family_policy) != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(path.child("ipFamilyPolicy"), json!(spec.ip_family_policy), detail);
    }
}

/// What was accepted before may be no address.
fn validate_external_ips(spec: &ServiceSpec, old: Option<&ServiceSpec>, path: &Path, errors: &mut Errors) {
    let known = old.and_then(|old| old.external_ips.as_deref()).unwrap_or_default();
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let problems = ip_address(ip);
        if problems.is_empty() {
            validate_endpoint_ip(ip, path.index(index), errors);
        } else if !known.contains(ip) {
            errors.invalid_each(&path.index(index), ip, problems);
        }
    }
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips.as_ref().is_some_and(|ips| ips.first().is_some_and(|ip| ip == "None"))
}

fn validate_type(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let type_ = text(&spec.type_);
    if spec.ports.as_ref().is_none_or(Vec::is_empty) && !is_headless(spec) && type_ != "ExternalName" {
        errors.required(path.child("ports"), "");
    }
    match type_ {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {type_} services");
            errors.invalid(path.child("clusterIPs").index(0), "None", detail);
        }
        "ExternalName" => validate_external_name(spec, path, errors),
        "ClusterIP" | "LoadBalancer" | "NodePort" => {}
        "" => errors.required(path.child("type"), ""),
        other => {
            errors.not_supported(path.child("type"), other, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"])
        }
    }
}

fn validate_external_name(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let set = [
        ("clusterIPs", spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty())),
        ("ipFamilies", spec.ip_families.as_ref().is_some_and(|families| !families.is_empty())),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ];
    for (name, _) in set.iter().filter(|(_, set)| *set) {
        errors.forbidden(path.child(name), "may not be set for ExternalName services");
    }
    let name = text(&spec.external_name);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.required(path.child("externalName"), "");
    } else {
        errors.invalid_each(&path.child("externalName"), name, dns1123_subdomain(name));
    }
}

fn validate_ports(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let path = path.child("ports");
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&port.name);
        if name.is_empty() && ports.len() > 1 {
            errors.required(path.child("name"), "");
        } else if !name.is_empty() {
            errors.invalid_each(&path.child("name"), name, dns1123_label(name));
            if !names.insert(name) {
                errors.duplicate(path.child("name"), name);
            }
        }
        validate_port(port, &path, errors);
    }
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let node_port = port.node_port.unwrap_or(0);
        if node_port != 0 {
            if text(&spec.type_) == "ClusterIP" {
                errors.forbidden(path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
            if !node_ports.insert((text(&port.protocol), node_port)) {
                errors.duplicate(path.child("nodePort"), node_port);
            }
        }
        if !numbers.insert((text(&port.protocol), port.port)) {
            let fields = [
                ("Name", json!("")),
                ("Protocol", json!(port.protocol)),
                ("AppProtocol", json!(null)),
                ("Port", json!(port.port)),
                ("TargetPort", json!(0)),
                ("NodePort", json!(0)),
            ];
            errors.duplicate_struct(path, &fields);
        }
    }
}

fn validate_port(port: &ServicePort, path: &Path, errors: &mut Errors) {
    for message in port_number(i64::from(port.port)) {
        errors.invalid(path.child("port"), port.port, message);
    }
    match text(&port.protocol) {
        "TCP" | "UDP" | "SCTP" => {}
        "" => errors.required(path.child("protocol"), ""),
        other => errors.not_supported(path.child("protocol"), other, &["SCTP", "TCP", "UDP"]),
    }
    if let Some(target) = &port.target_port {
        validate_port_or_name(target, &path.child("targetPort"), errors);
    }
    if let Some(protocol) = &port.app_protocol {
        errors.invalid_each(&path.child("appProtocol"), protocol, qualified_name(protocol));
    }
}

fn validate_affinity(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let config = path.child("sessionAffinityConfig");
    match text(&spec.session_affinity) {
        "" => errors.required(path.child("sessionAffinity"), ""),
        "None" if spec.session_affinity_config.is_some() => {
            errors.forbidden(config, "must not be set when session affinity is None");
        }
        "None" => {}
        "ClientIP" => {
            let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
            match timeout {
                None => errors.required(config, "when session affinity type is ClientIP"),
                Some(seconds) if !(1..=HOLD_ONE_DAY).contains(&seconds) => errors.invalid(
                    config.child("clientIP").child("timeoutSeconds"),
                    seconds,
                    format!("must be greater than 0 and less than {HOLD_ONE_DAY}"),
                ),
                Some(_) => {}
            }
        }
        other => errors.not_supported(path.child("sessionAffinity"), other, &["ClientIP", "None"]),
    }
}

/// `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`, each alone and with the others; of a Service that has an address.
pub(super) fn validate_addresses(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    validate_first_ip(spec, &path.child("clusterIPs"), errors);
    validate_families(spec, path, errors);
    if validate_ips(spec, &path.child("clusterIPs"), errors) && !is_headless(spec) {
        validate_pairs(spec, path, errors);
    }
}

/// `clusterIP` and the first of `clusterIPs` are one.
fn validate_first_ip(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match (text(&spec.cluster_ip), ips.first()) {
        ("", Some(_)) => errors.invalid(path.clone(), json!(ips), "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(path.clone(), ""),
        (ip, Some(first)) if first != ip => {
            errors.invalid(path.clone(), json!(ips), "first value must match `clusterIP`");
        }
        _ => {}
    }
}

/// True if each is an address, or the one is `None`.
fn validate_ips(spec: &ServiceSpec, path: &Path, errors: &mut Errors) -> bool {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let mut good = true;
    if is_headless(spec) && ips.len() > 1 {
        good = false;
        errors.invalid(path.clone(), json!(ips), "'None' must be the first and only value");
    }
    for (index, ip) in ips.iter().enumerate().filter(|(index, ip)| *index != 0 || *ip != "None") {
        let problems = ip_address(ip);
        good &= problems.is_empty();
        errors.invalid_each(&path.index(index), ip, problems);
    }
    if ips.len() > 2 {
        errors.invalid(path.clone(), json!(ips), "may only hold up to 2 values");
    }
    good
}

fn validate_families(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    for (index, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(index);
        if !matches!(family.as_str(), "IPv4" | "IPv6") {
            errors.not_supported(path.clone(), family.as_str(), &["IPv4", "IPv6"]);
        }
        if families[..index].contains(family) {
            errors.duplicate(path, family.as_str());
        }
    }
    if let Some(policy) = &spec.ip_family_policy
        && !matches!(policy.as_str(), "PreferDualStack" | "RequireDualStack" | "SingleStack")
    {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.not_supported(path.child("ipFamilyPolicy"), policy.as_str(), &supported);
    }
}

/// One address a family, and each of the family that is named for it.
fn validate_pairs(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let is_v6 = |ip: &String| ip.contains(':');
    // More than two are refused already, and hold two of one family.
    if ips.len() == 2 && is_v6(&ips[0]) == is_v6(&ips[1]) {
        errors.invalid(path.clone(), json!(ips), "may specify no more than one IP for each IP family");
    }
    for (index, (ip, family)) in ips.iter().zip(spec.ip_families.iter().flatten()).enumerate() {
        if (family == "IPv6") != is_v6(ip) && matches!(family.as_str(), "IPv4" | "IPv6") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(path.index(index), ip.as_str(), detail);
        }
    }
}

fn validate_balancer(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let balanced = text(&spec.type_) == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let ranges_path = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.forbidden(ranges_path.clone(), only);
    }
    for (index, range) in ranges.iter().enumerate() {
        errors.invalid_each(&ranges_path.index(index), range.trim(), cidr(range.trim()));
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !balanced {
        errors.forbidden(path.child("allocateLoadBalancerNodePorts"), only);
    }
    if balanced && spec.allocate_load_balancer_node_ports.is_none() {
        errors.required(Path::root("allocateLoadBalancerNodePorts"), "");
    }
    match &spec.load_balancer_class {
        Some(class) if balanced => errors.invalid_each(&path.child("loadBalancerClass"), class, qualified_name(class)),
        Some(_) => errors.forbidden(path.child("loadBalancerClass"), only),
        None => {}
    }
}

fn validate_traffic(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let external = path.child("externalTrafficPolicy");
    match (is_externally_accessible(spec), text(&spec.external_traffic_policy)) {
        (false, "") | (true, "Cluster" | "Local") => {}
        (false, other) => errors.invalid(external, other, "may only be set for externally-accessible services"),
        (true, "") => errors.required(external, ""),
        (true, other) => errors.not_supported(external, other, &["Cluster", "Local"]),
    }
    let port = spec.health_check_node_port.unwrap_or(0);
    let health = path.child("healthCheckNodePort");
    match (needs_health_check(spec), port) {
        (false, 0) => {}
        (false, _) => errors.invalid(
            health,
            port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        (true, 0) => errors.required(health, ""),
        (true, _) => {
            for message in port_number(i64::from(port)) {
                errors.invalid(health.clone(), port, message);
            }
        }
    }
    match spec.internal_traffic_policy.as_deref() {
        Some("Cluster" | "Local") => {}
        None if text(&spec.type_) == "ExternalName" => {}
        None => errors.required(path.child("internalTrafficPolicy"), ""),
        Some(other) => errors.not_supported(path.child("internalTrafficPolicy"), other, &["Cluster", "Local"]),
    }
    if let Some(distribution) = spec.traffic_distribution.as_deref()
        && !matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode")
    {
        let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.not_supported(path.child("trafficDistribution"), distribution, &supported);
    }
}

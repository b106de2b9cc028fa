//! The networking group: policies, ingresses and their classes.

use k8s_openapi::api::networking::v1::{
    IPBlock, Ingress, IngressClass, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::super::{PATH_NAMED, PLAIN, SPEC_AND_STATUS};
use crate::defaults::fill;
use crate::field::{Errors, Path};
use crate::names::{cidr, dns1123_subdomain, port_name, port_number, subdomain_name, wildcard_subdomain};
use crate::strategy::{Generation, Shape, Strategy, Write};
use crate::typed::{Rules, Typed};
use crate::validate::labels::validate_label_selector;
use crate::validate::numbers::validate_immutable;

pub fn strategy(kind: &str) -> &'static dyn Strategy {
    match kind {
        "NetworkPolicy" => const { &Typed::<NetworkPolicyRules>::new() },
        "Ingress" => const { &Typed::<IngressRules>::new() },
        "IngressClass" => const { &Typed::<IngressClassRules>::new() },
        "ServiceCIDR" => &SPEC_AND_STATUS,
        "IPAddress" => &PATH_NAMED,
        _ => &PLAIN,
    }
}

pub struct NetworkPolicyRules;

impl Rules for NetworkPolicyRules {
    type Object = NetworkPolicy;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec);

    fn default(object: &mut NetworkPolicy) {
        let spec = object.spec.get_or_insert_default();
        let ingress = spec.ingress.iter_mut().flatten().filter_map(|rule| rule.ports.as_mut());
        let egress = spec.egress.iter_mut().flatten().filter_map(|rule| rule.ports.as_mut());
        for port in ingress.chain(egress).flatten() {
            fill(&mut port.protocol, "TCP".to_owned());
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn validate(object: &NetworkPolicy, errors: &mut Errors) {
        if let Some(spec) = &object.spec {
            validate_policy(spec, errors);
        }
    }
}

fn validate_policy(spec: &NetworkPolicySpec, errors: &mut Errors) {
    let path = Path::root("spec");
    validate_label_selector(spec.pod_selector.as_ref(), &path.child("podSelector"), errors);
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = path.child("ingress").index(index);
        validate_policy_ports(&rule.ports, &path, errors);
        validate_peers(&rule.from, &path.child("from"), errors);
    }
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let path = path.child("egress").index(index);
        validate_policy_ports(&rule.ports, &path, errors);
        validate_peers(&rule.to, &path.child("to"), errors);
    }
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let path = path.child("policyTypes");
    if types.len() > 2 {
        return errors.invalid(path, json!(types), "may not specify more than two policyTypes");
    }
    for (index, name) in types.iter().enumerate().filter(|(_, name)| !matches!(name.as_str(), "Ingress" | "Egress")) {
        errors.not_supported(path.index(index), name.as_str(), &["Ingress", "Egress"]);
    }
}

fn validate_policy_ports(ports: &Option<Vec<NetworkPolicyPort>>, path: &Path, errors: &mut Errors) {
    for (index, port) in ports.iter().flatten().enumerate() {
        validate_policy_port(port, &path.child("ports").index(index), errors);
    }
}

fn validate_policy_port(port: &NetworkPolicyPort, path: &Path, errors: &mut Errors) {
    if let Some(protocol) = port.protocol.as_deref().filter(|p| !matches!(*p, "TCP" | "UDP" | "SCTP")) {
        errors.not_supported(path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let end_path = path.child("endPort");
    match (&port.port, port.end_port) {
        (None, Some(end)) => errors.invalid(end_path, end, "may not be specified when `port` is not specified"),
        (None, None) => {}
        (Some(IntOrString::Int(number)), end) => {
            for message in port_number(i64::from(*number)) {
                errors.invalid(path.child("port"), *number, message);
            }
            if let Some(end) = end {
                if end < *number {
                    errors.invalid(end_path.clone(), end, "must be greater than or equal to `port`");
                }
                for message in port_number(i64::from(end)) {
                    errors.invalid(end_path.clone(), end, message);
                }
            }
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                errors.invalid(end_path, end, "may not be specified when `port` is non-numeric");
            }
            errors.invalid_each(&path.child("port"), name, port_name(name));
        }
    }
}

fn validate_peers(peers: &Option<Vec<NetworkPolicyPeer>>, path: &Path, errors: &mut Errors) {
    for (index, peer) in peers.iter().flatten().enumerate() {
        let path = path.index(index);
        validate_label_selector(peer.pod_selector.as_ref(), &path.child("podSelector"), errors);
        validate_label_selector(peer.namespace_selector.as_ref(), &path.child("namespaceSelector"), errors);
        let selected = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match (&peer.ip_block, selected) {
            (None, false) => errors.required(path, "must specify a peer"),
            (None, true) => {}
            (Some(block), selected) => {
                validate_block(block, &path.child("ipBlock"), errors);
                if selected {
                    errors.forbidden(path, "may not specify both ipBlock and another peer");
                }
            }
        }
    }
}

fn validate_block(block: &IPBlock, path: &Path, errors: &mut Errors) {
    if block.cidr.is_empty() {
        return errors.required(path.child("cidr"), "");
    }
    errors.invalid_each(&path.child("cidr"), &block.cidr, cidr(&block.cidr));
    let outer = parse_cidr(&block.cidr);
    for (index, except) in block.except.iter().flatten().enumerate() {
        let path = path.child("except").index(index);
        errors.invalid_each(&path, except, cidr(except));
        if let (Some(outer), Some(inner)) = (outer, parse_cidr(except))
            && !is_strict_subset(inner, outer)
        {
            errors.invalid(path, except.as_str(), "must be a strict subset of `cidr`");
        }
    }
}

/// Address bits (IPv6 form for both families), prefix length, family.
fn parse_cidr(text: &str) -> Option<(u128, u32, bool)> {
    let (address, length) = text.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    Some(match address.parse().ok()? {
        std::net::IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, length, false),
        std::net::IpAddr::V6(v6) => (u128::from(v6), length, true),
    })
}

fn is_strict_subset(inner: (u128, u32, bool), outer: (u128, u32, bool)) -> bool {
    let shift = 128 - outer.1.min(128);
    let prefix = |bits: u128| if shift == 128 { 0 } else { bits >> shift };
    inner.2 == outer.2 && inner.1 > outer.1 && prefix(inner.0) == prefix(outer.0)
}

pub struct IngressRules;

impl Rules for IngressRules {
    type Object = Ingress;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();

    fn validate(object: &Ingress, errors: &mut Errors) {
        validate_ingress(object, errors);
    }
}

fn validate_ingress(object: &Ingress, errors: &mut Errors) {
    let Some(spec) = &object.spec else { return };
    let path = Path::root("spec");
    if spec.rules.as_ref().is_none_or(Vec::is_empty) && spec.default_backend.is_none() {
        let value = serde_json::to_value(spec).unwrap_or_default();
        errors.invalid(path.clone(), value, "either `defaultBackend` or `rules` must be specified");
    }
    for (index, rule) in spec.rules.iter().flatten().enumerate() {
        let path = path.child("rules").index(index);
        let host = rule.host.as_deref().unwrap_or_default();
        if host.contains('*') {
            errors.invalid_each(&path.child("host"), host, wildcard_subdomain(host));
        } else if !host.is_empty() {
            errors.invalid_each(&path.child("host"), host, dns1123_subdomain(host));
        }
        let Some(http) = &rule.http else { continue };
        let path = path.child("http").child("paths");
        if http.paths.is_empty() {
            errors.required(path.clone(), "");
        }
        for (index, entry) in http.paths.iter().enumerate() {
            let path = path.index(index);
            let route = entry.path.as_deref().unwrap_or_default();
            match entry.path_type.as_str() {
                "Exact" | "Prefix" if !route.starts_with('/') => {
                    errors.invalid(path.child("path"), route, "must be an absolute path");
                }
                "Exact" | "Prefix" | "ImplementationSpecific" => {}
                "" => errors.required(path.child("pathType"), "pathType must be specified"),
                other => {
                    errors.not_supported(path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"])
                }
            }
        }
    }
}

pub struct IngressClassRules;

impl Rules for IngressClassRules {
    type Object = IngressClass;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec);

    fn default(object: &mut IngressClass) {
        if let Some(parameters) = object.spec.as_mut().and_then(|spec| spec.parameters.as_mut()) {
            fill(&mut parameters.scope, "Cluster".to_owned());
        }
    }

    fn validate_update(_write: &Write<'_>, object: &IngressClass, old: &IngressClass, errors: &mut Errors) {
        let controller = |class: &IngressClass| class.spec.as_ref().and_then(|spec| spec.controller.clone());
        let path = Path::root("spec").child("controller");
        validate_immutable(&controller(object), &controller(old), path, errors);
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, run_create};
    use serde_json::json;

    const GROUP: &str = "networking.k8s.io";

    #[test]
    fn policies() {
        let policy = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 80}]}]}});
        let made = run_create(GROUP, "v1", "NetworkPolicy", policy).unwrap();
        assert_eq!(made["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(made["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        let block = |cidr: &str, except: &str| json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr, "except": [except]}}]}]}});
        check_create(GROUP, "v1", "NetworkPolicy", block("10.0.0.0/8", "10.1.0.0/16"), "");
        check_create(
            GROUP,
            "v1",
            "NetworkPolicy",
            block("10.0.0.0/8", "11.1.0.0/16"),
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.1.0.0/16\": must be a strict subset of `cidr`",
        );
    }
}

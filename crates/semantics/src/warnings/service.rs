//! Services: fields that their type ignores, and what is on its way out.

use k8s_openapi::api::core::v1::Service;

use super::address::{cidr_warnings, ip_warning};
use crate::defaults::text;
use crate::field::Path;

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

pub fn service_warnings(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let path = Path::root("spec");
    let external_name = text(&spec.type_) == "ExternalName";
    let headless = text(&spec.type_) == "ClusterIP" && text(&spec.cluster_ip) == "None";
    let external_ips = spec.external_ips.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    if service.metadata.annotations.as_ref().is_some_and(|map| map.contains_key(HINTS)) {
        found.push(format!("annotation {HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let ips = spec.cluster_ips.iter().flatten().enumerate();
    found.extend(ips.filter_map(|(i, ip)| ip_warning(ip, &path.child("clusterIPs").index(i))));
    let ips = external_ips.iter().enumerate();
    found.extend(ips.filter_map(|(i, ip)| ip_warning(ip, &path.child("externalIPs").index(i))));
    found.extend(ip_warning(text(&spec.load_balancer_ip), &path.child("loadBalancerIP")));
    for (index, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        found.extend(cidr_warnings(range, &path.child("loadBalancerSourceRanges").index(index)));
    }
    let ignored = [
        (headless && !text(&spec.load_balancer_ip).is_empty(), "spec.loadBalancerIP is ignored for headless services"),
        (headless && !external_ips.is_empty(), "spec.externalIPs is ignored for headless services"),
        (headless && text(&spec.session_affinity) != "None", "spec.SessionAffinity is ignored for headless services"),
        (
            !external_ips.is_empty() && !headless && !external_name,
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (external_name && !external_ips.is_empty(), r#"spec.externalIPs is ignored when spec.type is "ExternalName""#),
        (
            !external_name && !text(&spec.external_name).is_empty(),
            r#"spec.externalName is ignored when spec.type is not "ExternalName""#,
        ),
        (
            text(&spec.traffic_distribution) == "PreferClose",
            r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#,
        ),
    ];
    found.extend(ignored.into_iter().filter(|(given, _)| *given).map(|(_, message)| message.to_owned()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(spec: Value, expect: &[&str]) {
        let service: Service = serde_json::from_value(json!({ "spec": spec })).unwrap();
        assert_eq!(service_warnings(&service), expect);
    }

    #[test]
    fn what_is_ignored_or_deprecated() {
        check(json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "sessionAffinity": "ClientIP"}), &[]);
        check(
            json!({"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP"}),
            &["spec.SessionAffinity is ignored for headless services"],
        );
        check(
            json!({"type": "NodePort", "externalIPs": ["1.2.3.4"], "trafficDistribution": "PreferClose"}),
            &[
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
                r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#,
            ],
        );
    }
}

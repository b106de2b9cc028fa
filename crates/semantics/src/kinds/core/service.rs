//! Service: defaults by type, what a change of type drops, and what an update without them keeps.
//!
//! Allocation of cluster IPs and node ports is the API server's: it calls [`prepare_allocation`], allocates, and then runs
//! the common create or update, which validates the result.

mod families;
mod validation;

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServiceSpec, ServiceStatus, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::Value;

use crate::defaults::{fill, fill_text, text};
use crate::field::Errors;
use crate::names::label_name;
use crate::strategy::{Context, Shape, Subresource, Write};
use crate::typed::{Rules, encode, misfit};
use crate::warnings::service::service_warnings;

const AFFINITY_SECONDS: i32 = 10_800;

pub struct ServiceRules;

impl Rules for ServiceRules {
    type Object = Service;
    const SHAPE: Shape = Shape::new(label_name).with_status();

    fn default(object: &mut Service) {
        let spec = object.spec.get_or_insert_default();
        default_affinity(spec);
        fill_text(&mut spec.type_, "ClusterIP");
        default_ports(spec);
        if is_externally_accessible(spec) {
            fill_text(&mut spec.external_traffic_policy, "Cluster");
        }
        if matches!(text(&spec.type_), "ClusterIP" | "NodePort" | "LoadBalancer") {
            fill(&mut spec.internal_traffic_policy, "Cluster".to_owned());
        }
        if text(&spec.type_) == "LoadBalancer" {
            fill(&mut spec.allocate_load_balancer_node_ports, true);
            default_ingress(&mut object.status);
        }
    }

    fn prepare_create(_context: &Context, object: &mut Service) {
        normalize_cluster_ips(object.spec.get_or_insert_default(), None);
    }

    fn validate_create(object: &Service, errors: &mut Errors) {
        validation::validate(object, None, errors);
    }

    fn prepare_update(write: &Write<'_>, object: &mut Service, old: &Service) {
        if write.sub != Subresource::Main {
            return;
        }
        let (Some(spec), Some(old_spec)) = (&mut object.spec, &old.spec) else { return };
        patch_allocated(spec, old_spec);
        drop_type_dependent(spec, old_spec);
        if text(&spec.type_) != "LoadBalancer"
            && let Some(status) = &mut object.status
        {
            status.load_balancer = None;
        }
    }

    fn validate_update(write: &Write<'_>, object: &Service, old: &Service, errors: &mut Errors) {
        if write.sub == Subresource::Main {
            validation::validate_change(object, old, errors);
            validation::validate(object, Some(old), errors);
        }
    }

    fn warnings(object: &Service, _old: Option<&Service>) -> Vec<String> {
        service_warnings(object)
    }
}

/// Before allocation: brings `clusterIP` and `clusterIPs` in line, settles the IP families and, for an update, takes over
/// what was allocated before and the client left out. The object has been defaulted. Errors: addresses and families that no
/// allocation can serve.
pub fn prepare_allocation(object: &mut Value, old: Option<&Value>) -> Result<(), Errors> {
    let spec = |object: &Value| ServiceSpec::deserialize(&object["spec"]).map_err(|error| misfit(error.to_string()));
    let (mut new, old) = (spec(object)?, old.map(spec).transpose()?);
    match &old {
        Some(old) => {
            patch_allocated(&mut new, old);
            drop_type_dependent(&mut new, old);
        }
        None => normalize_cluster_ips(&mut new, None),
    }
    let mut errors = Errors::new();
    families::settle(&mut new, old.as_ref(), &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    object["spec"] = encode(&new)?;
    Ok(())
}

fn default_affinity(spec: &mut ServiceSpec) {
    fill_text(&mut spec.session_affinity, "None");
    match text(&spec.session_affinity) {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let seconds = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
            if seconds.is_none() {
                let client_ip = Some(ClientIPConfig { timeout_seconds: Some(AFFINITY_SECONDS) });
                spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
            }
        }
        _ => {}
    }
}

fn default_ports(spec: &mut ServiceSpec) {
    for port in spec.ports.iter_mut().flatten() {
        fill_text(&mut port.protocol, "TCP");
        let absent = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if absent {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
}

fn default_ingress(status: &mut Option<ServiceStatus>) {
    let ingress =
        status.iter_mut().filter_map(|s| s.load_balancer.as_mut()).flat_map(|l| l.ingress.iter_mut().flatten());
    for point in ingress.filter(|point| !text(&point.ip).is_empty()) {
        fill(&mut point.ip_mode, "VIP".to_owned());
    }
}

/// True if traffic from outside the cluster can come in: by node port, balancer, or external IPs.
pub(super) fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    let by_ip = text(&spec.type_) == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    matches!(text(&spec.type_), "LoadBalancer" | "NodePort") || by_ip
}

/// True if a balancer needs a port of its own to ask for the health of local endpoints.
pub(super) fn needs_health_check(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

pub(super) fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    text(&spec.type_) != "ExternalName"
}

fn needs_node_port(spec: &ServiceSpec) -> bool {
    let balanced = text(&spec.type_) == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false);
    text(&spec.type_) == "NodePort" || balanced
}

/// `clusterIP` and the first of `clusterIPs` are one thing; a client that knows only one of them changes both.
fn normalize_cluster_ips(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    let ip = text(&spec.cluster_ip).to_owned();
    let Some(old) = old else {
        if !ip.is_empty() && ips.is_empty() {
            spec.cluster_ips = Some(vec![ip]);
        }
        return;
    };
    let old_ip = text(&old.cluster_ip);
    let same_ips = ips == old.cluster_ips.clone().unwrap_or_default();
    if old_ip.is_empty() && !ip.is_empty() && ips.is_empty() {
        spec.cluster_ips = Some(vec![ip]);
    } else if !old_ip.is_empty() && ip.is_empty() && same_ips {
        spec.cluster_ips = None;
    } else if !old_ip.is_empty() && !ip.is_empty() && ip != old_ip && same_ips {
        spec.cluster_ips = Some(vec![ip]);
    }
}

/// What was allocated and the client left out stays.
fn patch_allocated(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if text(&spec.cluster_ip).is_empty() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        let no_ips = spec.cluster_ips.as_ref().is_none_or(Vec::is_empty);
        if no_ips && spec.cluster_ip == old.cluster_ip {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    normalize_cluster_ips(spec, Some(old));
    if needs_node_port(old) && needs_node_port(spec) {
        patch_node_ports(spec, old);
    }
    if needs_health_check(old) && needs_health_check(spec) && matches!(spec.health_check_node_port, None | Some(0)) {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

/// A port without node port takes the one its protocol and number had, unless another port uses it now.
fn patch_node_ports(spec: &mut ServiceSpec, old: &ServiceSpec) {
    let key = |protocol: &Option<String>, number: i32| (text(protocol).to_owned(), number);
    let before: std::collections::BTreeMap<_, _> = old
        .ports
        .iter()
        .flatten()
        .filter_map(|p| p.node_port.filter(|n| *n != 0).map(|n| (key(&p.protocol, p.port), n)))
        .collect();
    let mut used: std::collections::BTreeSet<_> =
        spec.ports.iter().flatten().filter_map(|p| p.node_port.map(|n| key(&p.protocol, n))).collect();
    for port in spec.ports.iter_mut().flatten().filter(|p| matches!(p.node_port, None | Some(0))) {
        if let Some(node_port) = before.get(&key(&port.protocol, port.port))
            && used.insert(key(&port.protocol, *node_port))
        {
            port.node_port = Some(*node_port);
        }
    }
}

/// A change of type drops what the old type needed and the client did not touch.
fn drop_type_dependent(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        if spec.cluster_ip == old.cluster_ip && spec.cluster_ips == old.cluster_ips {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        clear_if_same(&mut spec.ip_families, &old.ip_families);
        clear_if_same(&mut spec.ip_family_policy, &old.ip_family_policy);
    }
    let ports = |spec: &ServiceSpec| spec.ports.iter().flatten().map(|p| p.node_port).collect::<Vec<_>>();
    if needs_node_port(old) && !needs_node_port(spec) && ports(spec) == ports(old) {
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    if needs_health_check(old) && !needs_health_check(spec) {
        clear_if_same(&mut spec.health_check_node_port, &old.health_check_node_port);
    }
    if text(&old.type_) == "LoadBalancer" && text(&spec.type_) != "LoadBalancer" {
        clear_if_same(&mut spec.allocate_load_balancer_node_ports, &old.allocate_load_balancer_node_ports);
        clear_if_same(&mut spec.load_balancer_class, &old.load_balancer_class);
    }
    if is_externally_accessible(old) && !is_externally_accessible(spec) {
        clear_if_same(&mut spec.external_traffic_policy, &old.external_traffic_policy);
    }
}

fn clear_if_same<T: PartialEq>(slot: &mut Option<T>, old: &Option<T>) {
    if slot == old {
        *slot = None;
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update, run_create, run_update};
    use crate::strategy::Subresource;
    use serde_json::json;

    const SERVICE: (&str, &str, &str) = ("", "v1", "Service");

    #[test]
    fn defaults() {
        let made = run_create("", "v1", "Service", json!({"spec": {"ports": [{"port": 80}]}})).unwrap();
        assert_eq!(made["spec"]["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
        assert_eq!(made["spec"]["sessionAffinity"], "None");
        assert_eq!(made["spec"]["internalTrafficPolicy"], "Cluster");
        assert_eq!(made["spec"]["type"], "ClusterIP");
    }

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
            "ports": [{"port": 80, "nodePort": 30001}]}});
        let new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let made = run_update(SERVICE, Subresource::Main, new, old.clone()).unwrap();
        assert_eq!(made["spec"]["clusterIP"], "10.43.0.5");
        assert_eq!(made["spec"]["ports"][0]["nodePort"], 30001);
        let new = json!({"spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.43.0.5",
            "clusterIPs": ["10.43.0.5"], "ports": [{"port": 80, "nodePort": 30001}]}});
        let made = run_update(SERVICE, Subresource::Main, new, old).unwrap();
        assert!(made["spec"]["clusterIP"].is_null() && made["spec"]["ports"][0]["nodePort"].is_null());
    }

    #[test]
    fn external_ips_are_addresses_of_hosts() {
        let service = |ip: &str| {
            json!({"spec": {"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
                "ports": [{"port": 80}], "externalIPs": [ip]}})
        };
        let check = |ip: &str, expect: &str| check_create("", "v1", "Service", service(ip), expect);
        check("192.0.2.1", "");
        check(
            "127.0.0.1",
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
        check("0.0.0.0", "spec.externalIPs[0]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)");
        check(
            "x",
            "spec.externalIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }

    #[test]
    fn a_condition_may_have_no_time() {
        let old = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}});
        let condition = json!({"type": "A", "status": "True", "reason": "B", "message": "c"});
        let mut with_null = condition.clone();
        with_null["lastTransitionTime"] = json!(null);
        for given in [condition.clone(), with_null] {
            let mut new = old.clone();
            new["status"] = json!({ "conditions": [given] });
            let made = run_update(SERVICE, Subresource::Status, new, old.clone()).unwrap();
            assert_eq!(made["status"]["conditions"], json!([condition]));
        }
    }

    #[test]
    fn validation() {
        check_create("", "v1", "Service", json!({}), "spec.ports: Required value");
        check_create(
            "",
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 0}, {"port": 70000, "name": "b"}]}}),
            "[spec.ports[0].name: Required value, spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[1].port: Invalid value: 70000: must be between 1 and 65535, inclusive, spec.ports[1].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive]",
        );
        check_update(
            "",
            "v1",
            "Service",
            json!({"spec": {"clusterIP": "10.43.0.6", "clusterIPs": ["10.43.0.6"], "ports": [{"port": 80}]}}),
            json!({"spec": {"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"], "ports": [{"port": 80}]}}),
            "spec.clusterIPs[0]: Invalid value: [\"10.43.0.6\"]: may not change once set",
        );
    }
}

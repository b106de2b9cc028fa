//! Writes of a pod's status.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{dns1123_subdomain, ip_address, qualified_name};

/// Keeps the spec's half and what old clients do not send back.
pub(super) fn prepare(object: &mut Pod, old: &Pod) {
    object.metadata.deletion_timestamp.clone_from(&old.metadata.deletion_timestamp);
    object.metadata.owner_references.clone_from(&old.metadata.owner_references);
    let status = object.status.get_or_insert_default();
    super::default_ips(status);
    let Some(before) = &old.status else { return };
    if text(&status.qos_class).is_empty() {
        status.qos_class.clone_from(&before.qos_class);
    }
    if status.resource_claim_statuses.is_none() {
        status.resource_claim_statuses.clone_from(&before.resource_claim_statuses);
    }
    if status.extended_resource_claim_status.is_none() {
        status.extended_resource_claim_status.clone_from(&before.extended_resource_claim_status);
    }
    if matches!(status.observed_generation, None | Some(0)) {
        status.observed_generation = before.observed_generation;
    }
    for condition in status.conditions.iter_mut().flatten() {
        if matches!(condition.observed_generation, None | Some(0)) {
            let same = before.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
            condition.observed_generation = same.and_then(|c| c.observed_generation);
        }
    }
}

pub(super) fn validate(object: &Pod, old: &Pod, errors: &mut Errors) {
    let path = Path::root("status");
    let (Some(status), before) = (&object.status, old.status.clone().unwrap_or_default()) else { return };
    for (index, condition) in status.conditions.iter().flatten().enumerate() {
        let path = path.child("conditions").index(index);
        validate_generation(condition.observed_generation, &path, errors);
        errors.invalid_each(&path.child("Type"), &condition.type_, qualified_name(&condition.type_));
    }
    let nominated = text(&status.nominated_node_name);
    if !nominated.is_empty() && nominated != text(&before.nominated_node_name) {
        errors.invalid_each(&path.child("nominatedNodeName"), nominated, dns1123_subdomain(nominated));
        if old.spec.as_ref().is_some_and(|spec| !text(&spec.node_name).is_empty()) {
            let detail = "may not be set on pods that are already bound to a node";
            errors.forbidden(path.child("nominatedNodeName"), detail);
        }
    }
    validate_generation(status.observed_generation, &path, errors);
    if !text(&before.qos_class).is_empty() && status.qos_class != before.qos_class {
        errors.invalid(path.child("qosClass"), text(&status.qos_class), "field is immutable");
    }
    let restarts = old.spec.as_ref().map(|spec| text(&spec.restart_policy).to_owned()).unwrap_or_default();
    validate_transitions(
        status.container_statuses.as_deref().unwrap_or_default(),
        before.container_statuses.as_deref().unwrap_or_default(),
        &restarts,
        old,
        &path.child("containerStatuses"),
        errors,
    );
    validate_pod_ips(status, &before, errors);
    validate_host_ips(status, &before, errors);
}

fn validate_generation(generation: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(generation) = generation.filter(|generation| *generation < 0) {
        errors.invalid(path.child("observedGeneration"), generation, "must be a non-negative integer");
    }
}

fn validate_pod_ips(status: &PodStatus, before: &PodStatus, errors: &mut Errors) {
    let path = Path::root("status").child("podIPs");
    let ips: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    let known: Vec<&str> = before.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    validate_families(&ips, &known, &path, errors);
    let single = text(&status.pod_ip);
    match ips.first() {
        Some(_) if single.is_empty() => errors.invalid(path, go_ips(&ips), NOT_BOTH),
        None if !single.is_empty() => errors.invalid(path, go_ips(&ips), NOT_BOTH),
        Some(first) if *first != single => {
            errors.invalid(path.index(0).child("ip"), *first, "must be equal to `podIP`");
        }
        _ => {}
    }
}

const NOT_BOTH: &str = "podIP and podIPs must either both be set or both be unset";

fn validate_host_ips(status: &PodStatus, before: &PodStatus, errors: &mut Errors) {
    let path = Path::root("status").child("hostIPs");
    let ips: Vec<&str> = status.host_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    let known: Vec<&str> = before.host_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    if let Some(first) = ips.first().filter(|first| **first != text(&status.host_ip)) {
        errors.invalid(path.index(0).child("ip"), *first, "must be equal to `hostIP`");
    }
    validate_families(&ips, &known, &path, errors);
}

/// Addresses, at most one of each family; those that were `known` before stay as they are.
fn validate_families(ips: &[&str], known: &[&str], path: &Path, errors: &mut Errors) {
    for (index, ip) in ips.iter().enumerate().filter(|(_, ip)| !known.contains(ip)) {
        errors.invalid_each(&path.index(index), ip, ip_address(ip));
    }
    if ips.len() > 2 || ips.len() == 2 && ips[0].contains(':') == ips[1].contains(':') {
        errors.invalid(path.clone(), go_ips(ips), "may specify no more than one IP for each IP family");
    }
}

/// The list as messages show it: by the names of upstream's struct.
fn go_ips(ips: &[&str]) -> Value {
    ips.iter().map(|ip| json!({ "IP": ip })).collect()
}

/// A container that ended for good does not come back to life.
fn validate_transitions(
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    restarts: &str,
    pod: &Pod,
    path: &Path,
    errors: &mut Errors,
) {
    if restarts == "Always" {
        return;
    }
    let rules = |name: &str| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers.filter(|c| c.name == name).any(|c| c.restart_policy.is_some() || c.restart_policy_rules.is_some())
    };
    for (index, before) in old.iter().enumerate() {
        let Some(ended) = before.state.as_ref().and_then(|s| s.terminated.as_ref()) else { continue };
        if restarts == "OnFailure" && ended.exit_code != 0 || rules(&before.name) {
            continue;
        }
        let now = new.iter().find(|status| status.name == before.name);
        if now.is_some_and(|status| status.state.as_ref().is_some_and(|s| s.terminated.is_none())) {
            errors.forbidden(path.index(index).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::run_update;
    use crate::strategy::Subresource;
    use serde_json::{Value, json};

    fn check(status: Value, expect: &str) {
        let pod = |status: Value| json!({"spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}, "status": status});
        let found = run_update(("", "v1", "Pod"), Subresource::Status, pod(status), pod(json!({"hostIP": "10.0.0.1"})));
        assert_eq!(found.err().unwrap_or_default(), expect);
    }

    #[test]
    fn addresses_of_the_host() {
        check(json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}), "");
        check(
            json!({"hostIP": "10.0.0.2", "hostIPs": [{"ip": "10.0.0.1"}]}),
            "status.hostIPs[0].ip: Invalid value: \"10.0.0.1\": must be equal to `hostIP`",
        );
        check(
            json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
            "status.hostIPs: Invalid value: [{\"IP\":\"10.0.0.1\"},{\"IP\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
        );
    }

    #[test]
    fn generations_are_not_negative() {
        check(
            json!({"observedGeneration": -1}),
            "status.observedGeneration: Invalid value: -1: must be a non-negative integer",
        );
        check(
            json!({"conditions": [{"type": "Ready", "status": "True", "observedGeneration": -1}]}),
            "status.conditions[0].observedGeneration: Invalid value: -1: must be a non-negative integer",
        );
    }

    #[test]
    fn a_bound_pod_is_not_nominated() {
        check(
            json!({"nominatedNodeName": "m"}),
            "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
        );
    }
}

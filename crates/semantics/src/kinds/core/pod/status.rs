//! Writes of a pod's status.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::json;

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
        let path = path.child("conditions").index(index).child("Type");
        errors.invalid_each(&path, &condition.type_, qualified_name(&condition.type_));
    }
    let nominated = text(&status.nominated_node_name);
    if !nominated.is_empty() && nominated != text(&before.nominated_node_name) {
        errors.invalid_each(&path.child("nominatedNodeName"), nominated, dns1123_subdomain(nominated));
    }
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
    for (index, ip) in status.pod_ips.iter().flatten().enumerate() {
        errors.invalid_each(&path.child("podIPs").index(index), &ip.ip, ip_address(&ip.ip));
    }
    let ips: Vec<&String> = status.pod_ips.iter().flatten().map(|ip| &ip.ip).collect();
    if ips.len() > 2 || ips.len() == 2 && ips[0].contains(':') == ips[1].contains(':') {
        errors.invalid(path.child("podIPs"), json!(ips), "may specify no more than one IP for each IP family");
    }
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

//! Node: allocatable defaults to capacity; its CIDRs and provider id, once set, stay.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use serde_json::json;

use crate::field::{ErrorKind, Errors, FieldError, Path, Shown};
use crate::names::{cidr, label_value, qualified_name, subdomain_name};
use crate::resources::round_up;
use crate::strategy::{Shape, Write};
use crate::typed::Rules;
use crate::validate::resources::validate_quantity;
use crate::warnings::address::cidr_warnings;

const EXTERNAL_ID: &str = "spec.externalID: this field is deprecated, and is unused by Kubernetes";

pub struct NodeRules;

impl Rules for NodeRules {
    type Object = Node;
    const SHAPE: Shape = Shape::new(subdomain_name).with_status();

    fn default(object: &mut Node) {
        let Some(status) = &mut object.status else { return };
        round_up(&mut status.capacity);
        round_up(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn validate_create(object: &Node, errors: &mut Errors) {
        validate_spec(&object.spec, errors);
        validate_resources(object, errors);
    }

    fn validate_update(_write: &Write<'_>, object: &Node, old: &Node, errors: &mut Errors) {
        validate_spec(&object.spec, errors);
        validate_resources(object, errors);
        validate_addresses(object, errors);
        if let (Some(spec), Some(old)) = (&object.spec, &old.spec) {
            validate_spec_update(spec, old, errors);
        }
    }

    fn warnings(object: &Node, _old: Option<&Node>) -> Vec<String> {
        let Some(spec) = &object.spec else { return Vec::new() };
        let removed = spec.config_source.is_some().then(|| "spec.configSource: the feature is removed".to_owned());
        let external = spec.external_id.as_ref().is_some_and(|id| !id.is_empty());
        let external = external.then(|| EXTERNAL_ID.to_owned());
        let ranges = spec.pod_cidrs.iter().flatten().enumerate();
        let ranges = ranges.flat_map(|(i, range)| cidr_warnings(range, &Path::root("spec").child("podCIDRs").index(i)));
        removed.into_iter().chain(external).chain(ranges).collect()
    }
}

fn validate_spec(spec: &Option<NodeSpec>, errors: &mut Errors) {
    let Some(spec) = spec else { return };
    validate_taints(spec.taints.as_deref().unwrap_or_default(), errors);
    let path = Path::root("spec").child("podCIDRs");
    let cidrs = spec.pod_cidrs.as_deref().unwrap_or_default();
    for (index, value) in cidrs.iter().enumerate() {
        errors.invalid_each(&path.index(index), value, cidr(value));
    }
    let families: BTreeSet<bool> = cidrs.iter().map(|c| c.contains(':')).collect();
    if cidrs.len() > 1 && (families.len() < 2 || cidrs.len() > 2) {
        errors.invalid(path, json!(cidrs), "may specify no more than one CIDR for each IP family");
    }
}

/// Reported below `metadata.taints`, as upstream does.
fn validate_taints(taints: &[Taint], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = Path::root("metadata").child("taints").index(index);
        errors.invalid_each(&path.child("key"), &taint.key, qualified_name(&taint.key));
        let value = taint.value.as_deref().unwrap_or_default();
        let problems = label_value(value);
        if !problems.is_empty() {
            errors.invalid(path.child("value"), value, problems.join(";"));
        }
        match taint.effect.as_str() {
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            "" => errors.required(path.child("effect"), ""),
            other => {
                errors.not_supported(path.child("effect"), other, &["NoSchedule", "PreferNoSchedule", "NoExecute"])
            }
        }
        if !seen.insert((&taint.key, &taint.effect)) {
            errors.push(FieldError {
                field: path.to_string(),
                kind: ErrorKind::Duplicate,
                detail: "taints must be unique by key and effect pair".to_owned(),
                bad_value: serde_json::to_value(taint).ok().map(Shown::Json),
            });
        }
    }
}

fn validate_resources(node: &Node, errors: &mut Errors) {
    let Some(status) = &node.status else { return };
    for (name, list) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (resource, quantity) in list.iter().flatten() {
            let path = Path::root("status").child(name).child(resource);
            validate_quantity(resource, quantity, path, errors);
        }
    }
}

fn validate_addresses(node: &Node, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, address) in node.status.iter().flat_map(|s| s.addresses.iter().flatten()).enumerate() {
        if !seen.insert((&address.type_, &address.address)) {
            let value = json!({"type": address.type_, "address": address.address});
            errors.duplicate(Path::root("status").child("addresses").index(index), value);
        }
    }
}

fn validate_spec_update(spec: &NodeSpec, old: &NodeSpec, errors: &mut Errors) {
    let before = old.pod_cidrs.as_deref().unwrap_or_default();
    if !before.is_empty() && spec.pod_cidrs.as_deref().unwrap_or_default() != before {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(Path::root("spec").child("podCIDRs"), detail);
    }
    let path = Path::root("spec").child("providerID");
    let new = spec.provider_id.as_deref().unwrap_or_default();
    match old.provider_id.as_deref().unwrap_or_default() {
        "" => {}
        _ if new.is_empty() => errors.invalid(path, json!(null), "field cannot be cleared once set"),
        before if before != new => errors.invalid(path, json!(null), "field cannot be modified once set"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update};
    use serde_json::json;

    #[test]
    fn taints() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        check_create("", "v1", "Node", json!({"spec": {"taints": [taint]}}), "");
        check_create(
            "",
            "v1",
            "Node",
            json!({"spec": {"taints": [{"key": "a", "effect": "No"}]}}),
            "metadata.taints[0].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        );
    }

    #[test]
    fn cidrs_stay() {
        check_update(
            "",
            "v1",
            "Node",
            json!({"spec": {"podCIDRs": ["10.1.0.0/24"]}}),
            json!({"spec": {"podCIDRs": ["10.0.0.0/24"]}}),
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
        );
    }
}

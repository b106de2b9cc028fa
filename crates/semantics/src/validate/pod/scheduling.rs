//! What steers a pod to a node: affinity, tolerations, spread, gates.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
    Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use serde_json::json;

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{label_name, label_value, qualified_name, subdomain_name};
use crate::validate::labels::validate_label_selector;

pub(super) fn validate_affinity(affinity: Option<&Affinity>, path: &Path, errors: &mut Errors) {
    let Some(affinity) = affinity else { return };
    if let Some(nodes) = &affinity.node_affinity {
        validate_node_affinity(nodes, &path.child("nodeAffinity"), errors);
    }
    if let Some(pods) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        validate_pod_terms(required, preferred, &path, errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        validate_pod_terms(required, preferred, &path, errors);
    }
}

fn validate_node_affinity(affinity: &NodeAffinity, path: &Path, errors: &mut Errors) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        validate_node_selector(required, &path.child("requiredDuringSchedulingIgnoredDuringExecution"), errors);
    }
    let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
        validate_weight(term.weight, &path.index(index), errors);
        let path = path.index(index).child("preference");
        validate_node_term(&term.preference, Values::Any, &path, errors);
    }
}

/// The terms of which a node must fit one.
pub(crate) fn validate_node_selector(selector: &NodeSelector, path: &Path, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(path.clone(), "must have at least one node selector term");
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        validate_node_term(term, Values::OfLabels, &path.index(index), errors);
    }
}

fn validate_weight(weight: i32, path: &Path, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// Which values a term may look for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    OfLabels,
    /// A preference for what no label can be is never met, and does no harm.
    Any,
}

fn validate_node_term(term: &NodeSelectorTerm, values: Values, path: &Path, errors: &mut Errors) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        validate_node_requirement(requirement, &path, errors);
        if values == Values::OfLabels {
            validate_label_values(requirement, &path.child("values"), errors);
        }
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        validate_node_field(requirement, &path.child("matchFields").index(index), errors);
    }
}

fn validate_node_requirement(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let values_path = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(values_path.clone(), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(values_path.clone(), detail);
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(values_path.clone(), "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
    }
    errors.invalid_each(&path.child("key"), &requirement.key, qualified_name(&requirement.key));
}

fn validate_label_values(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    for (index, value) in requirement.values.iter().flatten().enumerate() {
        errors.invalid_each(&path.index(index), value, label_value(value));
    }
}

fn validate_node_field(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => errors.required(
            path.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
    }
    if requirement.key != "metadata.name" {
        return errors.invalid(path.child("key"), requirement.key.as_str(), "not a valid field selector key");
    }
    for (index, value) in values.iter().enumerate() {
        errors.invalid_each(&path.child("values").index(index), value, subdomain_name(value, false));
    }
}

fn validate_pod_terms(
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
    path: &Path,
    errors: &mut Errors,
) {
    for (index, term) in required.iter().enumerate() {
        let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").index(index);
        validate_pod_term(term, &path, errors);
    }
    for (index, term) in preferred.iter().enumerate() {
        let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(index);
        validate_weight(term.weight, &path, errors);
        validate_pod_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn validate_pod_term(term: &PodAffinityTerm, path: &Path, errors: &mut Errors) {
    validate_label_selector(term.label_selector.as_ref(), &path.child("labelSelector"), errors);
    validate_label_selector(term.namespace_selector.as_ref(), &path.child("namespaceSelector"), errors);
    for name in term.namespaces.iter().flatten() {
        errors.invalid_each(&path.child("namespace"), name, label_name(name, false));
    }
    let lists = [("matchLabelKeys", &term.match_label_keys), ("mismatchLabelKeys", &term.mismatch_label_keys)];
    for (name, keys) in lists {
        validate_label_keys(keys.as_deref(), term.label_selector.is_some(), &path.child(name), errors);
    }
    if term.topology_key.is_empty() {
        errors.required(path.child("topologyKey"), "can not be empty");
    }
    errors.invalid_each(&path.child("topologyKey"), &term.topology_key, qualified_name(&term.topology_key));
}

fn validate_label_keys(keys: Option<&[String]>, has_selector: bool, path: &Path, errors: &mut Errors) {
    let keys = keys.unwrap_or_default();
    if !keys.is_empty() && !has_selector {
        errors.forbidden(path.clone(), "must not be specified when labelSelector is not set");
    }
    for (index, key) in keys.iter().enumerate() {
        errors.invalid_each(&path.index(index), key, qualified_name(key));
    }
}

pub(super) fn validate_tolerations(tolerations: &[Toleration], path: &Path, errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        validate_toleration(toleration, &path.index(index), errors);
    }
}

fn validate_toleration(toleration: &Toleration, path: &Path, errors: &mut Errors) {
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    let (operator, effect) = (text(&toleration.operator), text(&toleration.effect));
    if !key.is_empty() {
        errors.invalid_each(&path.child("key"), key, qualified_name(key));
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(path.child("operator"), operator, detail);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(path.child("effect"), effect, detail);
    }
    match operator {
        "" | "Equal" => {
            let problems = label_value(value);
            if !problems.is_empty() {
                errors.invalid(path.child("operator"), value, problems.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.invalid(path.child("operator"), value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        "Lt" | "Gt" => errors.not_supported(path.child("operator"), operator, &["Equal", "Exists", "Lt", "Gt"]),
        other => errors.not_supported(path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        errors.not_supported(path.child("effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

pub(super) fn validate_gates(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.child("readinessGates").index(index).child("conditionType");
        errors.invalid_each(&path, &gate.condition_type, qualified_name(&gate.condition_type));
    }
    let mut seen = BTreeSet::new();
    for (index, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = path.child("schedulingGates").index(index);
        errors.invalid_each(&path, &gate.name, qualified_name(&gate.name));
        if !seen.insert(&gate.name) {
            errors.duplicate(path, gate.name.as_str());
        }
    }
}

pub(super) fn validate_spread(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (index, constraint) in constraints.iter().enumerate() {
        let at = path.index(index);
        validate_constraint(constraint, &at, errors);
        let pair = |c: &TopologySpreadConstraint| (c.topology_key.clone(), c.when_unsatisfiable.clone());
        if constraints[index + 1..].iter().any(|other| pair(other) == pair(constraint)) {
            let (key, action) = pair(constraint);
            errors.duplicate(at.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
    }
}

fn validate_constraint(constraint: &TopologySpreadConstraint, path: &Path, errors: &mut Errors) {
    if constraint.max_skew <= 0 {
        errors.invalid(path.child("maxSkew"), constraint.max_skew, "must be greater than zero");
    }
    if constraint.topology_key.is_empty() {
        errors.required(path.child("topologyKey"), "can not be empty");
    }
    let action = constraint.when_unsatisfiable.as_str();
    if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
        errors.not_supported(path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
    }
    if let Some(domains) = constraint.min_domains {
        if domains <= 0 {
            errors.invalid(path.child("minDomains"), domains, "must be greater than zero");
        }
        if action != "DoNotSchedule" {
            let detail = format!("can only use minDomains if whenUnsatisfiable={}, not {}", "DoNotSchedule", action);
            errors.invalid(path.child("minDomains"), json!(domains), detail);
        }
    }
    let policies = [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ];
    for (name, policy) in policies {
        if let Some(policy) = policy.as_deref().filter(|policy| !matches!(*policy, "Honor" | "Ignore")) {
            errors.not_supported(path.child(name), policy, &["Honor", "Ignore"]);
        }
    }
    let keys = constraint.match_label_keys.as_deref();
    validate_label_keys(keys, constraint.label_selector.is_some(), &path.child("matchLabelKeys"), errors);
    validate_label_selector(constraint.label_selector.as_ref(), &path.child("labelSelector"), errors);
}

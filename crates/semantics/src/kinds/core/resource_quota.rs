//! ResourceQuota: amounts are valid, scopes known and never change.

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use serde_json::json;

use crate::field::{Errors, Path};
use crate::names::{qualified_name, subdomain_name};
use crate::quota::Source;
use crate::resources::{ResourceList, round_up};
use crate::strategy::{Shape, Write};
use crate::typed::Rules;
use crate::validate::resources::validate_list;

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

pub struct ResourceQuotaRules;

impl Rules for ResourceQuotaRules {
    type Object = ResourceQuota;
    const SHAPE: Shape = Shape::new(subdomain_name).with_status();

    fn default(object: &mut ResourceQuota) {
        if let Some(spec) = &mut object.spec {
            round_up(&mut spec.hard);
        }
        if let Some(status) = &mut object.status {
            round_up(&mut status.hard);
            round_up(&mut status.used);
        }
    }

    fn validate_create(object: &ResourceQuota, errors: &mut Errors) {
        validate(object, errors);
    }

    fn validate_update(_write: &Write<'_>, object: &ResourceQuota, old: &ResourceQuota, errors: &mut Errors) {
        validate(object, errors);
        let scopes = |quota: &ResourceQuota| {
            let mut scopes = quota.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
            scopes.sort();
            scopes
        };
        if scopes(object) != scopes(old) {
            errors.invalid(Path::root("spec").child("scopes"), json!(scopes(object)), "field is immutable");
        }
    }
}

fn validate(object: &ResourceQuota, errors: &mut Errors) {
    if let Some(spec) = &object.spec {
        let path = Path::root("spec");
        validate_amounts(&spec.hard, &path.child("hard"), errors);
        validate_scopes(spec, &path, errors);
        validate_selector(spec, &path, errors);
    }
    if let Some(status) = &object.status {
        validate_amounts(&status.hard, &Path::root("status").child("hard"), errors);
        validate_amounts(&status.used, &Path::root("status").child("used"), errors);
    }
}

fn validate_amounts(list: &Option<ResourceList>, path: &Path, errors: &mut Errors) {
    for name in list.iter().flat_map(|list| list.keys()) {
        validate_name(name, &path.key(name), errors);
    }
    validate_list(list, path, errors);
}

/// A name without a domain is one that quotas know; what comes under a domain may be known to somebody else.
fn validate_name(name: &str, path: &Path, errors: &mut Errors) {
    let problems = qualified_name(name);
    let is_qualified = problems.is_empty();
    errors.invalid_each(path, name, problems);
    if name.contains('/') || Source::of_name(name).is_some() {
        return;
    }
    if is_qualified && name != "storage" {
        errors.invalid(path.clone(), name, "must be a standard resource type or fully qualified");
    }
    errors.invalid(path.clone(), name, "must be a standard resource for quota");
}

fn validate_scopes(spec: &ResourceQuotaSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("scopes");
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    for _ in scopes.iter().filter(|scope| !SCOPES.contains(&scope.as_str())) {
        errors.invalid(path.clone(), json!(scopes), "unsupported scope");
    }
    let has = |name: &str| scopes.iter().any(|scope| scope == name);
    if has("BestEffort") && has("NotBestEffort") || has("Terminating") && has("NotTerminating") {
        errors.invalid(path, json!(scopes), "conflicting scopes");
    }
}

fn validate_selector(spec: &ResourceQuotaSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("scopeSelector").child("matchExpressions");
    for requirement in spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten()) {
        let (scope, operator) = (requirement.scope_name.as_str(), requirement.operator.as_str());
        if !SCOPES.contains(&scope) {
            errors.invalid(path.child("scopeName"), scope, "unsupported scope");
        }
        if SCOPES.contains(&scope)
            && !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && operator != "Exists"
        {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(path.child("operator"), operator, detail);
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.required(
                path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                path.child("values"),
                json!(values),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(path.child("operator"), operator, "not a valid selector operator"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::aggregate;
    use serde_json::from_value;

    fn check(name: &str, expect: &str) {
        let mut errors = Errors::new();
        validate(&from_value(json!({"spec": {"hard": {name: "1"}}})).unwrap(), &mut errors);
        assert_eq!(aggregate(&errors.into_vec()), expect, "{name}");
    }

    #[test]
    fn names_without_a_domain_are_known() {
        for name in ["pods", "requests.cpu", "hugepages-2Mi", "services.nodeports", "secrets", "count/pods", "a.b/c"] {
            check(name, "");
        }
        let alien = |name: &str| {
            let error = format!("spec.hard[{name}]: Invalid value: \"{name}\": must be a standard resource");
            format!("[{error} type or fully qualified, {error} for quota]")
        };
        check("weird", &alien("weird"));
        check("requests.pods", &alien("requests.pods"));
        check("storage", "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota");
    }
}

//! Resource requirements of containers and pods: names, amounts, requests within limits.

use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::amount::{milli, nanos_or_zero};
use crate::field::{Errors, Path};
use crate::names::qualified_name;
use crate::resources::{ResourceList, is_huge_page, is_pod_level_resource};
use crate::validate::numbers::NEGATIVE;

/// Whose resources they are: the names allowed differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Container,
    Pod,
}

pub fn validate_requirements(requirements: &ResourceRequirements, owner: Owner, path: &Path, errors: &mut Errors) {
    let limits = requirements.limits.clone().unwrap_or_default();
    let requests = requirements.requests.clone().unwrap_or_default();
    for (name, list) in [("limits", &limits), ("requests", &requests)] {
        for (resource, quantity) in list {
            let path = path.child(name);
            let key = path.key(resource);
            validate_name(resource, owner, &key, errors);
            validate_amount(resource, quantity, &key, errors);
        }
    }
    validate_bounds(&requests, &limits, &path.child("requests"), errors);
    let huge = limits.keys().chain(requests.keys()).any(|name| is_huge_page(name));
    let plain = ["cpu", "memory"].iter().any(|name| limits.contains_key(*name) || requests.contains_key(*name));
    if huge && !plain {
        errors.forbidden(path.clone(), "HugePages require cpu or memory");
    }
}

/// A resource that a node offers beyond the native ones: `domain/name`, not under kubernetes.io.
pub fn is_extended(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    let native = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    !native && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

fn validate_name(name: &str, owner: Owner, path: &Path, errors: &mut Errors) {
    errors.invalid_each(path, name, qualified_name(name));
    match owner {
        Owner::Container if !name.contains('/') => {
            let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name);
            if !standard {
                errors.invalid(path.clone(), name, "must be a standard resource for containers");
            }
        }
        Owner::Container if !is_extended(name) && !name.contains("kubernetes.io/") => {
            errors.invalid(path.clone(), name, "doesn't follow extended resource name standard");
        }
        Owner::Pod if !is_pod_level_resource(name) => {
            errors.not_supported(path.clone(), name, &["cpu", "hugepages-", "memory"]);
        }
        _ => {}
    }
}

fn validate_amount(
    name: &str,
    quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity,
    path: &Path,
    errors: &mut Errors,
) {
    if nanos_or_zero(quantity) < 0 {
        errors.invalid(path.clone(), quantity.0.as_str(), NEGATIVE);
    }
    if (is_extended(name) || is_huge_page(name)) && milli(quantity) % 1000 != 0 {
        errors.invalid(path.clone(), quantity.0.as_str(), "must be an integer");
    }
}

/// A request is at most the limit; resources that cannot be overcommitted are requested as they are limited.
fn validate_bounds(requests: &ResourceList, limits: &ResourceList, path: &Path, errors: &mut Errors) {
    for (name, request) in requests {
        let overcommit = !is_extended(name) && !is_huge_page(name);
        match limits.get(name) {
            Some(limit) if !overcommit && nanos_or_zero(request) != nanos_or_zero(limit) => {
                let detail = format!("must be equal to {name} limit of {}", limit.0);
                errors.invalid(path.clone(), request.0.as_str(), detail);
            }
            Some(limit) if nanos_or_zero(request) > nanos_or_zero(limit) => {
                let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
                errors.invalid(path.clone(), request.0.as_str(), detail);
            }
            None if !overcommit => {
                errors.required(path.clone(), "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::aggregate;
    use serde_json::{Value, from_value, json};

    fn check(requirements: Value, expect: &str) {
        let mut errors = Errors::new();
        validate_requirements(&from_value(requirements).unwrap(), Owner::Container, &Path::root("r"), &mut errors);
        assert_eq!(aggregate(&errors.into_vec()), expect);
    }

    #[test]
    fn requests_within_limits() {
        check(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1000m"}}), "");
        check(
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            "r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        );
        check(
            json!({"requests": {"example.com/a": "1"}}),
            "r.requests: Required value: Limit must be set for non overcommitable resources",
        );
        check(
            json!({"requests": {"cpu": "-1"}}),
            "r.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        );
        check(
            json!({"limits": {"gpu": "1"}}),
            "r.limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
        );
    }
}

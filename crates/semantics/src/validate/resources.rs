//! Resource requirements of containers and pods: names, amounts, requests within limits.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::amount::{milli, nanos, nanos_or_zero, whole};
use crate::field::{Errors, Path};
use crate::names::qualified_name;
use crate::resources::{HUGE_PAGES_PREFIX, ResourceList, is_huge_page, is_pod_level_resource};
use crate::validate::numbers::NEGATIVE;

/// Resources of quotas that are counted.
const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whose resources they are: the names allowed differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Container,
    Pod,
}

pub fn validate_requirements(requirements: &ResourceRequirements, owner: Owner, path: &Path, errors: &mut Errors) {
    let none = ResourceList::new();
    let limits = requirements.limits.as_ref().unwrap_or(&none);
    let requests = requirements.requests.as_ref().unwrap_or(&none);
    for (name, quantity) in limits {
        validate_one(name, quantity, owner, &path.child("limits").key(name), errors);
        validate_huge_pages(name, quantity, &path.child("limits").key(name), errors);
    }
    for (name, quantity) in requests {
        validate_one(name, quantity, owner, &path.child("requests").key(name), errors);
        validate_bound(name, quantity, limits, path, errors);
        validate_huge_pages(name, quantity, &path.child("requests").key(name), errors);
    }
    let huge = limits.keys().chain(requests.keys()).any(|name| is_huge_page(name));
    let plain = ["cpu", "memory"].iter().any(|name| limits.contains_key(*name) || requests.contains_key(*name));
    if huge && !plain {
        errors.forbidden(path.clone(), "HugePages require cpu or memory");
    }
}

/// A resource that a node offers beyond the native ones: `domain/name`, not of kubernetes.io.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

/// Upstream takes any name with `kubernetes.io/` in it for one of its own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn validate_one(name: &str, quantity: &Quantity, owner: Owner, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    validate_name(name, path, errors);
    match owner {
        Owner::Container => validate_container_name(name, path, errors),
        Owner::Pod if errors.len() == before && !is_pod_level_resource(name) => {
            errors.not_supported(path.clone(), name, &["cpu", "hugepages-", "memory"]);
        }
        Owner::Pod => {}
    }
    validate_quantity(name, quantity, path.clone(), errors);
}

/// What a resource may be called anywhere.
fn validate_name(name: &str, path: &Path, errors: &mut Errors) {
    let problems = qualified_name(name);
    if problems.is_empty() && !name.contains('/') && !is_standard(name) {
        errors.invalid(path.clone(), name, "must be a standard resource type or fully qualified");
    }
    errors.invalid_each(path, name, problems);
}

fn validate_container_name(name: &str, path: &Path, errors: &mut Errors) {
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            errors.invalid(path.clone(), name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path.clone(), name, "doesn't follow extended resource name standard");
    }
}

/// Resources that Kubernetes knows by themselves, of containers, quotas or both.
fn is_standard(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let storage = matches!(name, "storage" | "requests.storage");
    storage
        || matches!(plain, "cpu" | "memory" | "ephemeral-storage")
        || COUNTED.contains(&name)
        || is_huge_page(name.strip_prefix("requests.").unwrap_or(name))
}

/// Resources are not negative; countable ones are whole.
pub(crate) fn validate_quantity(resource: &str, quantity: &Quantity, path: Path, errors: &mut Errors) {
    if nanos_or_zero(quantity) < 0 {
        errors.invalid(path.clone(), quantity.0.as_str(), NEGATIVE);
    }
    if is_integer_resource(resource) && milli(quantity) % 1000 != 0 {
        errors.invalid(path, quantity.0.as_str(), "must be an integer");
    }
}

/// Every amount of the list, keyed below `path`.
pub(crate) fn validate_list(list: &Option<ResourceList>, path: &Path, errors: &mut Errors) {
    for (resource, quantity) in list.iter().flatten() {
        validate_quantity(resource, quantity, path.key(resource), errors);
    }
}

/// Things that are counted, and extended resources.
fn is_integer_resource(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Huge pages come whole; their size is in the name.
fn validate_huge_pages(name: &str, quantity: &Quantity, path: &Path, errors: &mut Errors) {
    let Some(size) = name.strip_prefix(HUGE_PAGES_PREFIX) else { return };
    let size = nanos(&Quantity(size.to_owned())).filter(|size| *size > 0 && size % 1_000_000_000 == 0);
    let pages = i128::from(whole(quantity)) * 1_000_000_000;
    if size.is_none_or(|size| pages % size != 0) {
        let detail = format!("{} is not positive integer multiple of {name}", quantity.0);
        errors.invalid(path.clone(), quantity.0.as_str(), detail);
    }
}

/// A request is at most the limit; resources that cannot be overcommitted are requested as they are limited.
fn validate_bound(name: &str, request: &Quantity, limits: &ResourceList, path: &Path, errors: &mut Errors) {
    let overcommit = is_native(name) && !is_huge_page(name);
    match limits.get(name) {
        Some(limit) if !overcommit && nanos_or_zero(request) != nanos_or_zero(limit) => {
            let detail = format!("must be equal to {name} limit of {}", limit.0);
            errors.invalid(path.child("requests"), request.0.as_str(), detail);
        }
        Some(limit) if nanos_or_zero(request) > nanos_or_zero(limit) => {
            let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
            errors.invalid(path.child("requests"), request.0.as_str(), detail);
        }
        None if !overcommit => {
            errors.required(path.child("limits"), "Limit must be set for non overcommitable resources");
        }
        _ => {}
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
            "r.limits: Required value: Limit must be set for non overcommitable resources",
        );
        check(
            json!({"requests": {"cpu": "-1"}}),
            "r.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        );
        check(
            json!({"limits": {"gpu": "1"}}),
            "[r.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified, r.limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers]",
        );
        check(
            json!({"limits": {"storage": "1", "kubernetes.io/a": "1"}}),
            "r.limits[storage]: Invalid value: \"storage\": must be a standard resource for containers",
        );
    }

    #[test]
    fn what_cannot_be_overcommitted() {
        check(json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}), "");
        check(
            json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "2"}}),
            "r.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 2",
        );
        check(
            json!({"limits": {"example.com/gpu": "1500m"}}),
            "r.limits[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
        );
        check(json!({"limits": {"hugepages-2Mi": "4Mi", "cpu": "1"}}), "");
        check(
            json!({"limits": {"hugepages-2Mi": "3Mi"}}),
            "[r.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi, r: Forbidden: HugePages require cpu or memory]",
        );
        check(
            json!({"limits": {"hugepages-x": "1", "cpu": "1"}}),
            "r.limits[hugepages-x]: Invalid value: \"1\": 1 is not positive integer multiple of hugepages-x",
        );
    }
}

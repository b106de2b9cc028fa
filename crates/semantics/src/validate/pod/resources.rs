//! Resources of the pod as a whole: valid, and in line with those of its containers.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

use super::claims::{claim_names, validate_container_claims};
use crate::amount::nanos_or_zero;
use crate::field::{Errors, Path};
use crate::resources::{container_limits, container_requests, is_huge_page};
use crate::validate::resources::{Owner, validate_requirements};

pub(super) fn validate_pod_resources(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(resources) = &spec.resources else { return };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return errors.forbidden(path.clone(), "may not be set for a windows pod");
    }
    if let Some(claims) = &resources.claims {
        errors.forbidden(path.child("claims"), "claims may not be set for Resources at pod-level");
        validate_container_claims(claims, &claim_names(spec), &path.child("claims"), errors);
    }
    validate_requirements(resources, Owner::Pod, path, errors);
    validate_sums(spec, resources, path, errors);
    validate_single_limits(spec, resources, path, errors);
}

/// The pod asks for no less than its containers do together; huge pages may not be overcommitted either.
fn validate_sums(spec: &PodSpec, resources: &ResourceRequirements, path: &Path, errors: &mut Errors) {
    let sums = [
        ("requests", &resources.requests, container_requests(spec)),
        ("limits", &resources.limits, container_limits(spec)),
    ];
    for (field, list, sum) in sums {
        let texts = sum.to_list();
        for (name, amount) in list.iter().flatten().filter(|(name, _)| field == "requests" || is_huge_page(name)) {
            if let Some(total) = texts.get(name).filter(|_| nanos_or_zero(amount) < sum.nanos(name)) {
                let detail = format!("must be greater than or equal to aggregate container {field} of {}", total.0);
                errors.invalid(path.child(field).key(name), amount.0.as_str(), detail);
            }
        }
    }
}

/// No container may use more than the pod.
fn validate_single_limits(spec: &PodSpec, resources: &ResourceRequirements, path: &Path, errors: &mut Errors) {
    let Some(most) = &resources.limits else { return };
    for (index, container) in spec.containers.iter().enumerate() {
        for (name, limit) in container.resources.iter().flat_map(|resources| resources.limits.iter().flatten()) {
            if let Some(most) = most.get(name).filter(|most| nanos_or_zero(limit) > nanos_or_zero(most)) {
                let path = path.child("containers").index(index).key(name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {}", most.0);
                errors.invalid(path, limit.0.as_str(), detail);
            }
        }
    }
}

/// What running a pod costs beyond its containers has the names and amounts of limits.
pub(super) fn validate_overhead(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(overhead) = &spec.overhead else { return };
    let limits = ResourceRequirements { limits: Some(overhead.clone()), ..ResourceRequirements::default() };
    validate_requirements(&limits, Owner::Container, path, errors);
}

#[cfg(test)]
mod tests {
    use crate::check::check_create;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(pod: Value, container: Value, expect: &str) {
        let container = json!({"name": "c", "image": "i", "resources": container});
        check_create("", "v1", "Pod", json!({"spec": {"containers": [container], "resources": pod}}), expect);
    }

    #[test]
    fn the_pod_covers_its_containers() {
        check(json!({"limits": {"cpu": "2"}}), json!({"limits": {"cpu": "1"}}), "");
        check(
            json!({"limits": {"cpu": "1"}}),
            json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1m"}}),
            "spec.resources.containers[0][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1",
        );
        check(
            json!({"requests": {"cpu": "1"}}),
            json!({"requests": {"cpu": "2"}}),
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
        );
        check(
            json!({"claims": []}),
            json!({}),
            "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level",
        );
    }
}

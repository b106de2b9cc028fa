//! The resize subresource: cpu and memory of running containers change in place, nothing else.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::field::{Errors, Path};
use crate::qos::qos_class;
use crate::resources::ResourceList;

/// A resize carries over resources and resize policies only.
pub(super) fn keep_all_but_resources(object: &mut Pod, old: &Pod) {
    let (Some(spec), Some(old_spec)) = (&object.spec, &old.spec) else { return };
    let none = Vec::new();
    let init = spec.init_containers.as_ref().unwrap_or(&none);
    let old_init = old_spec.init_containers.as_ref().unwrap_or(&none);
    if spec.containers.len() != old_spec.containers.len() || init.len() != old_init.len() {
        return;
    }
    let mut kept = old_spec.clone();
    kept.resources.clone_from(&spec.resources);
    carry(&mut kept.containers, &spec.containers);
    carry(kept.init_containers.as_mut().unwrap_or(&mut Vec::new()), init);
    let metadata = keep_metadata(object, old);
    *object = Pod { metadata, spec: Some(kept), status: old.status.clone() };
}

/// The old metadata with what any write may carry: version and managers.
pub(super) fn keep_metadata(object: &Pod, old: &Pod) -> ObjectMeta {
    ObjectMeta {
        resource_version: object.metadata.resource_version.clone(),
        managed_fields: object.metadata.managed_fields.clone(),
        ..old.metadata.clone()
    }
}

fn carry(kept: &mut [Container], new: &[Container]) {
    for (container, new) in kept.iter_mut().zip(new).filter(|(container, new)| container.name == new.name) {
        container.resources.clone_from(&new.resources);
        container.resize_policy.clone_from(&new.resize_policy);
    }
}

pub(super) fn validate(object: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(spec), Some(old_spec)) = (&object.spec, &old.spec) else { return };
    let path = Path::root("spec");
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror")) {
        return errors.forbidden(Path::default(), "static pods cannot be resized");
    }
    if spec.containers.len() != old_spec.containers.len() {
        return errors.forbidden(path.child("containers"), "containers may not be added or removed on resize");
    }
    if qos_class(spec) != qos_class(old_spec) {
        let class = qos_class(spec).as_str();
        errors.invalid(path.clone(), class, "Pod QOS Class may not change as a result of resizing");
    }
    for (index, (container, before)) in spec.containers.iter().zip(&old_spec.containers).enumerate() {
        let path = path.child("containers").index(index);
        if container.name != before.name {
            errors.forbidden(path.clone(), "containers may not be renamed or reordered on resize");
        }
        validate_container(&container.resources, &before.resources, &path.child("resources"), errors);
        if !only_cpu_and_memory(&container.resources, &before.resources) {
            errors.forbidden(Path::root("spec"), "only cpu and memory resources are mutable");
        }
    }
}

fn validate_container(
    new: &Option<ResourceRequirements>,
    old: &Option<ResourceRequirements>,
    path: &Path,
    errors: &mut Errors,
) {
    let (new, old) = (new.clone().unwrap_or_default(), old.clone().unwrap_or_default());
    for (name, new, old) in [("requests", &new.requests, &old.requests), ("limits", &new.limits, &old.limits)] {
        let path = path.child(name);
        let removed = |name: &str| has(old, name) && !has(new, name);
        if removed("cpu") || removed("memory") {
            errors.forbidden(path.clone(), format!("resource {name} cannot be removed"));
        }
    }
}

fn only_cpu_and_memory(new: &Option<ResourceRequirements>, old: &Option<ResourceRequirements>) -> bool {
    let (new, old) = (new.clone().unwrap_or_default(), old.clone().unwrap_or_default());
    others(&new.requests) == others(&old.requests) && others(&new.limits) == others(&old.limits)
}

fn has(list: &Option<ResourceList>, name: &str) -> bool {
    list.as_ref().is_some_and(|list| list.contains_key(name))
}

fn others(list: &Option<ResourceList>) -> ResourceList {
    let mut list = list.clone().unwrap_or_default();
    list.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
    list
}

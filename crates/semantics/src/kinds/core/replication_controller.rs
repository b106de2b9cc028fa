//! ReplicationController: selector and labels default to the template's labels.

use k8s_openapi::api::core::v1::{PodSpec, ReplicationController};
use serde_json::json;

use crate::defaults::fill;
use crate::defaults::pod_spec::default_template;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::numbers::validate_count;
use crate::validate::replicas::{ReplicaCounts, validate_replica_counts};
use crate::validate::template::validate_running_template;
use crate::warnings::workload_warnings;

pub struct ReplicationControllerRules;

impl Rules for ReplicationControllerRules {
    type Object = ReplicationController;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();

    fn default(object: &mut ReplicationController) {
        let spec = object.spec.get_or_insert_default();
        fill(&mut spec.replicas, 1);
        if let Some(template) = &mut spec.template {
            default_template(template);
            if let Some(labels) = template.metadata.as_ref().and_then(|m| m.labels.clone()) {
                if spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
                    spec.selector = Some(labels.clone());
                }
                if object.metadata.labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
                    object.metadata.labels = Some(labels);
                }
            }
        }
    }

    fn pod_spec(object: &mut ReplicationController) -> Option<&mut PodSpec> {
        object.spec.as_mut()?.template.as_mut()?.spec.as_mut()
    }

    fn validate(object: &ReplicationController, errors: &mut Errors) {
        let Some(spec) = &object.spec else { return };
        let path = Path::root("spec");
        validate_count(spec.min_ready_seconds, path.child("minReadySeconds"), errors);
        let selector = spec.selector.clone().unwrap_or_default();
        if selector.is_empty() {
            errors.required(path.child("selector"), "");
        }
        validate_count(spec.replicas, path.child("replicas"), errors);
        let path = path.child("template");
        let Some(template) = &spec.template else { return errors.required(path, "") };
        let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        if selector.iter().any(|(key, value)| labels.get(key) != Some(value)) {
            let detail = "`selector` does not match template `labels`";
            errors.invalid(path.child("metadata").child("labels"), json!(labels), detail);
        }
        validate_running_template(template, "ReplicationController", &path, errors);
    }

    fn validate_update(
        write: &Write<'_>,
        object: &ReplicationController,
        _old: &ReplicationController,
        errors: &mut Errors,
    ) {
        if write.sub == Subresource::Status {
            validate_status(object, errors);
        }
    }

    fn warnings(object: &ReplicationController, old: Option<&ReplicationController>) -> Vec<String> {
        let changed = old.is_none_or(|old| old.spec != object.spec);
        let template = object.spec.as_ref().and_then(|spec| spec.template.as_ref()).filter(|_| changed);
        workload_warnings(object.metadata.name.as_deref().filter(|_| old.is_none()), template)
    }
}

fn validate_status(object: &ReplicationController, errors: &mut Errors) {
    let Some(status) = &object.status else { return };
    let counts = ReplicaCounts {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas,
        ready: status.ready_replicas,
        available: status.available_replicas,
        terminating: None,
        observed_generation: status.observed_generation,
    };
    validate_replica_counts(&counts, errors);
}

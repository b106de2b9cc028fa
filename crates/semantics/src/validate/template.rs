//! Pod templates of workloads: the pod within, and how the workload's selector fits it.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::json;

use super::labels::{validate_annotations, validate_label_selector, validate_labels};
use super::pod::validate_pod_spec;
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::label_selector;

/// What every template must satisfy.
pub fn validate_template(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let metadata = template.metadata.clone().unwrap_or_default();
    validate_labels(&metadata.labels, &path.child("labels"), errors);
    validate_annotations(&metadata.annotations, &path.child("annotations"), errors);
    let Some(spec) = &template.spec else { return };
    validate_pod_spec(spec, &metadata, &path.child("spec"), errors);
    if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        let detail = "ephemeral containers not allowed in pod template";
        errors.forbidden(path.child("spec").child("ephemeralContainers"), detail);
    }
}

/// The template of a workload that keeps pods running for good; `owner` is the kind in messages.
pub fn validate_running_template(template: &PodTemplateSpec, owner: &str, path: &Path, errors: &mut Errors) {
    validate_template(template, path, errors);
    let Some(spec) = &template.spec else { return };
    let path = path.child("spec");
    if text(&spec.restart_policy) != "Always" {
        errors.not_supported(path.child("restartPolicy"), text(&spec.restart_policy), &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.forbidden(path.child("activeDeadlineSeconds"), detail);
    }
}

/// The selector of a workload: valid, not empty, and matching the template's labels. `owner` is the kind in messages.
pub fn validate_selector(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    owner: &str,
    path: &Path,
    errors: &mut Errors,
) {
    let selector_path = path.child("selector");
    validate_label_selector(Some(selector), &selector_path, errors);
    if label_selector::is_empty(selector) {
        let value = serde_json::to_value(selector).unwrap_or_default();
        errors.invalid(selector_path, value, format!("empty selector is invalid for {owner}"));
        return;
    }
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if !label_selector::matches(selector, &labels) {
        let path = path.child("template").child("metadata").child("labels");
        errors.invalid(path, json!(labels), "`selector` does not match template `labels`");
    }
}

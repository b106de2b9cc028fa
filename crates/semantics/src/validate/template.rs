//! Pod templates of workloads: the pod within, and how the workload's selector fits it.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::labels::{validate_annotations, validate_label_selector, validate_labels};
use super::numbers::validate_immutable;
use super::pod::{annotations, validate_pod_spec};
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::{absent_selector, label_selector};

/// What every template must satisfy.
pub fn validate_template(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let metadata = template.metadata.clone().unwrap_or_default();
    validate_labels(&metadata.labels, &path.child("labels"), errors);
    validate_annotations(&metadata.annotations, &path.child("annotations"), errors);
    let Some(spec) = &template.spec else { return };
    annotations::validate_annotations(&metadata, spec, &path.child("annotations"), errors);
    validate_pod_spec(spec, &metadata, &path.child("spec"), errors);
    annotations::validate_profiles_agree(&metadata, spec, &path.child("spec"), errors);
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

/// How a workload speaks of its selector.
#[derive(Debug, Clone, Copy)]
pub struct SelectorOwner {
    /// What messages call the workload.
    pub name: &'static str,
    /// What a selector is told that cannot be used; `None` if the faults of its parts are enough, and if it is left out.
    pub unusable: Option<&'static str>,
}

/// Deployments and ReplicaSets say the same of their selectors.
pub const DEPLOYMENT: SelectorOwner = SelectorOwner { name: "deployment", unusable: Some("invalid label selector") };

/// The selector of a workload: present, valid, not empty, and matching the template's labels. True if it can be used, so
/// that the template is worth a look. How the struct tells an absent one: [`crate::absent_selector`].
pub fn validate_selector(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    owner: SelectorOwner,
    path: &Path,
    errors: &mut Errors,
) -> bool {
    let selector_path = path.child("selector");
    let absent = absent_selector::is_absent(selector);
    let before = errors.len();
    validate_label_selector(Some(selector), &selector_path, errors);
    let usable = errors.len() == before;
    if let (false, Some(detail)) = (usable, owner.unusable) {
        errors.invalid(selector_path.clone(), selector_json(selector), detail);
    }
    if absent && owner.unusable.is_some() {
        errors.required(selector_path, "");
    } else if !absent && label_selector::is_empty(selector) {
        let detail = format!("empty selector is invalid for {}", owner.name);
        errors.invalid(selector_path, selector_json(selector), detail);
    }
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
    if usable && (absent || !label_selector::matches(selector, &labels.clone().unwrap_or_default())) {
        let path = path.child("template").child("metadata").child("labels");
        errors.invalid(path, json!(labels), "`selector` does not match template `labels`");
    }
    usable
}

/// A selector never changes.
pub fn validate_selector_unchanged(selector: &LabelSelector, old: &LabelSelector, errors: &mut Errors) {
    let path = Path::root("spec").child("selector");
    validate_immutable(&selector_json(selector), &selector_json(old), path, errors);
}

fn selector_json(selector: &LabelSelector) -> Value {
    match selector {
        absent if absent_selector::is_absent(absent) => Value::Null,
        empty if label_selector::is_empty(empty) => json!({}),
        parts => json!(parts),
    }
}

//! Labels, annotations and label selectors of typed structs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::field::{Errors, Path};
use crate::names::{label_value, qualified_name};

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

pub fn validate_labels(labels: &Option<BTreeMap<String, String>>, path: &Path, errors: &mut Errors) {
    for (key, value) in labels.iter().flatten() {
        errors.invalid_each(path, key, qualified_name(key));
        errors.invalid_each(path, value, label_value(value));
    }
}

pub fn validate_annotations(annotations: &Option<BTreeMap<String, String>>, path: &Path, errors: &mut Errors) {
    for key in annotations.iter().flatten().map(|(key, _)| key) {
        errors.invalid_each(path, key, qualified_name(&key.to_lowercase()));
    }
    validate_annotations_size(annotations, path, errors);
}

pub(crate) fn validate_annotations_size(
    annotations: &Option<BTreeMap<String, String>>,
    path: &Path,
    errors: &mut Errors,
) {
    let size: usize = annotations.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    if size > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path.clone(), ANNOTATIONS_BYTES_MAX);
    }
}

pub fn validate_label_selector(selector: Option<&LabelSelector>, path: &Path, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    validate_labels(&selector.match_labels, &path.child("matchLabels"), errors);
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        validate_requirement(requirement, &path.child("matchExpressions").index(index), errors);
    }
}

fn validate_requirement(requirement: &LabelSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors
                .forbidden(path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
    }
    errors.invalid_each(&path.child("key"), &requirement.key, qualified_name(&requirement.key));
    for (index, value) in values.iter().enumerate() {
        errors.invalid_each(&path.child("values").index(index), value, label_value(value));
    }
}

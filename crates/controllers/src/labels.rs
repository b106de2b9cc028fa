//! Labels of the API as the controllers ask for them: selector and metadata -> match or not.
//!
//! How a selector reads is `semantics::label_selector`'s.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use semantics::label_selector;

pub type Labels = BTreeMap<String, String>;

/// Whether `meta`'s labels satisfy `selector`.
pub fn is_selected(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    let no_labels = Labels::new();
    label_selector::matches(selector, meta.labels.as_ref().unwrap_or(&no_labels))
}

/// Whether `labels` has all of `wanted` with the same values.
pub fn contains_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

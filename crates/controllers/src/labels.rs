//! Label selectors of the API: selector and labels -> match or not.
//!
//! An empty selector matches everything; an operator that the API doesn't know matches nothing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};

pub type Labels = BTreeMap<String, String>;

/// Whether `meta`'s labels satisfy `selector`.
pub fn is_selected(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    let no_labels = Labels::new();
    let labels = meta.labels.as_ref().unwrap_or(&no_labels);
    let exact = selector.match_labels.as_ref().is_none_or(|wanted| contains_all(labels, wanted));
    exact && selector.match_expressions.iter().flatten().all(|requirement| satisfies(labels, requirement))
}

/// Whether `labels` has all of `wanted` with the same values.
pub fn contains_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether the selector names nothing, and so matches everything.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

fn satisfies(labels: &Labels, requirement: &LabelSelectorRequirement) -> bool {
    let value = labels.get(&requirement.key);
    let listed = |value: &String| requirement.values.iter().flatten().any(|wanted| wanted == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn check(selector: Value, labels: Value, expect: bool) {
        let meta: ObjectMeta = from_value(json!({ "labels": labels })).unwrap();
        assert_eq!(is_selected(&from_value(selector.clone()).unwrap(), &meta), expect, "{selector}");
    }

    #[test]
    fn every_operator() {
        let labels = json!({ "app": "web", "tier": "front" });
        check(json!({}), labels.clone(), true);
        check(json!({ "matchLabels": { "app": "web" } }), labels.clone(), true);
        check(json!({ "matchLabels": { "app": "db" } }), labels.clone(), false);
        let expression = |key: &str, operator: &str, values: Value| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        check(expression("app", "In", json!(["db", "web"])), labels.clone(), true);
        check(expression("app", "NotIn", json!(["web"])), labels.clone(), false);
        check(expression("zone", "NotIn", json!(["a"])), labels.clone(), true);
        check(expression("tier", "Exists", json!(null)), labels.clone(), true);
        check(expression("zone", "DoesNotExist", json!(null)), labels.clone(), true);
        check(expression("app", "Near", json!(["web"])), labels, false);
    }
}

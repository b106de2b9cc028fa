//! Label selectors of the API's typed form: selector and labels -> whether it matches.
//!
//! An empty selector matches everything; callers decide what an absent one means. A requirement with an unknown operator
//! matches nothing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// True if `labels` satisfy all parts of the selector.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

/// True if the selector has no part, and so matches everything.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

pub(crate) fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let found = labels.get(&requirement.key);
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|value| values.contains(value)),
        "NotIn" => found.is_none_or(|value| !values.contains(value)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn check(selector: Value, expect: bool) {
        let labels = from_value(json!({"app": "a", "tier": "web"})).unwrap();
        assert_eq!(matches(&from_value(selector.clone()).unwrap(), &labels), expect, "{selector}");
    }

    fn expression(key: &str, operator: &str, values: Value) -> Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn every_operator() {
        check(expression("tier", "In", json!(["db", "web"])), true);
        check(expression("tier", "NotIn", json!(["web"])), false);
        check(expression("none", "NotIn", json!(["web"])), true);
        check(expression("tier", "Exists", json!(null)), true);
        check(expression("none", "DoesNotExist", json!(null)), true);
        check(expression("app", "Near", json!(["a"])), false);
    }

    #[test]
    fn parts_are_a_conjunction() {
        check(json!({}), true);
        check(json!({"matchLabels": {"app": "a"}}), true);
        check(json!({"matchLabels": {"app": "b"}}), false);
        check(
            json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
            false,
        );
    }
}

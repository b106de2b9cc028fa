//! Node selectors and required node affinity: which nodes a pod may run on by their labels and name.
//!
//! Input: a pod's selector or affinity and a node's labels and name. Output: yes, no, or a weight. Terms are alternatives,
//! the requirements within a term must all hold; a term without any matches nothing; a term that cannot be parsed is
//! treated as not matching. Taints, resources and topology are not looked at.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PreferredSchedulingTerm,
};

/// What a selector looks at in a node.
#[derive(Debug, Clone, Copy)]
pub struct NodeFacts<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
}

/// True if the node satisfies both `spec.nodeSelector` and the required node affinity of a pod.
pub fn matches_pod_requirements(
    node_selector: Option<&BTreeMap<String, String>>,
    affinity: Option<&Affinity>,
    node: NodeFacts<'_>,
) -> bool {
    let labels_ok = node_selector.into_iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = affinity
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    labels_ok && required.is_none_or(|selector| matches(selector, node))
}

/// True if one term of `selector` matches the node.
pub fn matches(selector: &NodeSelector, node: NodeFacts<'_>) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, node))
}

/// True if the term has requirements and all of them hold for the node.
pub fn matches_term(term: &NodeSelectorTerm, node: NodeFacts<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|requirement| label_holds(requirement, node.labels))
        && fields.iter().all(|requirement| field_holds(requirement, node.name))
}

/// The sum of the weights of the preferred terms that match the node.
pub fn preferred_weight(terms: &[PreferredSchedulingTerm], node: NodeFacts<'_>) -> i64 {
    terms.iter().filter(|term| matches_term(&term.preference, node)).map(|term| i64::from(term.weight)).sum()
}

fn label_holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let found = labels.get(&requirement.key);
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|value| values.contains(value)),
        "NotIn" => !values.is_empty() && found.is_none_or(|value| !values.contains(value)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => number_holds(found, values, |value, bound| value > bound),
        "Lt" => number_holds(found, values, |value, bound| value < bound),
        _ => false,
    }
}

fn number_holds(found: Option<&String>, values: &[String], holds: fn(i64, i64) -> bool) -> bool {
    let (Some(found), [bound]) = (found, values) else { return false };
    match (found.parse(), bound.parse()) {
        (Ok(found), Ok(bound)) => holds(found, bound),
        _ => false,
    }
}

/// Only `metadata.name` is known, only with `In` and `NotIn` and one value.
fn field_holds(requirement: &NodeSelectorRequirement, name: &str) -> bool {
    let [value] = requirement.values.as_deref().unwrap_or_default() else { return false };
    let found = if requirement.key == "metadata.name" { name } else { "" };
    match requirement.operator.as_str() {
        "In" => found == value,
        "NotIn" => found != value,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn check(terms: Value, expect: bool) {
        let selector: NodeSelector = from_value(json!({ "nodeSelectorTerms": terms.clone() })).unwrap();
        let labels: BTreeMap<String, String> = from_value(json!({"zone": "a", "cores": "8"})).unwrap();
        assert_eq!(matches(&selector, NodeFacts { name: "n1", labels: &labels }), expect, "{terms}");
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}])
    }

    #[test]
    fn operators() {
        check(expression("zone", "In", &["a", "b"]), true);
        check(expression("zone", "NotIn", &["a"]), false);
        check(expression("none", "NotIn", &["a"]), true);
        check(expression("none", "DoesNotExist", &[]), true);
        check(expression("zone", "Exists", &[]), true);
        check(expression("cores", "Gt", &["7"]), true);
        check(expression("cores", "Lt", &["8"]), false);
        check(expression("zone", "Gt", &["1"]), false);
        check(expression("zone", "Odd", &["a"]), false);
    }

    #[test]
    fn terms_are_alternatives_and_empty_terms_match_nothing() {
        check(json!([]), false);
        check(json!([{}]), false);
        check(json!([{}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]), true);
        check(json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}]), false);
    }
}

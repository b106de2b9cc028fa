//! Labels of nodes that have newer names.

use k8s_openapi::api::core::v1::NodeSelectorTerm;

use crate::field::Path;
use crate::names::label_value;

const DEPRECATED: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    ("failure-domain.beta.kubernetes.io/zone", r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#),
    ("beta.kubernetes.io/instance-type", r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

/// What to say about a label of nodes that is no longer the one to use.
pub fn deprecation(label: &str) -> Option<&'static str> {
    DEPRECATED.iter().find(|(name, _)| *name == label).map(|(_, message)| *message)
}

/// `check_values`: the values have not been validated, so say what is wrong with them.
pub fn term_warnings(term: &NodeSelectorTerm, check_values: bool, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        if let Some(message) = deprecation(&requirement.key) {
            found.push(format!("{}: {} is {message}", path.child("key"), requirement.key));
        }
        for (at, value) in requirement.values.iter().flatten().enumerate().filter(|_| check_values) {
            let path = path.child("values").index(at);
            found
                .extend(label_value(value).into_iter().map(|problem| format!("{path}: {value} is invalid, {problem}")));
        }
    }
    found
}

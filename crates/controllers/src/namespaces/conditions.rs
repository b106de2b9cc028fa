//! The conditions of a namespace that is being deleted: what was found -> five conditions in upstream's words.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::ResourceId;
use serde_json::Value;

use crate::times::whole_seconds;

/// Type, and reason and message when all is well.
const KINDS: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

/// What the lists and deletions of one look brought to light.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub discovery_failures: Vec<(String, String)>,
    pub errors: Vec<String>,
    counts: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Findings {
    pub(super) fn note(&mut self, resource: &ResourceId, items: &[Value]) {
        self.counts.insert(format!("{}.{}", resource.plural, resource.group), items.len());
        for finalizer in items.iter().filter_map(|item| item["metadata"]["finalizers"].as_array()).flatten() {
            *self.finalizers.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.discovery_failures.is_empty() && self.errors.is_empty()
    }

    pub(super) fn summary(&self) -> String {
        join(&self.counts, |name, count| format!("{name} has {count} resource instances"))
    }

    /// Reason and message of each condition that is not well.
    fn problems(&self) -> BTreeMap<&'static str, (&'static str, String)> {
        let mut problems = BTreeMap::new();
        if !self.discovery_failures.is_empty() {
            let groups: Vec<String> =
                self.discovery_failures.iter().map(|(version, error)| format!("{version}: {error}")).collect();
            let message = format!(
                "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
                groups.len(),
                groups.join(", ")
            );
            problems.insert(KINDS[0].0, ("DiscoveryFailed", message));
        }
        if !self.errors.is_empty() {
            let mut errors = self.errors.clone();
            errors.sort();
            let message =
                format!("Failed to delete all resource types, {} remaining: {}", errors.len(), errors.join(", "));
            problems.insert(KINDS[2].0, ("ContentDeletionFailed", message));
        }
        if !self.counts.is_empty() {
            problems.insert(
                KINDS[3].0,
                ("SomeResourcesRemain", format!("Some resources are remaining: {}", self.summary())),
            );
        }
        if !self.finalizers.is_empty() {
            let list = join(&self.finalizers, |name, count| format!("{name} in {count} resource instances"));
            let message = format!("Some content in the namespace has finalizers remaining: {list}");
            problems.insert(KINDS[4].0, ("SomeFinalizersRemain", message));
        }
        problems
    }
}

fn join(counts: &BTreeMap<String, usize>, line: impl Fn(&String, &usize) -> String) -> String {
    counts.iter().map(|(name, count)| line(name, count)).collect::<Vec<_>>().join(", ")
}

/// The namespace's conditions brought up to date; none if they say so already.
pub(super) fn derive_conditions(
    namespace: &Namespace,
    findings: &Findings,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let before = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions = before.clone();
    let problems = findings.problems();
    for (type_, ok_reason, ok_message) in KINDS {
        let (status, reason, message) = match problems.get(type_) {
            Some((reason, message)) => ("True", *reason, message.clone()),
            None => ("False", ok_reason, ok_message.to_owned()),
        };
        let current = conditions.iter().position(|condition| condition.type_ == type_);
        let since = current.map(|index| &conditions[index]).filter(|current| current.status == status);
        let since = since.and_then(|current| current.last_transition_time.clone()).unwrap_or(Time(whole_seconds(now)));
        let next = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since),
        };
        match current {
            Some(index) => conditions[index] = next,
            None => conditions.push(next),
        }
    }
    (conditions != before).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_remains_is_told_in_upstreams_words() {
        let mut findings = Findings { errors: vec!["pods is forbidden".to_owned()], ..Findings::default() };
        let item = json!({ "metadata": { "finalizers": ["example.com/hold"] } });
        findings.note(&ResourceId::of::<ConfigMap>(), &[item.clone(), item]);
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let conditions = derive_conditions(&Namespace::default(), &findings, now).unwrap();
        let lines: Vec<String> = conditions
            .into_iter()
            .map(|c| format!("{} {} {}: {}", c.type_, c.status, c.reason.unwrap(), c.message.unwrap()))
            .collect();
        expect![[r#"
            NamespaceDeletionDiscoveryFailure False ResourcesDiscovered: All resources successfully discovered
            NamespaceDeletionGroupVersionParsingFailure False ParsedGroupVersions: All legacy kube types successfully parsed
            NamespaceDeletionContentFailure True ContentDeletionFailed: Failed to delete all resource types, 1 remaining: pods is forbidden
            NamespaceContentRemaining True SomeResourcesRemain: Some resources are remaining: configmaps. has 2 resource instances
            NamespaceFinalizersRemaining True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances"#]]
        .assert_eq(&lines.join("\n"));
    }
}

//! Where a DaemonSet's pods belong: the DaemonSet and a node -> run, stay, or not; and the pod for a node.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};
use semantics::node_selector::{NodeFacts, matches_pod_requirements};
use semantics::taints::{NO_EXECUTE, NO_SCHEDULE, find_untolerated};

use crate::pods::derive_pod;
use crate::revisions::HASH_LABEL;

const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";
/// Taints that every daemon pod tolerates: it belongs to its node, well or ill.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
];
const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// A pod belongs on the node.
    Run,
    /// None is to be started, but one that runs may stay.
    Stay,
    No,
}

pub(super) fn decide_fit(set: &DaemonSet, node: &Node) -> Fit {
    let spec = set.spec.template.spec.clone().unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let no_labels = BTreeMap::new();
    let facts = NodeFacts { name, labels: node.metadata.labels.as_ref().unwrap_or(&no_labels) };
    let elsewhere = spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name);
    if elsewhere || !matches_pod_requirements(spec.node_selector.as_ref(), spec.affinity.as_ref(), facts) {
        return Fit::No;
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let tolerations = tolerations(&spec);
    if find_untolerated(&taints, &tolerations, |taint| taint.effect == NO_EXECUTE).is_some() {
        Fit::No
    } else if find_untolerated(&taints, &tolerations, |taint| taint.effect == NO_SCHEDULE).is_some() {
        Fit::Stay
    } else {
        Fit::Run
    }
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = (spec.host_network == Some(true)).then_some((NETWORK_UNAVAILABLE, NO_SCHEDULE));
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// The node that a daemon pod is bound to or, before the scheduler has done so, meant for.
pub(super) fn target_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let required =
        spec.affinity.as_ref()?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    names.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
}

/// The pod for one node.
pub(super) fn derive_daemon_pod(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let mut template: PodTemplateSpec = set.spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) =
        set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(GENERATION_ANNOTATION))
    {
        labels.insert(GENERATION_LABEL.to_owned(), generation.clone());
    }
    let spec = template.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    bind_by_affinity(spec, node);
    derive_pod(set, &template)
}

/// Replaces the name fields of each required term (there is one at least) by this node's name.
fn bind_by_affinity(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required: &mut NodeSelector =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![field.clone()]);
    }
}

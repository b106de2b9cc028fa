//! Nodes: their health ([`health`]), the taints that follow from it ([`taints`]), evictions that follow from those
//! ([`eviction`]), pods whose node is gone ([`pod_gc`]) and addresses for pods ([`cidr`]).

pub mod cidr;
pub mod eviction;
pub mod health;
pub mod pod_gc;
mod taints;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};

pub(crate) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

pub(crate) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

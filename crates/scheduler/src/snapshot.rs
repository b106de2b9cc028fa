//! What the scheduler knows of the cluster: one [`NodeView`] a node, with the Pods on it summed up.
//!
//! Pods bound by a decision are *assumed* at once (added here before the API confirms) so that the next decision sees them.
//! Invariant: `requested` of a node is the sum over exactly the Pods in `pods`; adding a Pod twice replaces it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
pub use semantics::node_fit::WholeAmounts as Resources;
use semantics::node_fit::{HostPort, host_ports, whole_amounts};
use semantics::node_selector::NodeFacts;
use semantics::resources::Amounts;

/// What one Pod takes from its node, computed once when it enters the snapshot.
#[derive(Debug, Clone)]
pub struct PodView {
    pub pod: Arc<Pod>,
    pub requests: Resources,
    pub host_ports: Vec<HostPort>,
}

impl PodView {
    pub fn new(pod: Arc<Pod>) -> Self {
        let requests = whole_amounts(&semantics::resources::pod_requests(&pod));
        let host_ports = host_ports(&pod);
        Self { pod, requests, host_ports }
    }
}

/// One node and the Pods on it.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub node: Arc<Node>,
    pub allocatable: Resources,
    pub requested: Resources,
    /// Requests with upstream's stand-ins (100m, 200 MiB a container) for what is unset; only for scores.
    pub requested_nonzero: Resources,
    pub pods: HashMap<String, PodView>,
    /// Bytes of each image on the node, by every name it has there.
    pub images: HashMap<String, i64>,
}

impl NodeView {
    fn new(node: Arc<Node>) -> Self {
        let mut view = Self {
            node: node.clone(),
            allocatable: Resources::new(),
            requested: Resources::new(),
            requested_nonzero: Resources::new(),
            pods: HashMap::new(),
            images: HashMap::new(),
        };
        view.set_node(node);
        view
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// What selectors look at.
    pub fn facts(&self) -> NodeFacts<'_> {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        NodeFacts { name: self.name(), labels: self.node.metadata.labels.as_ref().unwrap_or(&NO_LABELS) }
    }

    fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        self.allocatable = whole_amounts(&Amounts::from_list(status.and_then(|s| s.allocatable.as_ref())));
        self.images = status
            .and_then(|s| s.images.as_ref())
            .into_iter()
            .flatten()
            .flat_map(|i| i.names.iter().flatten().map(move |n| (n.clone(), i.size_bytes.unwrap_or(0))))
            .collect();
        self.node = node;
    }

    fn add(&mut self, key: String, pod: PodView) {
        self.remove(&key);
        accumulate(&mut self.requested, &pod.requests, 1);
        accumulate(&mut self.requested_nonzero, &nonzero_requests(&pod), 1);
        self.pods.insert(key, pod);
    }

    fn remove(&mut self, key: &str) {
        if let Some(old) = self.pods.remove(key) {
            accumulate(&mut self.requested, &old.requests, -1);
            accumulate(&mut self.requested_nonzero, &nonzero_requests(&old), -1);
        }
    }
}

/// All nodes, in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeView>,
    /// Where each known Pod is, by its key.
    placed: HashMap<String, String>,
    /// Pods on nodes that are not known (yet): added when the node appears.
    stray: HashMap<String, PodView>,
}

impl Snapshot {
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeView> {
        self.nodes.values()
    }

    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    /// Adds or replaces a node; Pods already on it stay.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(view) = self.nodes.get_mut(&name) {
            view.set_node(node);
            return;
        }
        let mut view = NodeView::new(node);
        let keys: Vec<String> = self.placed.iter().filter(|(_, on)| **on == name).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(pod) = self.stray.remove(&key) {
                view.add(key, pod);
            }
        }
        self.nodes.insert(name, view);
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(view) = self.nodes.remove(name) {
            self.stray.extend(view.pods);
        }
    }

    /// Records that `pod` runs, or will run, on `node`. Pods that have ended take nothing and are removed.
    pub fn set_pod(&mut self, pod: &Arc<Pod>, node: &str) {
        let key = pod_key(pod);
        self.remove_pod(&key);
        if has_ended(pod) {
            return;
        }
        let view = PodView::new(pod.clone());
        self.placed.insert(key.clone(), node.to_owned());
        match self.nodes.get_mut(node) {
            Some(on) => on.add(key, view),
            None => {
                self.stray.insert(key, view);
            }
        }
    }

    /// Forgets a Pod; true if it was known.
    pub fn remove_pod(&mut self, key: &str) -> bool {
        let Some(node) = self.placed.remove(key) else { return false };
        self.stray.remove(key);
        if let Some(view) = self.nodes.get_mut(&node) {
            view.remove(key);
        }
        true
    }
}

/// `namespace/name`.
pub fn pod_key(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// True for a Pod in phase Succeeded or Failed: it holds no resources.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn accumulate(sum: &mut Resources, by: &Resources, sign: i64) {
    for (name, n) in by {
        *sum.entry(name.clone()).or_insert(0) += sign * n;
    }
}

/// Upstream's stand-ins, so that Pods without requests still spread.
const CPU_STAND_IN_MILLI: i64 = 100;
const MEMORY_STAND_IN: i64 = 200 * 1024 * 1024;

/// The requests that scores count for a Pod: `cpu` and `memory` are never zero.
pub fn nonzero_requests(pod: &PodView) -> Resources {
    let containers = pod.pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    let unset = |resource: &str| containers.iter().filter(|c| !requests(c, resource)).count() as i64;
    let mut sum = pod.requests.clone();
    *sum.entry("cpu".to_owned()).or_insert(0) += unset("cpu") * CPU_STAND_IN_MILLI;
    *sum.entry("memory".to_owned()).or_insert(0) += unset("memory") * MEMORY_STAND_IN;
    sum
}

fn requests(container: &Container, resource: &str) -> bool {
    container.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key(resource))
}

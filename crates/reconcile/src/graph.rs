//! Everything in the cluster, by its metadata: which objects exist, who owns whom, what lives in a namespace.
//!
//! Input: metadata of every listable resource. Output: an owner graph for garbage collection and the contents of
//! namespaces. Invariant: an owner that was never seen has dependents but no node ("virtual"); whether it exists can
//! only be learnt by a live read. Does not decide anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::cache::Change;
use crate::object::{Key, ResourceId};

/// The finalizer that keeps an owner until its blocking dependents are gone.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// The finalizer that keeps an owner until its dependents have been orphaned.
pub const ORPHAN_FINALIZER: &str = "orphan";

/// One object's part in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub resource: ResourceId,
    pub key: Key,
    pub uid: String,
    pub resource_version: String,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

impl Node {
    /// None for metadata without a UID: not a stored object.
    pub fn new(resource: &ResourceId, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            resource: resource.clone(),
            key: Key::of(meta),
            uid: meta.uid.clone()?,
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        })
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }

    /// Being deleted, and staying until its blocking dependents are gone.
    pub fn is_deleting_dependents(&self) -> bool {
        self.deleting && self.has_finalizer(FOREGROUND_FINALIZER)
    }

    pub fn is_orphaning(&self) -> bool {
        self.deleting && self.has_finalizer(ORPHAN_FINALIZER)
    }

    /// Whether this object holds up the foreground deletion of its owner.
    pub fn blocks(&self, owner_uid: &str) -> bool {
        self.owners.iter().any(|owner| owner.uid == owner_uid && owner.block_owner_deletion == Some(true))
    }
}

/// A resource that the API serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub resource: ResourceId,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Served {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// What discovery said last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    /// One version of each resource, the group's preferred one.
    pub served: Vec<Served>,
    /// Group versions that could not be asked, with the error.
    pub failures: Vec<(String, String)>,
}

impl Discovery {
    /// The resource of this name, in whichever version is watched.
    pub fn find(&self, group: &str, plural: &str) -> Option<&Served> {
        self.served.iter().find(|served| served.resource.group == group && served.resource.plural == plural)
    }
}

/// See the module's text. Changes of it are [`Change<Node>`]s.
#[derive(Debug, Default)]
pub struct Graph {
    state: RwLock<State>,
}

pub type GraphChange = Change<Node>;

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<String, Arc<Node>>,
    dependents: HashMap<String, BTreeSet<String>>,
    uids: BTreeMap<(ResourceId, Key), String>,
    by_namespace: HashMap<String, BTreeSet<String>>,
    discovery: Arc<Discovery>,
}

impl Graph {
    pub fn node(&self, uid: &str) -> Option<Arc<Node>> {
        self.read().nodes.get(uid).cloned()
    }

    /// The object of that name, if it has been seen.
    pub fn find(&self, resource: &ResourceId, key: &Key) -> Option<Arc<Node>> {
        let state = self.read();
        let uid = state.uids.get(&(resource.clone(), key.clone()))?;
        state.nodes.get(uid).cloned()
    }

    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.read().nodes.values().cloned().collect()
    }

    /// The objects that refer to this UID as an owner, whether or not it exists.
    pub fn dependents(&self, uid: &str) -> Vec<Arc<Node>> {
        let state = self.read();
        let uids = state.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| state.nodes.get(uid).cloned()).collect()
    }

    /// The objects of one resource in a namespace, by name.
    pub fn list_in(&self, resource: &ResourceId, namespace: &str) -> Vec<Arc<Node>> {
        let state = self.read();
        let from = (resource.clone(), Key::new(namespace, ""));
        let all = state.uids.range(from..);
        let own = all.take_while(|((of, key), _)| of == resource && key.namespace == namespace);
        own.filter_map(|(_, uid)| state.nodes.get(uid).cloned()).collect()
    }

    pub fn contents(&self, namespace: &str) -> Vec<Arc<Node>> {
        let state = self.read();
        let uids = state.by_namespace.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| state.nodes.get(uid).cloned()).collect()
    }

    pub fn discovery(&self) -> Arc<Discovery> {
        self.read().discovery.clone()
    }

    pub fn set_discovery(&self, discovery: Discovery) {
        self.write().discovery = Arc::new(discovery);
    }

    pub fn apply(&self, node: Node) -> Vec<GraphChange> {
        self.write().apply(node)
    }

    pub fn delete(&self, node: &Node) -> Vec<GraphChange> {
        self.write().remove(&node.uid).map(Change::Deleted).into_iter().collect()
    }

    /// Takes in the complete list of one resource; nodes of it that are missing are gone.
    pub fn replace(&self, resource: &ResourceId, nodes: Vec<Node>) -> Vec<GraphChange> {
        let mut state = self.write();
        let listed: BTreeSet<String> = nodes.iter().map(|node| node.uid.clone()).collect();
        let known = state.uids.iter().filter(|((of, _), uid)| of == resource && !listed.contains(*uid));
        let gone: Vec<String> = known.map(|(_, uid)| uid.clone()).collect();
        let mut changes: Vec<_> = gone.iter().filter_map(|uid| state.remove(uid)).map(Change::Deleted).collect();
        for node in nodes {
            changes.extend(state.apply(node));
        }
        changes
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One change, or two if the object took the place of another with the same name whose end was not seen.
    fn apply(&mut self, node: Node) -> Vec<GraphChange> {
        let mut changes = Vec::new();
        let place = (node.resource.clone(), node.key.clone());
        if let Some(before) = self.uids.get(&place).filter(|uid| **uid != node.uid).cloned() {
            changes.extend(self.remove(&before).map(Change::Deleted));
        }
        let old = self.remove(&node.uid);
        let new = Arc::new(node);
        for owner in &new.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(new.uid.clone());
        }
        self.uids.insert(place, new.uid.clone());
        if !new.key.namespace.is_empty() {
            self.by_namespace.entry(new.key.namespace.clone()).or_default().insert(new.uid.clone());
        }
        self.nodes.insert(new.uid.clone(), new.clone());
        changes.push(Change::Applied { old, new });
        changes
    }

    fn remove(&mut self, uid: &str) -> Option<Arc<Node>> {
        let node = self.nodes.remove(uid)?;
        for owner in &node.owners {
            remove_from(&mut self.dependents, &owner.uid, uid);
        }
        remove_from(&mut self.by_namespace, &node.key.namespace, uid);
        self.uids.remove(&(node.resource.clone(), node.key.clone()));
        Some(node)
    }
}

fn remove_from(sets: &mut HashMap<String, BTreeSet<String>>, key: &str, uid: &str) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(uid);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, uid: &str, owner: Option<&str>) -> Node {
        let owners = owner.map(|uid| OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() });
        let meta = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            uid: Some(uid.to_owned()),
            owner_references: owners.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        Node::new(&ResourceId::of::<k8s_openapi::api::core::v1::Pod>(), &meta).unwrap()
    }

    #[test]
    fn dependents_of_an_owner_never_seen_are_known() {
        let graph = Graph::default();
        graph.apply(node("pod", "u1", Some("ghost")));
        assert!(graph.node("ghost").is_none());
        assert_eq!(graph.dependents("ghost").len(), 1);
        graph.delete(&node("pod", "u1", None));
        assert!(graph.dependents("ghost").is_empty());
        assert!(graph.contents("ns").is_empty());
    }

    #[test]
    fn a_new_object_in_the_place_of_an_old_one_ends_the_old_one() {
        let graph = Graph::default();
        graph.apply(node("pod", "u1", None));
        let changes = graph.apply(node("pod", "u2", None));
        assert!(
            matches!(&changes[..], [Change::Deleted(old), Change::Applied { new, .. }] if old.uid == "u1" && new.uid == "u2")
        );
        assert!(graph.node("u1").is_none());
    }

    #[test]
    fn a_list_ends_what_it_lacks() {
        let graph = Graph::default();
        graph.apply(node("a", "u1", None));
        let changes = graph.replace(&node("b", "u2", None).resource, vec![node("b", "u2", None)]);
        assert_eq!(changes.len(), 2);
        assert_eq!(graph.contents("ns").len(), 1);
    }
}

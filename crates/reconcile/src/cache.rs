//! What has been seen: watch events -> an indexed snapshot of one kind ([`Cache`]) and of all kinds ([`View`]).
//!
//! Invariant: a cache only moves forward; [`Progress`] tells how far, so that a reader can know whether it has seen a
//! given write. Does not fetch anything.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::graph::Graph;
use crate::object::{Key, Object, ResourceId};

/// All objects of one kind that have been seen, by namespace, name and owner. Cheap to read from many threads.
#[derive(Debug)]
pub struct Cache<K> {
    state: RwLock<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    objects: BTreeMap<String, BTreeMap<String, Arc<K>>>,
    owned: HashMap<String, BTreeSet<Key>>,
    progress: Progress,
}

/// How far a cache has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Highest resource version seen in any object.
    pub revision: u64,
    /// Complete lists taken so far; 0 means that the cache isn't filled yet.
    pub relists: u64,
}

/// One change of a cache.
#[derive(Debug)]
pub enum Change<K> {
    /// Created (`old` is none) or modified.
    Applied { old: Option<Arc<K>>, new: Arc<K> },
    /// Gone from the API; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied { old, new } => Self::Applied { old: old.clone(), new: new.clone() },
            Self::Deleted(last) => Self::Deleted(last.clone()),
        }
    }
}

impl<K> Change<K> {
    /// The newest state known.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Deleted(last) => last,
        }
    }

    /// The states that a mapping from object to keys has to look at: the new one and, if it changed, the old one.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        let (first, second) = match self {
            Self::Applied { old, new } => (new, old.as_ref()),
            Self::Deleted(last) => (last, None),
        };
        std::iter::once(first).chain(second)
    }
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            state: RwLock::new(State {
                objects: BTreeMap::new(),
                owned: HashMap::new(),
                progress: Progress::default(),
            }),
        }
    }
}

impl<K: Object> Cache<K> {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().objects.get(namespace)?.get(name).cloned()
    }

    pub fn get_key(&self, key: &Key) -> Option<Arc<K>> {
        self.get(&key.namespace, &key.name)
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().objects.values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// The objects of one namespace, ordered by name; cluster-scoped kinds live in the namespace "".
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read().objects.get(namespace).map(|named| named.values().cloned().collect()).unwrap_or_default()
    }

    /// The objects that have an owner reference (of any kind) to this UID.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.read();
        let keys = state.owned.get(uid).into_iter().flatten();
        keys.filter_map(|key| state.objects.get(&key.namespace)?.get(&key.name).cloned()).collect()
    }

    pub fn len(&self) -> usize {
        self.read().objects.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn progress(&self) -> Progress {
        self.read().progress
    }

    /// Takes in a created or modified object.
    pub fn apply(&self, object: K) -> Change<K> {
        self.write().apply(Arc::new(object))
    }

    /// Takes in a deletion; `last` is the object's last state.
    pub fn delete(&self, last: K) -> Change<K> {
        let mut state = self.write();
        state.advance(&last);
        state.remove(&Key::of(last.metadata()));
        Change::Deleted(Arc::new(last))
    }

    /// Takes in a complete list; objects that it lacks have been deleted. Unchanged objects make no change.
    pub fn replace(&self, objects: Vec<K>) -> Vec<Change<K>> {
        let mut state = self.write();
        let mut changes = Vec::new();
        let mut seen = BTreeSet::new();
        for object in objects {
            seen.insert(Key::of(object.metadata()));
            let change = state.apply(Arc::new(object));
            let unchanged = matches!(&change, Change::Applied { old: Some(old), new }
                if old.metadata().resource_version == new.metadata().resource_version);
            if !unchanged {
                changes.push(change);
            }
        }
        let known = state.objects.values().flat_map(BTreeMap::values);
        let gone: Vec<Key> = known.map(|object| Key::of(object.metadata())).filter(|key| !seen.contains(key)).collect();
        changes.extend(gone.iter().filter_map(|key| state.remove(key)).map(Change::Deleted));
        state.progress.relists += 1;
        changes
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Object> State<K> {
    fn apply(&mut self, new: Arc<K>) -> Change<K> {
        let key = Key::of(new.metadata());
        self.advance(&new);
        let old = self.remove(&key);
        for uid in owner_uids(&*new) {
            self.owned.entry(uid.to_owned()).or_default().insert(key.clone());
        }
        self.objects.entry(key.namespace).or_default().insert(key.name, new.clone());
        Change::Applied { old, new }
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let named = self.objects.get_mut(&key.namespace)?;
        let old = named.remove(&key.name)?;
        if named.is_empty() {
            self.objects.remove(&key.namespace);
        }
        for uid in owner_uids(&*old) {
            if let Some(keys) = self.owned.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owned.remove(uid);
                }
            }
        }
        Some(old)
    }

    fn advance(&mut self, object: &K) {
        let revision = parse_revision(object.metadata().resource_version.as_deref());
        self.progress.revision = self.progress.revision.max(revision);
    }
}

fn owner_uids<K: Object>(object: &K) -> impl Iterator<Item = &str> {
    object.metadata().owner_references.iter().flatten().map(|owner| owner.uid.as_str())
}

/// A resource version as a number (comparable since Kubernetes 1.35); 0 for an absent or foreign one.
pub fn parse_revision(version: Option<&str>) -> u64 {
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What the shell needs to ask of a cache without knowing its type.
pub trait AnyCache: Any + Send + Sync {
    fn resource(&self) -> ResourceId;
    fn progress(&self) -> Progress;
    /// Whether the object with this UID is there and not being deleted.
    fn is_alive(&self, key: &Key, uid: &str) -> bool;
    fn as_any(&self) -> &dyn Any;
}

impl<K: Object> AnyCache for Cache<K> {
    fn resource(&self) -> ResourceId {
        ResourceId::of::<K>()
    }

    fn progress(&self) -> Progress {
        Cache::progress(self)
    }

    fn is_alive(&self, key: &Key, uid: &str) -> bool {
        self.get_key(key).is_some_and(|object| {
            let meta = object.metadata();
            meta.uid.as_deref() == Some(uid) && meta.deletion_timestamp.is_none()
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The caches that one controller reads, by type. Reading a kind that the controller doesn't watch is a bug in it: it
/// finds nothing, and debug builds stop.
#[derive(Clone, Default)]
pub struct View {
    caches: HashMap<TypeId, Arc<dyn AnyCache>>,
    by_resource: BTreeMap<(String, String), TypeId>,
    graph: Arc<Graph>,
}

impl View {
    pub fn add<K: Object>(&mut self, cache: Arc<Cache<K>>) {
        self.by_resource.insert((K::GROUP.to_owned(), K::URL_PATH_SEGMENT.to_owned()), TypeId::of::<K>());
        self.caches.insert(TypeId::of::<K>(), cache);
    }

    pub fn set_graph(&mut self, graph: Arc<Graph>) {
        self.graph = graph;
    }

    /// Everything's metadata; empty unless the controller watches everything.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn has<K: Object>(&self) -> bool {
        self.caches.contains_key(&TypeId::of::<K>())
    }

    pub fn get<K: Object>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.cache::<K>()?.get(namespace, name)
    }

    pub fn get_key<K: Object>(&self, key: &Key) -> Option<Arc<K>> {
        self.cache::<K>()?.get_key(key)
    }

    pub fn list<K: Object>(&self) -> Vec<Arc<K>> {
        self.cache::<K>().map(Cache::list).unwrap_or_default()
    }

    pub fn list_in<K: Object>(&self, namespace: &str) -> Vec<Arc<K>> {
        self.cache::<K>().map(|cache| cache.list_in(namespace)).unwrap_or_default()
    }

    pub fn owned_by<K: Object>(&self, uid: &str) -> Vec<Arc<K>> {
        self.cache::<K>().map(|cache| cache.owned_by(uid)).unwrap_or_default()
    }

    pub fn cache<K: Object>(&self) -> Option<&Cache<K>> {
        let cache = self.caches.get(&TypeId::of::<K>()).and_then(|cache| cache.as_any().downcast_ref());
        debug_assert!(cache.is_some(), "{} is read but not watched", K::KIND);
        cache
    }

    /// The cache of a resource named at run time, if it is one of this view's.
    pub fn any(&self, group: &str, plural: &str) -> Option<&dyn AnyCache> {
        let id = self.by_resource.get(&(group.to_owned(), plural.to_owned()))?;
        self.caches.get(id).map(|cache| &**cache)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

    use super::*;

    fn config_map(name: &str, version: &str, owner: Option<&str>) -> ConfigMap {
        let owner = owner.map(|uid| vec![OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() }]);
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            resource_version: Some(version.to_owned()),
            owner_references: owner,
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[test]
    fn owner_index_follows_changes() {
        let cache = Cache::default();
        cache.apply(config_map("a", "1", Some("u1")));
        assert_eq!(cache.owned_by("u1").len(), 1);
        cache.apply(config_map("a", "2", Some("u2")));
        assert!(cache.owned_by("u1").is_empty());
        cache.delete(config_map("a", "3", Some("u2")));
        assert!(cache.owned_by("u2").is_empty());
        assert_eq!(cache.progress(), Progress { revision: 3, relists: 0 });
    }

    #[test]
    fn replace_reports_only_differences() {
        let cache = Cache::default();
        cache.replace(vec![config_map("a", "1", None), config_map("b", "2", None)]);
        let changes = cache.replace(vec![config_map("b", "2", None), config_map("c", "5", None)]);
        let names: Vec<_> = changes
            .iter()
            .map(|c| (c.object().metadata.name.clone().unwrap(), matches!(c, Change::Deleted(_))))
            .collect();
        assert_eq!(names, [("c".to_owned(), false), ("a".to_owned(), true)]);
    }
}

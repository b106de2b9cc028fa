//! The one shape of a controller: which kinds wake which keys, and a pure plan for a key.
//!
//! Invariant: `plan` depends on its input and memory alone, and losing the memory (a restart) costs time, never
//! correctness. Does not wire anything: shells implement [`Watches`] and [`Registrar`].

use std::time::Duration;

use jiff::Timestamp;

use crate::cache::{Change, View};
use crate::graph::{Graph, GraphChange};
use crate::object::{Key, Object, ResourceId};
use crate::plan::{Observed, Plan};

/// A controller: a key in, a plan out.
pub trait Controller: Send + Sync + 'static {
    /// What the planner remembers of a key between plans. `()` for most. Lost on restart, and once a plan for the key is
    /// empty and asks for no requeue.
    type Memory: Default + Send + 'static;

    /// Upstream's name of the controller, such as `replicaset-controller`: the source of its Events.
    fn name(&self) -> &'static str;

    /// Keys planned at the same time.
    fn workers(&self) -> usize {
        5
    }

    /// Declares every kind that `plan` reads, with the keys that an object of it wakes.
    fn watches<W: Watches>(&self, watches: &mut W)
    where
        Self: Sized;

    /// Decides what to do about the key now.
    fn plan(&self, input: &Input<'_>, memory: &mut Self::Memory) -> Plan;
}

/// Receives the kinds that a controller watches.
pub trait Watches {
    /// `keys` is called for the old and the new state of every object that changes.
    fn watch<K: Object>(&mut self, keys: fn(&K, &View) -> Vec<Key>) {
        self.watch_changes(move |change: &Change<K>, view| {
            change.states().flat_map(|object| keys(object, view)).collect()
        });
    }

    /// `keys` is called for every change: for kinds that change often in ways that concern nobody.
    fn watch_changes<K: Object>(&mut self, keys: impl Fn(&Change<K>, &View) -> Vec<Key> + Send + Sync + 'static);

    /// Watches the metadata of every object of every kind; the view then has a graph.
    fn watch_everything(&mut self, keys: fn(&GraphChange, &Graph) -> Vec<Key>);
}

/// Receives controllers; a registry function calls it once for each.
pub trait Registrar {
    fn register<C: Controller>(&mut self, controller: C);
}

/// All that a plan may depend on.
pub struct Input<'a> {
    pub key: &'a Key,
    pub view: &'a View,
    /// Wall-clock time, for timestamps in objects.
    pub now: Timestamp,
    /// Time since an arbitrary start, for intervals.
    pub monotonic: Duration,
    /// Answers to the live reads that the last round asked for; empty in the first round.
    pub observed: &'a Observed,
    /// The write of this key's plan that has just failed. The planner may then record it (a condition); it must not
    /// repeat the write: the shell plans again after a back-off, without this.
    pub failure: Option<&'a Failure>,
}

/// A write that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub verb: &'static str,
    pub resource: ResourceId,
    pub key: Key,
    /// Status reason, such as `Forbidden`; empty if the API gave none.
    pub reason: String,
    pub message: String,
}

/// The mapping for the controller's own kind: the object wakes itself.
pub fn own_key<K: Object>(object: &K, _: &View) -> Vec<Key> {
    vec![Key::of(object.metadata())]
}

/// The mapping for kinds that are read but wake nothing.
pub fn no_keys<K: Object>(_: &K, _: &View) -> Vec<Key> {
    Vec::new()
}

/// The mapping for dependents: an object wakes its controller, if that is an `O`.
pub fn controller_key<K: Object, O: Object>(object: &K, _: &View) -> Vec<Key> {
    let meta = object.metadata();
    let owner =
        crate::object::controller_of(meta).filter(|owner| owner.kind == O::KIND && owner.api_version == O::API_VERSION);
    owner.map(|owner| Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone())).into_iter().collect()
}

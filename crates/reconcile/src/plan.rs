//! What a planner returns: writes, live reads it needs first, when to look again, and what to tell people.
//!
//! Invariant: a plan is a value. Its writes are applied in order, stopping at the first that fails; creates that
//! follow each other go in slow-start batches. Applying any prefix and planning again ends in the same state. Does not
//! talk to the API.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};

use crate::object::{Key, Object, ResourceId};

/// The outcome of planning one key.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Changes to make, in this order.
    pub writes: Vec<Write>,
    /// Live reads that the planner needs before it can decide. The shell makes them and plans again; the writes of a
    /// plan that observes are not applied.
    pub observe: Vec<Observe>,
    /// Look at the key again after this time, even if nothing changes.
    pub requeue_after: Option<Duration>,
    /// Told to users once all writes are done.
    pub events: Vec<Event>,
    /// What the object waits for, for `holdfast why`; inaction is explained too.
    pub waits: Vec<Wait>,
}

impl Plan {
    /// Nothing to do.
    pub fn empty() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.observe.is_empty()
    }

    /// Asks to be planned again after `after`, or sooner if that was asked for already.
    pub fn requeue(&mut self, after: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(after, |earlier| earlier.min(after)));
    }

    pub fn wait(&mut self, reason: &'static str, message: impl Into<String>) {
        self.waits.push(Wait { reason, message: message.into() });
    }
}

/// Something that a plan waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub reason: &'static str,
    pub message: String,
}

/// One request to the API.
#[derive(Debug, Clone)]
pub struct Write {
    pub resource: ResourceId,
    /// The name is empty for a create with `generateName` and for a delete of a collection.
    pub key: Key,
    pub verb: Verb,
    /// Event to emit about the outcome.
    pub announce: Option<Announce>,
}

/// What to do to the object.
#[derive(Debug, Clone)]
pub enum Verb {
    /// POST the object. Fails with AlreadyExists if the name is taken.
    Create { object: Value },
    /// PUT the object or, with a subresource such as `status` or `finalize`, that part of it. The object carries the
    /// resource version that it was planned from; another writer in between makes a Conflict.
    Replace { object: Value, subresource: Option<&'static str> },
    /// PATCH the object or its subresource. A body with `metadata.uid` or `metadata.resourceVersion` is thereby guarded.
    Patch { body: Value, kind: PatchKind, subresource: Option<&'static str> },
    /// DELETE the object. One that is already gone, or replaced by another with the same name, counts as done.
    Delete {
        uid: Option<String>,
        resource_version: Option<String>,
        propagation: Option<Propagation>,
        grace_seconds: Option<i64>,
    },
    /// DELETE all objects of the resource in the namespace.
    DeleteCollection { propagation: Propagation },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    StrategicMerge,
}

/// `propagationPolicy` of a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Propagation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

impl Write {
    pub fn create<K: Object>(object: &K) -> Self {
        Self::typed::<K>(Key::of(object.metadata()), Verb::Create { object: to_value(object) })
    }

    /// Replaces the whole object (without its status, where status is a subresource).
    pub fn replace<K: Object>(object: &K) -> Self {
        Self::typed::<K>(Key::of(object.metadata()), Verb::Replace { object: to_value(object), subresource: None })
    }

    /// Replaces `status`.
    pub fn replace_status<K: Object>(object: &K) -> Self {
        Self::replace_part(object, "status")
    }

    /// Replaces through a subresource, for example `finalize` of a namespace.
    pub fn replace_part<K: Object>(object: &K, subresource: &'static str) -> Self {
        let verb = Verb::Replace { object: to_value(object), subresource: Some(subresource) };
        Self::typed::<K>(Key::of(object.metadata()), verb)
    }

    pub fn merge_patch<K: Object>(key: Key, body: Value) -> Self {
        Self::typed::<K>(key, Verb::Patch { body, kind: PatchKind::Merge, subresource: None })
    }

    pub fn strategic_patch<K: Object>(key: Key, body: Value) -> Self {
        Self::typed::<K>(key, Verb::Patch { body, kind: PatchKind::StrategicMerge, subresource: None })
    }

    pub fn status_patch<K: Object>(key: Key, body: Value) -> Self {
        Self::typed::<K>(key, Verb::Patch { body, kind: PatchKind::StrategicMerge, subresource: Some("status") })
    }

    /// Deletes exactly this incarnation of the object (by UID).
    pub fn delete<K: Object>(object: &K) -> Self {
        let uid = object.metadata().uid.clone();
        let verb = Verb::Delete { uid, resource_version: None, propagation: None, grace_seconds: None };
        Self::typed::<K>(Key::of(object.metadata()), verb)
    }

    #[must_use]
    pub fn with_grace(mut self, seconds: i64) -> Self {
        if let Verb::Delete { grace_seconds, .. } = &mut self.verb {
            *grace_seconds = Some(seconds);
        }
        self
    }

    #[must_use]
    pub fn announcing(mut self, announce: Announce) -> Self {
        self.announce = Some(announce);
        self
    }

    fn typed<K: Object>(key: Key, verb: Verb) -> Self {
        Self { resource: ResourceId::of::<K>(), key, verb, announce: None }
    }
}

/// A typed object as JSON, with `apiVersion` and `kind`. k8s-openapi's objects always serialize.
pub fn to_value<K: serde::Serialize>(object: &K) -> Value {
    serde_json::to_value(object).unwrap_or_else(|_| json!({}))
}

/// Events for a write's outcome. The message is the prefix, followed on success by the object's name where
/// `name_on_success` says so, and on failure by the error.
#[derive(Debug, Clone)]
pub struct Announce {
    pub regarding: ObjectReference,
    pub success: Option<(&'static str, String)>,
    pub name_on_success: bool,
    pub failure: Option<(&'static str, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Normal,
    Warning,
}

/// An Event for users: what happened (`reason`, CamelCase) to which object.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub regarding: ObjectReference,
    pub kind: EventKind,
    pub reason: String,
    pub message: String,
}

impl Event {
    pub fn normal<K: Object>(object: &K, reason: &str, message: impl Into<String>) -> Self {
        Self {
            regarding: reference(object),
            kind: EventKind::Normal,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    pub fn warning<K: Object>(object: &K, reason: &str, message: impl Into<String>) -> Self {
        Self { kind: EventKind::Warning, ..Self::normal(object, reason, message) }
    }
}

/// An object reference as Events carry it.
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// A live read that a planner asks for, past all caches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Observe {
    /// The metadata of one object.
    Get { resource: ResourceId, key: Key },
    /// The metadata of all objects of a resource in a namespace.
    List { resource: ResourceId, namespace: String },
}

/// What a live read said. "Absent" and "could not ask" are never the same.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// `PartialObjectMetadata` as JSON.
    Found(Value),
    Listed(Vec<Value>),
    /// The API answered that it isn't there.
    Absent,
    /// The API could not be asked; its words.
    Failed(String),
}

/// The answers to a planner's live reads of this round.
pub type Observed = BTreeMap<Observe, Observation>;

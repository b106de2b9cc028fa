//! A Deployment's ReplicaSets as working copies: steps change them, and at the end they become writes.
//!
//! Invariant: each ReplicaSet that changed is written once, whole, guarded by the resource version it was read at.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use reconcile::plan::reference;
use reconcile::{Announce, Write};
use semantics::semantic_eq::semantic_eq;
use serde_json::Value;

use super::{revision, strategy};

/// The label that tells one template's ReplicaSet and pods from another's.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";

/// The Deployment's ReplicaSets, as they are to become.
#[derive(Debug)]
pub(super) struct ReplicaSets {
    /// That of the current template; it has no UID if it's yet to be created.
    pub new: Option<ReplicaSet>,
    /// All others, oldest first.
    pub old: Vec<ReplicaSet>,
    /// Old ones to delete.
    pub expired: Vec<ReplicaSet>,
    before: BTreeMap<String, Arc<ReplicaSet>>,
}

impl ReplicaSets {
    pub(super) fn new(deployment: &Deployment, mut mine: Vec<Arc<ReplicaSet>>) -> Self {
        mine.sort_by(|a, b| age_order(a).cmp(&age_order(b)));
        let before = mine.iter().map(|set| (uid(set).to_owned(), set.clone())).collect();
        let mut old: Vec<ReplicaSet> = mine.iter().map(|set| (**set).clone()).collect();
        let current = old.iter().position(|set| is_of_template(set, deployment));
        let new = current.map(|index| old.remove(index));
        Self { new, old, expired: Vec::new(), before }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    pub(super) fn writes(&self, deployment: &Deployment) -> Vec<Write> {
        let mut writes: Vec<Write> = self.all().filter_map(|set| self.write(deployment, set)).collect();
        writes.extend(self.expired.iter().map(Write::delete));
        writes
    }

    fn write(&self, deployment: &Deployment, set: &ReplicaSet) -> Option<Write> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let Some(before) = self.before.get(uid(set)) else {
            let write = Write::create(set);
            let announced = replicas(set) > 0;
            return Some(if announced {
                write.announcing(announce_scale(deployment, name, 0, replicas(set)))
            } else {
                write
            });
        };
        if **before == *set {
            return None;
        }
        let write = Write::replace(set);
        let (from, to) = (replicas(before), replicas(set));
        Some(if from == to { write } else { write.announcing(announce_scale(deployment, name, from, to)) })
    }
}

fn announce_scale(deployment: &Deployment, name: &str, from: i32, to: i32) -> Announce {
    let direction = if from < to { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
    Announce {
        regarding: reference(deployment),
        success: Some(("ScalingReplicaSet", message)),
        name_on_success: false,
        failure: None,
    }
}

/// Asks for `size` pods, and notes the Deployment's sizes that this was derived from.
pub(super) fn scale_to(set: &mut ReplicaSet, size: i32, deployment: &Deployment) {
    if replicas(set) != size {
        set_size(set, size, deployment);
    }
}

/// As [`scale_to`], but notes the Deployment's sizes even if the ReplicaSet's own stays.
pub(super) fn set_size(set: &mut ReplicaSet, size: i32, deployment: &Deployment) {
    set.spec.replicas = Some(size);
    revision::note_sizes(set, desired(deployment), desired(deployment) + strategy::max_surge(deployment));
}

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// The pods that exist by the ReplicaSet's own account.
pub(super) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

pub(super) fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub(super) fn uid(set: &ReplicaSet) -> &str {
    set.metadata.uid.as_deref().unwrap_or_default()
}

/// Oldest first, then by name.
pub(super) fn age_order(set: &ReplicaSet) -> (Option<jiff::Timestamp>, &str) {
    let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (created, set.metadata.name.as_deref().unwrap_or_default())
}

/// Whether the ReplicaSet was made of the Deployment's current template: equal but for the hash label.
pub(super) fn is_of_template(set: &ReplicaSet, deployment: &Deployment) -> bool {
    semantic_eq(&without_hash(set.spec.template.as_ref()), &without_hash(Some(&deployment.spec.template)))
}

fn without_hash<T: serde::Serialize>(template: Option<&T>) -> Value {
    let mut value = template.map(reconcile::plan::to_value).unwrap_or_default();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    value
}

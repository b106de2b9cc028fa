//! Revisions: the new ReplicaSet's name, annotations and creation, and which old ones history no longer keeps.
//!
//! Invariants: the current template's ReplicaSet has the highest revision; a name that another template's ReplicaSet
//! holds raises `collisionCount`, which changes the hash.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Plan, View, Write, controller_of, owner_reference};
use semantics::pod_template_hash::pod_template_hash;

use super::replica_sets::{ReplicaSets, TEMPLATE_HASH, actual, desired, is_of_template, replicas};
use super::status::Conditions;
use super::strategy::{max_surge, new_size};
use crate::labels::Labels;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that its ReplicaSets don't inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Bound of the history annotation, in characters.
const HISTORY_MAX: usize = 2000;
/// Longest object name.
const NAME_MAX: usize = 253;

pub(super) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    meta.annotations.as_ref()?.get(name)
}

/// Brings the existing new ReplicaSet's annotations and minReadySeconds up to date.
pub(super) fn sync_new(deployment: &Deployment, sets: &mut ReplicaSets, conditions: &mut Conditions) {
    let revision = next_revision(&sets.old);
    let Some(new) = &mut sets.new else { return };
    annotate(deployment, new, revision);
    if new.spec.min_ready_seconds.unwrap_or(0) != deployment.spec.min_ready_seconds.unwrap_or(0) {
        new.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
    }
    conditions.note_found(new.metadata.name.as_deref().unwrap_or_default());
}

/// Plans the new ReplicaSet. Returns a plan of its own if its name is taken by another.
pub(super) fn create_new(
    deployment: &Deployment,
    sets: &mut ReplicaSets,
    conditions: &mut Conditions,
    view: &View,
) -> Option<Plan> {
    let mut new = derive_new(deployment);
    let name = new.metadata.name.clone().unwrap_or_default();
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(holder) = view.get::<ReplicaSet>(namespace, &name) {
        let mine =
            controller_of(&holder.metadata).is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref());
        return Some(if mine && is_of_template(&holder, deployment) {
            Plan::empty()
        } else {
            plan_collision(deployment)
        });
    }
    let size = new_size(deployment, sets.old.iter().map(replicas).sum(), 0);
    new.spec.replicas = Some(size);
    annotate(deployment, &mut new, next_revision(&sets.old));
    note_sizes(&mut new, desired(deployment), desired(deployment) + max_surge(deployment));
    conditions.note_created(&name);
    sets.new = Some(new);
    None
}

/// The name that the current template's ReplicaSet has or will get.
pub(super) fn new_name(deployment: &Deployment) -> String {
    let hash = hash_of(deployment);
    let prefix = deployment.metadata.name.as_deref().unwrap_or_default();
    let kept: String = prefix.chars().take(NAME_MAX - 1 - hash.len()).collect();
    format!("{kept}-{hash}")
}

fn hash_of(deployment: &Deployment) -> String {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    pod_template_hash(&deployment.spec.template, collisions)
}

fn plan_collision(deployment: &Deployment) -> Plan {
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    let writes = vec![Write::replace_status(&Deployment { status: Some(status), ..deployment.clone() })];
    Plan { writes, ..Plan::empty() }
}

fn derive_new(deployment: &Deployment) -> ReplicaSet {
    let spec = &deployment.spec;
    let hash = hash_of(deployment);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(new_name(deployment)),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: None,
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    }
}

/// Inherits the Deployment's annotations and, if it is newer, takes `revision`, remembering the one before.
fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) {
    let inherited = deployment.metadata.annotations.iter().flatten();
    let inherited: Labels = inherited
        .filter(|(name, _)| !NOT_INHERITED.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.extend(inherited);
    let before = annotations.get(REVISION).cloned();
    // A revision that isn't a number is somebody else's business.
    let Ok(number) = before.as_deref().unwrap_or("0").parse::<i64>() else { return };
    if number >= revision {
        return;
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(before) = before {
        let history = annotations.get(REVISION_HISTORY).map(String::as_str).unwrap_or_default();
        if let Some(history) = extend_history(history, &before) {
            annotations.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
}

/// `history` with `revision` at its end, the oldest dropped to stay within bounds.
fn extend_history(history: &str, revision: &str) -> Option<String> {
    let mut revisions: Vec<&str> = history.split(',').filter(|part| !part.is_empty()).collect();
    revisions.push(revision);
    let mut joined = revisions.join(",");
    while joined.len() > HISTORY_MAX && revisions.len() > 1 {
        revisions.remove(0);
        joined = revisions.join(",");
    }
    (joined.len() <= HISTORY_MAX).then_some(joined)
}

fn next_revision(old: &[ReplicaSet]) -> i64 {
    old.iter().map(revision_of).max().unwrap_or(0) + 1
}

fn revision_of(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Notes on a ReplicaSet the sizes that its own was derived from.
pub(super) fn note_sizes(set: &mut ReplicaSet, desired: i32, max: i32) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.to_owned(), desired.to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), max.to_string());
}

/// Marks the oldest revisions beyond `revisionHistoryLimit` for deletion, those that are empty and settled.
pub(super) fn clean_up(deployment: &Deployment, sets: &mut ReplicaSets) {
    let Some(limit) = deployment.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
    let mut alive: Vec<&ReplicaSet> = sets.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    alive.sort_by_key(|set| revision_of(set));
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let is_settled = |set: &&&ReplicaSet| {
        let observed = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        actual(set) == 0 && replicas(set) == 0 && set.metadata.generation.unwrap_or(0) <= observed
    };
    let expired: Vec<ReplicaSet> = alive.iter().take(surplus).filter(is_settled).map(|set| (*set).clone()).collect();
    sets.expired = expired;
}

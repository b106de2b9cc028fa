//! Scaling a Deployment without a rollout step: the one active ReplicaSet follows, or several share in proportion.
//!
//! Invariant: sizes sum to at most `replicas + maxSurge`, and shares are those of the sizes before (KEP-free upstream
//! rule: fraction of the former maximum, rounded half away from zero, the rest to the largest).

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::replica_sets::{ReplicaSets, age_order, available, desired, replicas, scale_to, set_size};
use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS, annotation};
use super::strategy::{is_recreate, max_surge};

/// Whether the Deployment's size has changed since its active ReplicaSets were last scaled.
pub(super) fn is_pending(deployment: &Deployment, sets: &ReplicaSets) -> bool {
    let active = sets.all().filter(|set| replicas(set) > 0);
    active.filter_map(|set| number(set, DESIRED_REPLICAS)).any(|noted| noted != desired(deployment))
}

pub(super) fn scale(deployment: &Deployment, sets: &mut ReplicaSets) {
    let active = sets.all().filter(|set| replicas(set) > 0).count();
    if active <= 1 {
        if let Some(set) = active_or_latest(sets) {
            scale_to(set, desired(deployment), deployment);
        }
    } else if sets.new.as_ref().is_some_and(|new| is_saturated(deployment, new)) {
        sets.old.iter_mut().for_each(|set| scale_to(set, 0, deployment));
    } else if !is_recreate(deployment) {
        scale_in_proportion(deployment, sets);
    }
}

/// The only ReplicaSet with pods; without any, the new one, else the youngest old one.
fn active_or_latest(sets: &mut ReplicaSets) -> Option<&mut ReplicaSet> {
    let old_is_active = sets.old.iter().position(|set| replicas(set) > 0);
    match (old_is_active, sets.new.is_some()) {
        (Some(index), _) => sets.old.get_mut(index),
        (None, true) => sets.new.as_mut(),
        (None, false) => sets.old.last_mut(),
    }
}

fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let size = desired(deployment);
    replicas(new) == size && number(new, DESIRED_REPLICAS) == Some(size) && available(new) == size
}

fn scale_in_proportion(deployment: &Deployment, sets: &mut ReplicaSets) {
    let mut active: Vec<&mut ReplicaSet> =
        sets.old.iter_mut().chain(&mut sets.new).filter(|set| replicas(set) > 0).collect();
    let total: i32 = active.iter().map(|set| replicas(set)).sum();
    let allowed = if desired(deployment) > 0 { desired(deployment) + max_surge(deployment) } else { 0 };
    let to_add = allowed - total;
    // Largest first; among equals the newer grow and the older shrink first.
    active.sort_by(|a, b| age_order(a).cmp(&age_order(b)));
    if to_add > 0 {
        active.reverse();
    }
    active.sort_by_key(|set| Reverse(replicas(set)));
    let mut added = 0;
    let mut sizes = Vec::new();
    for set in &active {
        let part = if to_add == 0 { 0 } else { share(deployment, set, to_add, to_add - added) };
        added += part;
        sizes.push(replicas(set) + part);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    for (set, size) in active.into_iter().zip(sizes) {
        set_size(set, size, deployment);
    }
}

/// What one ReplicaSet gains or loses of `to_add`, of which `left` is still to be given.
fn share(deployment: &Deployment, set: &ReplicaSet, to_add: i32, left: i32) -> i32 {
    let fraction = fraction(deployment, set);
    if left == 0 {
        0
    } else if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    if desired(deployment) == 0 {
        return -replicas(set);
    }
    let noted = number(set, MAX_REPLICAS).filter(|max| *max != 0);
    let before = noted.or_else(|| deployment.status.as_ref()?.replicas).unwrap_or(0);
    if before == 0 {
        return 0;
    }
    let max = desired(deployment) + max_surge(deployment);
    let size = f64::from(replicas(set)) * f64::from(max) / f64::from(before);
    size.round() as i32 - replicas(set)
}

fn number(set: &ReplicaSet, name: &str) -> Option<i32> {
    annotation(&set.metadata, name)?.parse().ok()
}

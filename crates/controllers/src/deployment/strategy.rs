//! One step of a rollout: RollingUpdate grows the new ReplicaSet within `maxSurge` and shrinks old ones within
//! `maxUnavailable`; Recreate empties the old ones before it fills the new one.
//!
//! Invariant: a step either grows or shrinks, so that each is decided on sizes that were seen. Does not create.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use reconcile::View;
use semantics::pod::is_pod_terminal;

use super::replica_sets::{ReplicaSets, actual, available, desired, replicas, scale_to, uid};
use crate::numbers::scaled;

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    strategy == Some("Recreate")
}

/// Pods that may exist beyond `replicas`.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    resolve_bounds(deployment).0
}

/// Pods of `replicas` that may be unavailable.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if desired(deployment) == 0 { 0 } else { resolve_bounds(deployment).1.min(desired(deployment)) }
}

/// (surge, unavailable). Both zero would let nothing ever move: then one may be unavailable.
fn resolve_bounds(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let rolling = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()), desired(deployment), true);
    let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), desired(deployment), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// Whether the new ReplicaSet may be created now. A Recreate waits for the last old pod.
pub(super) fn may_create(deployment: &Deployment, sets: &ReplicaSets, view: &View) -> bool {
    !is_recreate(deployment) || (sets.old.iter().all(|set| replicas(set) == 0) && !are_old_pods_running(sets, view))
}

fn are_old_pods_running(sets: &ReplicaSets, view: &View) -> bool {
    sets.old.iter().any(|set| actual(set) > 0 || view.owned_by::<Pod>(uid(set)).iter().any(|pod| !is_pod_terminal(pod)))
}

/// The size that the new ReplicaSet may have now.
pub(super) fn new_size(deployment: &Deployment, others: i32, current: i32) -> i32 {
    if is_recreate(deployment) {
        return desired(deployment);
    }
    let room = desired(deployment) + max_surge(deployment) - others - current;
    if room <= 0 { current } else { current + room.min(desired(deployment) - current) }
}

/// Changes sizes by one step.
pub(super) fn step(deployment: &Deployment, sets: &mut ReplicaSets) {
    if is_recreate(deployment) { step_recreate(deployment, sets) } else { step_rolling(deployment, sets) }
}

fn step_recreate(deployment: &Deployment, sets: &mut ReplicaSets) {
    if sets.old.iter().any(|set| replicas(set) > 0) {
        sets.old.iter_mut().for_each(|set| scale_to(set, 0, deployment));
    } else if sets.old.iter().all(|set| actual(set) == 0)
        && let Some(new) = &mut sets.new
    {
        scale_to(new, desired(deployment), deployment);
    }
}

fn step_rolling(deployment: &Deployment, sets: &mut ReplicaSets) {
    let others = sets.old.iter().map(replicas).sum();
    let Some(new) = &mut sets.new else { return };
    let before = replicas(new);
    let size = if before > desired(deployment) { desired(deployment) } else { new_size(deployment, others, before) };
    if size != before {
        return scale_to(new, size, deployment);
    }
    let unavailable_new = before - available(new);
    let min_available = desired(deployment) - max_unavailable(deployment);
    let may_go = others + before - min_available - unavailable_new;
    if others > 0 && may_go > 0 {
        remove_unhealthy(deployment, &mut sets.old, may_go);
        shrink_old(deployment, sets, min_available);
    }
}

/// Takes pods that aren't available from the old ReplicaSets, at most `count`: they help nobody.
fn remove_unhealthy(deployment: &Deployment, old: &mut [ReplicaSet], count: i32) {
    let mut removed = 0;
    for set in old.iter_mut() {
        let part = (replicas(set) - available(set)).clamp(0, count - removed);
        scale_to(set, replicas(set) - part, deployment);
        removed += part;
    }
}

/// Takes available pods from the old ReplicaSets, oldest first, down to what must stay available.
fn shrink_old(deployment: &Deployment, sets: &mut ReplicaSets, min_available: i32) {
    let mut spare = sets.all().map(available).sum::<i32>() - min_available;
    for set in &mut sets.old {
        let part = replicas(set).clamp(0, spare.max(0));
        scale_to(set, replicas(set) - part, deployment);
        spare -= part;
    }
}

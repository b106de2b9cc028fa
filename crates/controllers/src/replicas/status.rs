//! The status of an owner of replicas: its pods -> counts and the ReplicaFailure condition.
//!
//! Invariant: the counts are those of the pods seen, not of the pods wanted. Does not decide what to create.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSetCondition;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::Input;
use semantics::pod::{condition, is_pod_available, is_pod_ready};

use crate::labels::{Labels, contains_all};
use crate::replicas::Replicated;
use crate::times::whole_seconds;

/// The status that ReplicaSets and ReplicationControllers share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplicaStatus {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: Option<i32>,
    pub observed_generation: i64,
    pub conditions: Vec<ReplicaSetCondition>,
}

pub(super) fn derive_status<O: Replicated>(
    owner: &O,
    active: &[Arc<Pod>],
    terminating: usize,
    input: &Input<'_>,
) -> ReplicaStatus {
    let no_labels = Labels::new();
    let template_labels =
        owner.template().and_then(|template| template.metadata.as_ref()?.labels.as_ref()).unwrap_or(&no_labels);
    let count = |test: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| test(pod)).count() as i32;
    ReplicaStatus {
        replicas: active.len() as i32,
        fully_labeled: count(&|pod| contains_all(pod.metadata.labels.as_ref().unwrap_or(&no_labels), template_labels)),
        ready: count(&is_pod_ready),
        available: count(&|pod| is_pod_available(pod, owner.min_ready_seconds(), input.now)),
        terminating: O::COUNTS_TERMINATING.then_some(terminating as i32),
        observed_generation: owner.metadata().generation.unwrap_or(0),
        conditions: derive_conditions(owner, active.len() as i32, input),
    }
}

/// ReplicaFailure appears when a write failed, and goes once nothing is left to write.
fn derive_conditions<O: Replicated>(owner: &O, active: i32, input: &Input<'_>) -> Vec<ReplicaSetCondition> {
    let mut conditions = owner.replica_status().conditions;
    let failing = conditions.iter().any(|condition| condition.type_.as_deref() == Some("ReplicaFailure"));
    let missing = owner.replicas() - active;
    match input.failure {
        Some(failure) if !failing => conditions.push(ReplicaSetCondition {
            type_: Some("ReplicaFailure".to_owned()),
            status: Some("True".to_owned()),
            last_transition_time: Some(Time(whole_seconds(input.now))),
            reason: Some(if missing > 0 { "FailedCreate" } else { "FailedDelete" }.to_owned()),
            message: Some(failure.message.clone()),
        }),
        None if missing == 0 => conditions.retain(|condition| condition.type_.as_deref() != Some("ReplicaFailure")),
        _ => {}
    }
    conditions
}

/// How long until the next ready pod will have been ready for `min_ready_seconds`.
pub(super) fn next_availability(active: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let wait = jiff::SignedDuration::from_secs(i64::from(min_ready_seconds));
    let ready = active.iter().filter(|pod| is_pod_ready(pod));
    let due = ready.filter_map(|pod| {
        let since = condition(pod, "Ready")?.last_transition_time.as_ref()?.0;
        let left = wait - now.duration_since(since);
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    });
    due.min()
}

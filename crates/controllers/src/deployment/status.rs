//! A Deployment's status: its ReplicaSets -> counts and the conditions Available, Progressing and ReplicaFailure.
//!
//! Progressing tells a rollout's life: NewReplicaSetCreated or FoundNewReplicaSet, ReplicaSetUpdated while counts move,
//! NewReplicaSetAvailable when done, ProgressDeadlineExceeded when nothing moved for too long, DeploymentPaused and
//! DeploymentResumed. Reasons and messages are upstream's. Does not change ReplicaSets.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{Event, Failure, Input, Plan, Write};

use super::replica_sets::{ReplicaSets, actual, available, desired, replicas};
use super::strategy::max_unavailable;
use super::{replica_sets, revision};
use crate::numbers::nonzero;
use crate::times::whole_seconds;

const PROGRESSING: &str = "Progressing";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

/// The conditions being worked out.
#[derive(Debug)]
pub(super) struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
    paused: bool,
    deadline: Option<i32>,
}

impl Conditions {
    pub(super) fn new(deployment: &Deployment, now: Timestamp) -> Self {
        let list = deployment.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let spec = &deployment.spec;
        let deadline = spec.progress_deadline_seconds.filter(|deadline| *deadline != i32::MAX);
        Self { list, now: whole_seconds(now), paused: spec.paused.unwrap_or(false), deadline }
    }

    fn get(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_.as_deref() == Some(type_))
    }

    /// Sets a condition; one with the same status and reason stays as it is, message and times included.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let current = self.get(type_);
        if current.is_some_and(|current| {
            current.status.as_deref() == Some(status) && current.reason.as_deref() == Some(reason)
        }) {
            return;
        }
        let same_status = current.filter(|current| current.status.as_deref() == Some(status));
        let since = same_status.and_then(|current| current.last_transition_time.clone()).unwrap_or(Time(self.now));
        let condition = DeploymentCondition {
            type_: Some(type_.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since),
        };
        self.remove(type_);
        self.list.push(condition);
    }

    fn remove(&mut self, type_: &str) {
        self.list.retain(|condition| condition.type_.as_deref() != Some(type_));
    }

    fn progressing_reason(&self) -> Option<&str> {
        self.get(PROGRESSING)?.reason.as_deref()
    }

    /// Notes that the Deployment was paused or resumed.
    pub(super) fn note_pause(&mut self) {
        let reason = self.progressing_reason();
        let noted = reason == Some(PAUSED);
        if self.deadline.is_none() || reason == Some(TIMED_OUT) {
            return;
        }
        if self.paused && !noted {
            self.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned());
        } else if !self.paused && noted {
            self.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
        }
    }

    /// Notes the new ReplicaSet where no condition speaks of it: there is none yet, or it says that another one is
    /// done (we stopped between creating this one and noting it).
    pub(super) fn note_found(&mut self, name: &str) {
        let quoted = format!("{name:?}");
        let is_of_another = |current: &DeploymentCondition| {
            let message = current.message.as_deref().unwrap_or_default();
            current.reason.as_deref() == Some(NEW_AVAILABLE) && !message.contains(&quoted)
        };
        if self.deadline.is_some() && self.get(PROGRESSING).is_none_or(is_of_another) {
            self.set(PROGRESSING, "True", "FoundNewReplicaSet", format!("Found new replica set {quoted}"));
        }
    }

    pub(super) fn note_created(&mut self, name: &str) {
        if self.deadline.is_some() {
            self.set(PROGRESSING, "True", "NewReplicaSetCreated", format!("Created new replica set {name:?}"));
        }
    }
}

/// Whether all pods are of the new ReplicaSet, available, and as many as asked for.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let size = desired(deployment);
    status.updated_replicas.unwrap_or(0) == size
        && status.replicas.unwrap_or(0) == size
        && status.available_replicas.unwrap_or(0) == size
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Adds the status write, if the status changes, and the time of the next deadline check.
pub(super) fn plan_status(
    deployment: &Deployment,
    sets: &ReplicaSets,
    mut conditions: Conditions,
    is_rollout: bool,
    plan: &mut Plan,
) {
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = derive_counts(deployment, sets, &old);
    note_availability(deployment, &status, &mut conditions);
    if is_rollout {
        note_progress(deployment, sets, &old, &status, &mut conditions);
        note_failures(sets, &mut conditions);
        requeue_for_deadline(deployment, &status, &conditions, plan);
    }
    if !is_complete(deployment, &status) {
        let done = (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
        plan.wait("RolloutUnderWay", format!("{} updated and {} available of {}", done.0, done.1, desired(deployment)));
    }
    status.conditions = (!conditions.list.is_empty()).then_some(conditions.list);
    if status != old {
        plan.writes.push(Write::replace_status(&Deployment { status: Some(status), ..deployment.clone() }));
    }
}

/// The status after a write failed: only a failed creation of the new ReplicaSet is told.
pub(super) fn plan_failure(
    deployment: &Deployment,
    sets: &ReplicaSets,
    mut conditions: Conditions,
    failure: &Failure,
    input: &Input<'_>,
) -> Plan {
    let mut plan = Plan::empty();
    if failure.verb != "create" {
        return plan;
    }
    if failure.reason == "AlreadyExists" {
        let mut unchanged = ReplicaSets::new(deployment, Vec::new());
        return revision::create_new(deployment, &mut unchanged, &mut conditions, input.view).unwrap_or_default();
    }
    let message = format!("Failed to create new replica set {:?}: {}", failure.key.name, failure.message);
    if conditions.deadline.is_some() {
        conditions.set(PROGRESSING, "False", "ReplicaSetCreateError", message.clone());
    }
    plan.events.push(Event::warning(deployment, "ReplicaSetCreateError", message));
    plan_status(deployment, sets, conditions, false, &mut plan);
    plan
}

fn derive_counts(deployment: &Deployment, sets: &ReplicaSets, old: &DeploymentStatus) -> DeploymentStatus {
    let sum = |count: &dyn Fn(&k8s_openapi::api::apps::v1::ReplicaSet) -> i32| sets.all().map(count).sum::<i32>();
    let total_available = sum(&available);
    let ready = sum(&|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0));
    // Known only once every ReplicaSet says it.
    let terminating: Option<i32> =
        sets.all().map(|set| set.status.as_ref().map_or(Some(0), |status| status.terminating_replicas)).sum();
    DeploymentStatus {
        observed_generation: deployment.metadata.generation.and_then(nonzero),
        replicas: nonzero(sum(&actual)),
        updated_replicas: nonzero(sets.new.as_ref().map_or(0, replica_sets::actual)),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(total_available),
        unavailable_replicas: nonzero((sum(&replicas) - total_available).max(0)),
        terminating_replicas: terminating,
        collision_count: old.collision_count,
        conditions: None,
    }
}

fn note_availability(deployment: &Deployment, status: &DeploymentStatus, conditions: &mut Conditions) {
    let enough = status.available_replicas.unwrap_or(0) >= desired(deployment) - max_unavailable(deployment);
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    conditions.set("Available", value, reason, message.to_owned());
}

fn note_progress(
    deployment: &Deployment,
    sets: &ReplicaSets,
    old: &DeploymentStatus,
    new: &DeploymentStatus,
    conditions: &mut Conditions,
) {
    let Some(deadline) = conditions.deadline else { return conditions.remove(PROGRESSING) };
    if new.replicas == new.updated_replicas && conditions.progressing_reason() == Some(NEW_AVAILABLE) {
        return;
    }
    let who = match &sets.new {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(deployment, new) {
        conditions.set(PROGRESSING, "True", NEW_AVAILABLE, format!("{who} has successfully progressed."));
    } else if has_moved(old, new) {
        // Each move counts anew for the deadline, so this one replaces even a condition with the same reason.
        let since = conditions.get(PROGRESSING).filter(|current| current.status.as_deref() == Some("True")).cloned();
        conditions.remove(PROGRESSING);
        conditions.set(PROGRESSING, "True", "ReplicaSetUpdated", format!("{who} is progressing."));
        if let (Some(since), Some(current)) = (since, conditions.list.last_mut()) {
            current.last_transition_time = since.last_transition_time;
        }
    } else if has_timed_out(conditions, deadline) {
        conditions.set(PROGRESSING, "False", TIMED_OUT, format!("{who} has timed out progressing."));
    }
}

fn has_moved(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let leftover = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    new.updated_replicas > old.updated_replicas
        || leftover(new) < leftover(old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn has_timed_out(conditions: &Conditions, deadline_seconds: i32) -> bool {
    let Some(current) = conditions.get(PROGRESSING) else { return false };
    match current.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => time_left(current, deadline_seconds, conditions.now) < SignedDuration::ZERO,
    }
}

fn time_left(progressing: &DeploymentCondition, deadline_seconds: i32, now: Timestamp) -> SignedDuration {
    let since = progressing.last_update_time.as_ref().map_or(now, |time| time.0);
    SignedDuration::from_secs(i64::from(deadline_seconds)) - now.duration_since(since)
}

fn note_failures(sets: &ReplicaSets, conditions: &mut Conditions) {
    let failing = |set: &k8s_openapi::api::apps::v1::ReplicaSet| {
        let all = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        all.into_iter().find(|condition| condition.type_.as_deref() == Some("ReplicaFailure"))
    };
    let failure = sets.new.iter().chain(&sets.old).find_map(failing);
    match failure {
        None => conditions.remove("ReplicaFailure"),
        Some(failure) => {
            let text = failure.message.unwrap_or_default();
            conditions.set(
                "ReplicaFailure",
                failure.status.as_deref().unwrap_or("True"),
                failure.reason.as_deref().unwrap_or_default(),
                text,
            );
        }
    }
}

fn requeue_for_deadline(deployment: &Deployment, status: &DeploymentStatus, conditions: &Conditions, plan: &mut Plan) {
    let (Some(deadline), Some(current)) = (conditions.deadline, conditions.get(PROGRESSING)) else { return };
    let settled = matches!(current.reason.as_deref(), Some(TIMED_OUT | NEW_AVAILABLE));
    if settled || is_complete(deployment, status) {
        return;
    }
    let left = time_left(current, deadline, conditions.now);
    plan.requeue(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1));
}

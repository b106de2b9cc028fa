//! Deployments: move from old ReplicaSets to the one of the current template.
//!
//! Input: the Deployment, its ReplicaSets, and (for Recreate) their pods. Output: ReplicaSets to create, scale or
//! delete, and the status. Invariants: the ReplicaSets' asked sizes never sum to more than `replicas + maxSurge`
//! because of a plan of ours, and no plan takes away available pods below `replicas - maxUnavailable`. A plan writes
//! each ReplicaSet at most once. Pods are the ReplicaSets' business.
//!
//! Reading order: this, `replica_sets`, `strategy`, `scaling`, `revision`, `status`.

mod replica_sets;
mod revision;
mod scaling;
mod status;
mod strategy;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use reconcile::{Controller, Event, Input, Key, Plan, View, Watches, Write, controller_of};
use semantics::label_selector::is_empty;
use serde_json::json;

use crate::claims::{Claims, decide_claims};
use crate::labels::is_selected;
use replica_sets::ReplicaSets;
use status::Conditions;

/// The controller.
#[derive(Debug, Default)]
pub struct DeploymentController;

impl Controller for DeploymentController {
    type Memory = ();

    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Deployment>(reconcile::controller::own_key);
        watches.watch::<ReplicaSet>(replica_set_keys);
        watches.watch::<Pod>(pod_keys);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let deployment = input.view.get::<Deployment>(&input.key.namespace, &input.key.name);
        deployment.map(|deployment| plan_deployment(&deployment, input)).unwrap_or_default()
    }
}

/// A ReplicaSet wakes its controller or, if it has none, the Deployments that may adopt it.
fn replica_set_keys(set: &ReplicaSet, view: &View) -> Vec<Key> {
    if controller_of(&set.metadata).is_some() {
        return reconcile::controller::controller_key::<ReplicaSet, Deployment>(set, view);
    }
    let deployments = view.list_in::<Deployment>(set.metadata.namespace.as_deref().unwrap_or_default());
    let may_adopt = |deployment: &Arc<Deployment>| {
        !is_empty(&deployment.spec.selector) && is_selected(&deployment.spec.selector, &set.metadata)
    };
    deployments.into_iter().filter(may_adopt).map(|deployment| Key::of(&deployment.metadata)).collect()
}

/// A pod's end may let a Recreate go on; other changes of pods come through their ReplicaSet.
fn pod_keys(pod: &Pod, view: &View) -> Vec<Key> {
    let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else {
        return Vec::new();
    };
    let set = view.get::<ReplicaSet>(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name);
    let keys = set.map(|set| replica_set_keys(&set, view)).unwrap_or_default();
    let recreates = |key: &Key| {
        let deployment = view.get::<Deployment>(&key.namespace, &key.name);
        deployment.is_some_and(|deployment| strategy::is_recreate(&deployment))
    };
    keys.into_iter().filter(recreates).collect()
}

fn plan_deployment(deployment: &Deployment, input: &Input<'_>) -> Plan {
    let mut plan = Plan::empty();
    let spec = &deployment.spec;
    if is_empty(&spec.selector) {
        return plan_selecting_all(deployment);
    }
    let candidates = input.view.list_in::<ReplicaSet>(&input.key.namespace);
    let Claims { mine, patches, observe } = decide_claims(deployment, &spec.selector, candidates, input.observed);
    if let Some(observe) = observe {
        plan.observe.push(observe);
        return plan;
    }
    plan.writes = patches;
    let mut sets = ReplicaSets::new(deployment, mine);
    let mut conditions = Conditions::new(deployment, input.now);
    if let Some(failure) = input.failure {
        return status::plan_failure(deployment, &sets, conditions, failure, input);
    }
    let deleting = deployment.metadata.deletion_timestamp.is_some();
    if !deleting {
        conditions.note_pause();
    }
    let is_rollout = !deleting && !spec.paused.unwrap_or(false) && !scaling::is_pending(deployment, &sets);
    if let Some(collision) = decide_step(deployment, &mut sets, &mut conditions, is_rollout, input) {
        return collision;
    }
    finish(deployment, &sets, conditions, is_rollout, plan)
}

/// Changes the working copies of the ReplicaSets. Returns a plan of its own if a name collides.
fn decide_step(
    deployment: &Deployment,
    sets: &mut ReplicaSets,
    conditions: &mut Conditions,
    is_rollout: bool,
    input: &Input<'_>,
) -> Option<Plan> {
    if deployment.metadata.deletion_timestamp.is_some() {
        return None;
    }
    revision::sync_new(deployment, sets, conditions);
    if !is_rollout {
        scaling::scale(deployment, sets);
        if deployment.spec.paused.unwrap_or(false) {
            revision::clean_up(deployment, sets);
        }
        return None;
    }
    if sets.new.is_none()
        && strategy::may_create(deployment, sets, input.view)
        && let Some(plan) = revision::create_new(deployment, sets, conditions, input.view)
    {
        return Some(plan);
    }
    strategy::step(deployment, sets);
    if status::is_complete(deployment, &deployment.status.clone().unwrap_or_default()) {
        revision::clean_up(deployment, sets);
    }
    None
}

/// Turns what was decided into writes: ReplicaSets first, then the Deployment's status, then its revision. The last is
/// a patch without a resource version, so that it doesn't collide with the one before.
fn finish(
    deployment: &Deployment,
    sets: &ReplicaSets,
    conditions: Conditions,
    is_rollout: bool,
    mut plan: Plan,
) -> Plan {
    plan.writes.extend(sets.writes(deployment));
    status::plan_status(deployment, sets, conditions, is_rollout, &mut plan);
    let revision = sets.new.as_ref().and_then(|set| revision::annotation(&set.metadata, revision::REVISION));
    let noted = revision::annotation(&deployment.metadata, revision::REVISION);
    let deleting = deployment.metadata.deletion_timestamp.is_some();
    if let Some(revision) = revision.filter(|revision| noted != Some(revision) && !deleting) {
        let body = json!({ "metadata": { "annotations": { revision::REVISION: revision } } });
        plan.writes.push(Write::merge_patch::<Deployment>(Key::of(&deployment.metadata), body));
    }
    plan
}

fn plan_selecting_all(deployment: &Deployment) -> Plan {
    let mut plan = Plan::empty();
    let generation = deployment.metadata.generation;
    let mut status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < generation {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.events.push(Event::warning(deployment, "SelectingAll", message));
        status.observed_generation = generation;
        plan.writes.push(Write::replace_status(&Deployment { status: Some(status), ..deployment.clone() }));
    }
    plan
}

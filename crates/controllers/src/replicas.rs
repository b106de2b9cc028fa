//! ReplicaSets and ReplicationControllers: keep the asked number of pods of a template.
//!
//! Input: the owner, its pods (and, for deletion ranking, its siblings' pods). Output: adoptions and releases, pods to
//! create or delete (at most 500 a plan), and the status. Invariants: creates and deletes never meet in one plan; a pod
//! that is terminal or being deleted doesn't count. Does not look at nodes or images.

pub mod kinds;
mod ranking;
mod status;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use reconcile::{Controller, Input, Key, Object, Plan, View, Watches, Write, controller_of};
use semantics::pod::{is_pod_active, is_pod_terminal};

use crate::claims::{Claims, decide_claims};
use crate::labels::is_selected;
use crate::pods;
use ranking::pods_to_delete;
pub use status::ReplicaStatus;
use status::{derive_status, next_availability};

/// Pods created or deleted in one plan.
const BURST: usize = 500;

/// What the engine needs to know of an owner of replicas.
pub trait Replicated: Object {
    const CONTROLLER: &'static str;
    fn replicas(&self) -> i32;
    /// None selects nothing.
    fn selector(&self) -> Option<LabelSelector>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn min_ready_seconds(&self) -> i32;
    fn replica_status(&self) -> ReplicaStatus;
    #[must_use]
    fn with_status(&self, status: ReplicaStatus) -> Self;
    /// Whether `status.terminatingReplicas` exists for this kind.
    const COUNTS_TERMINATING: bool;
}

/// The controller of one such kind.
#[derive(Debug)]
pub struct ReplicaController<O>(PhantomData<fn() -> O>);

impl<O> Default for ReplicaController<O> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<O: Replicated> Controller for ReplicaController<O> {
    type Memory = ();

    fn name(&self) -> &'static str {
        O::CONTROLLER
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<O>(reconcile::controller::own_key);
        watches.watch::<Pod>(pod_keys::<O>);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let owner = input.view.get::<O>(&input.key.namespace, &input.key.name);
        owner.map(|owner| plan_replicas(&*owner, input)).unwrap_or_default()
    }
}

/// A pod wakes its controller or, if it has none, every owner that may adopt it.
fn pod_keys<O: Replicated>(pod: &Pod, view: &View) -> Vec<Key> {
    if controller_of(&pod.metadata).is_some() {
        return reconcile::controller::controller_key::<Pod, O>(pod, view);
    }
    let owners = view.list_in::<O>(pod.metadata.namespace.as_deref().unwrap_or_default());
    let may_adopt = |owner: &Arc<O>| owner.selector().is_some_and(|selector| is_selected(&selector, &pod.metadata));
    owners.into_iter().filter(may_adopt).map(|owner| Key::of(owner.metadata())).collect()
}

fn plan_replicas<O: Replicated>(owner: &O, input: &Input<'_>) -> Plan {
    let mut plan = Plan::empty();
    let Some(selector) = owner.selector() else { return plan };
    let all = input.view.list_in::<Pod>(&input.key.namespace);
    let (active, leaving): (Vec<_>, Vec<_>) =
        all.into_iter().filter(|pod| !is_pod_terminal(pod)).partition(|pod| is_pod_active(pod));
    let Claims { mine: active, patches, observe } = decide_claims(owner, &selector, active, input.observed);
    if let Some(observe) = observe {
        plan.observe.push(observe);
        return plan;
    }
    let terminating = leaving.iter().filter(|pod| is_mine(owner, &pod.metadata)).count();
    let deleting = owner.metadata().deletion_timestamp.is_some();
    let missing = i64::from(owner.replicas()) - active.len() as i64;
    if input.failure.is_none() {
        plan.writes.extend(patches);
        if !deleting && missing > 0 {
            plan.writes.extend(plan_creates(owner, (missing as usize).min(BURST)));
        } else if !deleting && missing < 0 {
            let surplus = (missing.unsigned_abs() as usize).min(BURST);
            plan.writes.extend(plan_deletes(owner, &active, surplus, input));
        }
    }
    plan_status(owner, &active, terminating, input, &mut plan);
    plan
}

fn is_mine<O: Object>(owner: &O, meta: &ObjectMeta) -> bool {
    controller_of(meta).is_some_and(|holder| Some(&holder.uid) == owner.metadata().uid.as_ref())
}

fn plan_creates<O: Replicated>(owner: &O, count: usize) -> Vec<Write> {
    let Some(template) = owner.template() else { return Vec::new() };
    vec![pods::create(owner, &pods::derive_pod(owner, template)); count]
}

fn plan_deletes<O: Replicated>(owner: &O, active: &[Arc<Pod>], count: usize, input: &Input<'_>) -> Vec<Write> {
    let related = related_pods(owner, input.view);
    pods_to_delete(active, &related, count, input.now).iter().map(|pod| pods::delete(owner, pod)).collect()
}

/// The pods of all owners of this kind that share this owner's controller, its own among them.
fn related_pods<O: Replicated>(owner: &O, view: &View) -> Vec<Arc<Pod>> {
    let uid_of = |meta: &ObjectMeta| controller_of(meta).map(|holder| holder.uid.clone());
    let parent = uid_of(owner.metadata());
    let siblings = view.list_in::<O>(owner.metadata().namespace.as_deref().unwrap_or_default());
    let related = siblings.into_iter().filter(|sibling| {
        sibling.metadata().uid == owner.metadata().uid || (parent.is_some() && uid_of(sibling.metadata()) == parent)
    });
    related.flat_map(|sibling| view.owned_by::<Pod>(sibling.metadata().uid.as_deref().unwrap_or_default())).collect()
}

fn plan_status<O: Replicated>(owner: &O, active: &[Arc<Pod>], terminating: usize, input: &Input<'_>, plan: &mut Plan) {
    let status = derive_status(owner, active, terminating, input);
    let old = owner.replica_status();
    if status != old {
        plan.writes.push(Write::replace_status(&owner.with_status(status.clone())));
    }
    if owner.min_ready_seconds() > 0 && status.ready != status.available {
        let fallback = Duration::from_secs(u64::from(owner.min_ready_seconds().unsigned_abs()));
        plan.requeue(next_availability(active, owner.min_ready_seconds(), input.now).unwrap_or(fallback));
    }
    if status.replicas != owner.replicas() {
        plan.wait("ReplicasMissing", format!("{} of {} replicas exist", status.replicas, owner.replicas()));
    } else if status.available != status.replicas {
        plan.wait("PodsUnavailable", format!("{} of {} replicas are available", status.available, status.replicas));
    }
}

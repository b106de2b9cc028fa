//! StatefulSets: pods with an ordinal, an identity and claims of their own, one after the other.
//!
//! Input: the StatefulSet, its pods, revisions and claims. Output: the next pod to create, delete or correct (several at
//! once if the policy is Parallel), missing claims, and the status. Invariants: under OrderedReady a pod is created only
//! when all before it are available, and deleted for scale-down only from the end; a rollout goes from the highest ordinal
//! down to `partition`, at most `maxUnavailable` pods at a time. Claims are never deleted here.

mod identity;
mod status;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use reconcile::{Controller, Input, Key, Plan, View, Watches, Write, controller_of};
use semantics::pod::{is_pod_available, is_pod_ready, is_pod_terminal, phase};

use crate::claims::{Claims, decide_claims};
use crate::labels::is_selected;
use crate::numbers::scaled;
use crate::revisions::{HASH_LABEL, History, decide_history, expired, template_of};
use identity::{derive_member, fix_identity, missing_claims, ordinal_of};

/// The controller.
#[derive(Debug, Default)]
pub struct StatefulSetController;

impl Controller for StatefulSetController {
    type Memory = ();

    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<StatefulSet>(reconcile::controller::own_key);
        watches.watch::<ControllerRevision>(reconcile::controller::controller_key::<ControllerRevision, StatefulSet>);
        watches.watch::<PersistentVolumeClaim>(reconcile::controller::no_keys);
        watches.watch::<Pod>(pod_keys);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let set = input.view.get::<StatefulSet>(&input.key.namespace, &input.key.name);
        set.map(|set| plan_set(&set, input)).unwrap_or_default()
    }
}

fn pod_keys(pod: &Pod, view: &View) -> Vec<Key> {
    if controller_of(&pod.metadata).is_some() {
        return reconcile::controller::controller_key::<Pod, StatefulSet>(pod, view);
    }
    let mut sets = view.list_in::<StatefulSet>(pod.metadata.namespace.as_deref().unwrap_or_default());
    sets.retain(|set| is_selected(&set.spec.selector, &pod.metadata) && ordinal_of(set, pod).is_some());
    sets.iter().map(|set| Key::of(&set.metadata)).collect()
}

fn plan_set(set: &StatefulSet, input: &Input<'_>) -> Plan {
    let mut plan = Plan::empty();
    let mut candidates = input.view.list_in::<Pod>(&input.key.namespace);
    candidates.retain(|pod| ordinal_of(set, pod).is_some());
    let pods: Claims<Pod> = decide_claims(set, &set.spec.selector, candidates, input.observed);
    let revisions = input.view.list_in::<ControllerRevision>(&input.key.namespace);
    let revisions: Claims<ControllerRevision> = decide_claims(set, &set.spec.selector, revisions, input.observed);
    plan.observe.extend(pods.observe.or(revisions.observe));
    if !plan.observe.is_empty() {
        return plan;
    }
    plan.writes.extend(pods.patches.into_iter().chain(revisions.patches));
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let history = decide_history(set, &set.spec.template, collisions, revisions.mine);
    if history.is_name_taken {
        return status::plan_collision(set);
    }
    plan.writes.extend(history.write.clone());
    let members = Members::new(set, &history, pods.mine, input);
    let deleting = set.metadata.deletion_timestamp.is_some();
    if !deleting && input.failure.is_none() {
        members.plan_step(&mut plan);
        let used = |revision: &ControllerRevision| members.uses(revision);
        plan.writes.extend(expired(&history, set.spec.revision_history_limit, used));
    }
    status::plan_status(&members, &mut plan);
    plan
}

/// A StatefulSet's pods in their places.
struct Members<'a> {
    set: &'a StatefulSet,
    input: &'a Input<'a>,
    /// The revision that pods below the partition are of, and its template.
    current: (String, PodTemplateSpec),
    /// The revision to come, and its template.
    update: (String, PodTemplateSpec),
    /// By ordinal, from the first on; none where a pod is missing.
    replicas: Vec<(i32, Option<Arc<Pod>>)>,
    /// Beyond the range, highest ordinal first.
    condemned: Vec<Arc<Pod>>,
}

impl<'a> Members<'a> {
    fn new(set: &'a StatefulSet, history: &History, pods: Vec<Arc<Pod>>, input: &'a Input<'a>) -> Self {
        let name_of = |revision: &ControllerRevision| revision.metadata.name.clone().unwrap_or_default();
        let noted = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let known = history.old.iter().find(|revision| Some(name_of(revision)) == noted);
        let update = (name_of(&history.current), set.spec.template.clone());
        let current =
            known.and_then(|revision| Some((name_of(revision), template_of(revision)?))).unwrap_or(update.clone());
        let start = start_of(set);
        let range = start..start + size_of(set);
        let mut replicas: Vec<(i32, Option<Arc<Pod>>)> = range.clone().map(|ordinal| (ordinal, None)).collect();
        let mut condemned = Vec::new();
        for pod in pods {
            match ordinal_of(set, &pod) {
                Some(ordinal) if range.contains(&ordinal) => replicas[(ordinal - start) as usize].1 = Some(pod),
                _ => condemned.push(pod),
            }
        }
        condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal_of(set, pod)));
        Self { set, input, current, update, replicas, condemned }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.replicas.iter().filter_map(|(_, pod)| pod.as_ref()).chain(&self.condemned)
    }

    fn uses(&self, revision: &ControllerRevision) -> bool {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        name == self.current.0 || self.all().any(|pod| revision_of(pod) == name)
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.set.spec.min_ready_seconds.unwrap_or(0);
        pod.metadata.deletion_timestamp.is_none()
            && phase(pod) == "Running"
            && is_pod_available(pod, min_ready, self.input.now)
    }

    fn partition(&self) -> i32 {
        let rolling = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
    }

    /// Fills gaps, then shrinks, then rolls out; each only once what comes before is at rest.
    fn plan_step(&self, plan: &mut Plan) {
        if self.plan_replicas(plan) && self.plan_condemned(plan) {
            self.plan_rollout(plan);
        }
    }

    /// True if every place has its pod and nothing has to be waited for.
    fn plan_replicas(&self, plan: &mut Plan) -> bool {
        let mut at_rest = true;
        for (ordinal, pod) in &self.replicas {
            let fine = match pod {
                None => {
                    self.plan_member(*ordinal, plan);
                    false
                }
                Some(pod) => self.plan_existing(pod, plan),
            };
            at_rest &= fine || (!self.is_ordered() && pod.as_ref().is_some_and(|pod| !is_pod_terminal(pod)));
            if !at_rest && self.is_ordered() {
                return false;
            }
        }
        at_rest
    }

    fn plan_member(&self, ordinal: i32, plan: &mut Plan) {
        let by_strategy = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        let is_held_back = by_strategy != Some("OnDelete") && ordinal < start_of(self.set) + self.partition();
        let (revision, template) = if is_held_back { &self.current } else { &self.update };
        plan.writes.extend(missing_claims(self.set, ordinal, self.input.view));
        plan.writes.push(identity::create(self.set, &derive_member(self.set, template, revision, ordinal)));
    }

    /// True if nothing has to be waited for.
    fn plan_existing(&self, pod: &Pod, plan: &mut Plan) -> bool {
        let deleting = pod.metadata.deletion_timestamp.is_some();
        if is_pod_terminal(pod) {
            plan.writes.extend((!deleting).then(|| identity::delete(self.set, pod)));
            return false;
        }
        if phase(pod) == "Pending" {
            let ordinal = ordinal_of(self.set, pod).unwrap_or(0);
            plan.writes.extend(missing_claims(self.set, ordinal, self.input.view));
        }
        if !self.is_available(pod) {
            plan.wait("PodUnavailable", pod.metadata.name.clone().unwrap_or_default());
            if is_pod_ready(pod) && !deleting {
                plan.requeue(Duration::from_secs(1));
            }
            return false;
        }
        plan.writes.extend(fix_identity(self.set, pod));
        true
    }

    /// Deletes from the end. True if there was nothing to delete.
    fn plan_condemned(&self, plan: &mut Plan) -> bool {
        let first_unavailable = self.condemned.iter().rev().find(|pod| !self.is_available(pod));
        for pod in &self.condemned {
            let deleting = pod.metadata.deletion_timestamp.is_some();
            let is_first_unavailable = first_unavailable.is_some_and(|first| Arc::ptr_eq(first, pod));
            if self.is_ordered() && (deleting || !(self.is_available(pod) || is_first_unavailable)) {
                return false;
            }
            if !deleting {
                plan.writes.push(identity::delete(self.set, pod));
                if self.is_ordered() {
                    return false;
                }
            }
        }
        self.condemned.is_empty()
    }

    /// Deletes pods of other revisions, highest ordinal first, within `maxUnavailable`.
    fn plan_rollout(&self, plan: &mut Plan) {
        let strategy = self.set.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let bound = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.max_unavailable.as_ref());
        let bound = scaled(bound, size_of(self.set), false).max(1);
        let mut unavailable = 0;
        for (ordinal, pod) in self.replicas.iter().rev() {
            let Some(pod) = pod else { continue };
            if unavailable >= bound || *ordinal < start_of(self.set) + self.partition() {
                return;
            }
            if revision_of(pod) != self.update.0 && pod.metadata.deletion_timestamp.is_none() {
                plan.writes.push(identity::delete(self.set, pod));
                unavailable += 1;
            } else if !self.is_available(pod) {
                unavailable += 1;
            }
        }
    }
}

fn size_of(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1).max(0)
}

fn start_of(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// The name of the revision that a pod was made of.
fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default()
}

/// A write with the StatefulSet's way of telling of it.
fn announced(set: &StatefulSet, write: Write, verb: &'static str, what: String) -> Write {
    let (success, failure) = match verb {
        "create" => ("SuccessfulCreate", "FailedCreate"),
        _ => ("SuccessfulDelete", "FailedDelete"),
    };
    write.announcing(reconcile::Announce {
        regarding: reconcile::plan::reference(set),
        success: Some((success, format!("{verb} {what} successful"))),
        name_on_success: false,
        failure: Some((failure, format!("{verb} {what} failed error: "))),
    })
}

//! A StatefulSet's status: its members -> counts by readiness and revision.
//!
//! Invariant: `currentRevision` becomes the updated one only when all pods are of it and ready.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use reconcile::{Plan, Write};
use semantics::pod::{is_pod_ready, phase};

use super::{Members, revision_of, size_of};
use crate::numbers::nonzero;

pub(super) fn plan_status(members: &Members<'_>, plan: &mut Plan) {
    let set = members.set;
    let old = set.status.clone().unwrap_or_default();
    let count = |test: &dyn Fn(&Pod) -> bool| members.all().filter(|pod| test(pod)).count() as i32;
    let living = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    let replicas = count(&|_| true);
    let ready = count(&|pod| phase(pod) == "Running" && is_pod_ready(pod));
    let updated = count(&|pod| living(pod) && revision_of(pod) == members.update.0);
    let mut current = count(&|pod| living(pod) && revision_of(pod) == members.current.0);
    let mut current_revision = members.current.0.clone();
    if updated == replicas && ready == replicas && replicas == size_of(set) {
        current = updated;
        current_revision.clone_from(&members.update.0);
    }
    let status = StatefulSetStatus {
        observed_generation: set.metadata.generation.and_then(nonzero),
        replicas,
        ready_replicas: nonzero(ready),
        available_replicas: Some(count(&|pod| members.is_available(pod))).and_then(nonzero),
        current_replicas: nonzero(current),
        updated_replicas: nonzero(updated),
        current_revision: Some(current_revision),
        update_revision: Some(members.update.0.clone()),
        collision_count: Some(old.collision_count.unwrap_or(0)),
        conditions: old.conditions.clone(),
    };
    if set.status.as_ref() != Some(&status) {
        plan.writes.push(Write::replace_status(&StatefulSet { status: Some(status), ..set.clone() }));
    }
}

/// Another template's revision has the name: the next hash will differ.
pub(super) fn plan_collision(set: &StatefulSet) -> Plan {
    let mut status = set.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    let writes = vec![Write::replace_status(&StatefulSet { status: Some(status), ..set.clone() })];
    Plan { writes, ..Plan::empty() }
}

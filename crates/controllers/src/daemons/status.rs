//! A DaemonSet's status: its pods and nodes -> counts.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Node;
use reconcile::{Input, Plan, Write};
use semantics::pod::is_pod_ready;

use super::placement::{Fit, decide_fit};
use super::rollout::{is_available, is_of};
use super::{ByNode, rollout};
use crate::numbers::nonzero;
use crate::revisions::{History, hash};

pub(super) fn plan_status(set: &DaemonSet, by_node: &ByNode, history: &History, input: &Input<'_>, plan: &mut Plan) {
    let old = set.status.clone().unwrap_or_default();
    let mut counts = DaemonSetStatus {
        observed_generation: set.metadata.generation.and_then(nonzero),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in input.view.list::<Node>() {
        let oldest = by_node.get(node.metadata.name.as_deref().unwrap_or_default()).and_then(|pods| pods.first());
        match (decide_fit(set, &node), oldest) {
            (Fit::Run, None) => counts.desired_number_scheduled += 1,
            (Fit::Run, Some(pod)) => {
                counts.desired_number_scheduled += 1;
                counts.current_number_scheduled += 1;
                counts.number_ready += i32::from(is_pod_ready(pod));
                available += i32::from(is_available(set, pod, input));
                updated += i32::from(is_of(pod, hash(&history.current)));
            }
            (_, Some(_)) => counts.number_misscheduled += 1,
            (_, None) => {}
        }
    }
    counts.updated_number_scheduled = nonzero(updated);
    counts.number_available = nonzero(available);
    counts.number_unavailable = nonzero(counts.desired_number_scheduled - available);
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    if min_ready > 0 && counts.number_ready != available {
        plan.requeue(Duration::from_secs(u64::from(min_ready.unsigned_abs())));
    }
    if available < counts.desired_number_scheduled {
        let surge = rollout::max_surge(set, counts.desired_number_scheduled);
        plan.wait(
            "PodsUnavailable",
            format!("{available} of {} available, surge {surge}", counts.desired_number_scheduled),
        );
    }
    if counts != old {
        plan.writes.push(Write::replace_status(&DaemonSet { status: Some(counts), ..set.clone() }));
    }
}

/// Another template's revision has the name: the next hash will differ.
pub(super) fn plan_collision(set: &DaemonSet) -> Plan {
    let mut status = set.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    let writes = vec![Write::replace_status(&DaemonSet { status: Some(status), ..set.clone() })];
    Plan { writes, ..Plan::empty() }
}

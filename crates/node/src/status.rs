//! Publishes one pod's status, and deletes the pod at its end.
//!
//! Input: the newest wanted status (older ones may be skipped). Output: patches of the status subresource. Invariants:
//! writes of one pod are in order and one at a time; a delete follows the last status; both are bound to the pod's uid, so
//! that a successor of the same name is never touched. Conditions of others are left alone.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use podlife::spec::{name, namespace, uid};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// A status that only catches up with the pod's generation waits this long for more: whoever edits a pod in a loop would
/// otherwise meet a conflict at every turn.
const MINOR_DELAY: Duration = Duration::from_secs(1);

/// What the API should be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    pub status: Option<PodStatus>,
    pub delete: bool,
}

/// Runs until the sender is dropped and its last value was published, or the pod is deleted.
pub async fn run_publisher(client: Client, pod: std::sync::Arc<Pod>, mut wanted: watch::Receiver<Wanted>) {
    let api: Api<Pod> = Api::namespaced(client, namespace(&pod));
    let mut published = pod.status.clone().unwrap_or_default();
    let mut delay = RETRY_MIN;
    loop {
        let mut now = wanted.borrow_and_update().clone();
        if is_minor(&published, &now) {
            now = wait_for_more(&mut wanted, &published).await;
        }
        let outcome = publish(&api, &pod, &now, &mut published).await;
        match outcome {
            Ok(true) => return,
            Ok(false) => {
                delay = RETRY_MIN;
                if wanted.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, pod = name(&pod), "cannot publish the pod's status");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Nothing but observed generations differs.
fn is_minor(published: &PodStatus, wanted: &Wanted) -> bool {
    let strip = |status: &PodStatus| {
        let mut status = status.clone();
        status.observed_generation = None;
        for condition in status.conditions.iter_mut().flatten() {
            condition.observed_generation = None;
        }
        status
    };
    let differs = wanted.status.as_ref().is_some_and(|status| status != published);
    differs && !wanted.delete && wanted.status.as_ref().is_some_and(|status| strip(status) == strip(published))
}

/// Until the delay is over, or something of weight is to be told.
async fn wait_for_more(wanted: &mut watch::Receiver<Wanted>, published: &PodStatus) -> Wanted {
    let weighty = wanted.wait_for(|wanted| !is_minor(published, wanted));
    if tokio::time::timeout(MINOR_DELAY, weighty).await.is_err() {
        tracing::trace!("nothing of weight came");
    }
    wanted.borrow_and_update().clone()
}

/// True once there is nothing more to say about this pod.
async fn publish(api: &Api<Pod>, pod: &Pod, wanted: &Wanted, published: &mut PodStatus) -> Result<bool, kube::Error> {
    if let Some(status) = wanted.status.as_ref().filter(|status| *status != published) {
        let patch = json!({ "metadata": { "uid": uid(pod) }, "status": derive_patch(published, status) });
        let written = api.patch_status(name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await;
        match written {
            Ok(_) => *published = status.clone(),
            Err(error) if is_gone(&error) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    if !wanted.delete {
        return Ok(false);
    }
    let preconditions = Preconditions { uid: Some(uid(pod).to_owned()), resource_version: None };
    let params =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name(pod), &params).await {
        Ok(_) => Ok(true),
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Not there, or another pod of the same name (uid conflict).
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

/// A strategic merge patch: own conditions by type, lists without a key whole, vanished fields as null.
fn derive_patch(old: &PodStatus, new: &PodStatus) -> Value {
    let (old, new) = (as_map(old), as_map(new));
    let mut patch = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match (key.as_str(), value) {
            // Merged by key on the server; a changed address must push the old one out.
            ("podIPs" | "hostIPs", Value::Array(items)) => {
                Value::Array(std::iter::once(json!({ "$patch": "replace" })).chain(items.iter().cloned()).collect())
            }
            ("conditions", Value::Array(items)) => Value::Array(changed_conditions(old.get(key), items)),
            _ => value.clone(),
        };
        patch.insert(key.clone(), value);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

fn changed_conditions(old: Option<&Value>, new: &[Value]) -> Vec<Value> {
    let known = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of_type = |condition: &Value| known.iter().find(|known| known["type"] == condition["type"]);
    let mut changed = Vec::new();
    for condition in new.iter().filter(|condition| !known.contains(condition)) {
        let mut condition = condition.clone();
        // A merge keeps what a patch leaves out: say explicitly what went away.
        if let (Some(Value::Object(before)), Value::Object(after)) = (of_type(&condition), &mut condition) {
            for key in before.keys() {
                after.entry(key.clone()).or_insert(Value::Null);
            }
        }
        changed.push(condition);
    }
    changed
}

fn as_map(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodCondition;

    #[test]
    fn only_generations_can_wait() {
        let status = |phase: &str, generation| PodStatus {
            phase: Some(phase.to_owned()),
            observed_generation: Some(generation),
            ..PodStatus::default()
        };
        let check = |wanted: PodStatus, delete, expect| {
            assert_eq!(is_minor(&status("Running", 1), &Wanted { status: Some(wanted), delete }), expect);
        };
        check(status("Running", 2), false, true);
        check(status("Running", 2), true, false);
        check(status("Failed", 2), false, false);
        check(status("Running", 1), false, false);
    }

    #[test]
    fn patches_carry_only_changes() {
        let condition = |status: &str, reason: Option<&str>| PodCondition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            ..PodCondition::default()
        };
        let old = PodStatus {
            phase: Some("Pending".to_owned()),
            message: Some("m".to_owned()),
            conditions: Some(vec![condition("False", Some("why"))]),
            ..PodStatus::default()
        };
        let new = PodStatus {
            phase: Some("Pending".to_owned()),
            conditions: Some(vec![condition("True", None)]),
            ..PodStatus::default()
        };
        assert_eq!(
            derive_patch(&old, &new),
            json!({ "message": null, "conditions": [{ "type": "Ready", "status": "True", "reason": null }] })
        );
    }
}

//! Binding a pod to a node: what the binding subresource checks and changes.
//!
//! Not a stored kind, so not a strategy. `bind` is a compare-and-set: a pod is bound at most once.

use serde_json::{Value, json};

use crate::field::{Errors, FieldError, Path};
use crate::strategy::metadata;
use crate::time::rfc3339;

/// What is wrong with a Binding itself.
pub fn validate_binding(binding: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let target = &binding["target"];
    let path = Path::root("target");
    let kind = target["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.not_supported(path.child("kind"), kind, &["Node", "<empty>"]);
    }
    if target["name"].as_str().unwrap_or_default().is_empty() {
        errors.required(path.child("name"), "");
    }
    errors.into_vec()
}

/// Puts the pod on the binding's node. Errors: the conflict message, if it cannot be bound.
pub fn bind(pod: &mut Value, binding: &Value, now: jiff::Timestamp) -> Result<(), String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let uid = binding["metadata"]["uid"].as_str().unwrap_or_default();
    let pod_uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != pod_uid {
        return Err(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {pod_uid}"));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node {}", crate::field::quote(node)));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    merge_metadata(pod, binding);
    set_scheduled(pod, now);
    Ok(())
}

fn merge_metadata(pod: &mut Value, binding: &Value) {
    let meta = metadata(pod);
    for field in ["annotations", "labels"] {
        let Some(entries) = binding["metadata"][field].as_object().filter(|entries| !entries.is_empty()) else {
            continue;
        };
        let slot = meta.entry(field).or_insert_with(|| json!({}));
        for (key, value) in entries {
            slot[key.as_str()] = value.clone();
        }
    }
}

fn set_scheduled(pod: &mut Value, now: jiff::Timestamp) {
    let generation = pod["metadata"]["generation"].clone();
    let mut condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": rfc3339(now)});
    if generation.as_i64().unwrap_or(0) > 0 {
        condition["observedGeneration"] = generation;
    }
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(list) = conditions.as_array_mut() {
        match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
            Some(found) => *found = condition,
            None => list.push(condition),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pod: Value, expect: Result<(), &str>) {
        let mut pod = pod;
        let binding = json!({"target": {"name": "n1"}, "metadata": {"annotations": {"a": "1"}}});
        let result = bind(&mut pod, &binding, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(result.as_ref().map_err(String::as_str).copied(), expect);
        if expect.is_ok() {
            assert_eq!(pod["spec"]["nodeName"], "n1");
            assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        }
    }

    #[test]
    fn a_pod_is_bound_once() {
        check(json!({"metadata": {"name": "p"}, "spec": {}}), Ok(()));
        check(
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n0"}}),
            Err("pod p is already assigned to node \"n0\""),
        );
        check(
            json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
            Err("pod p has non-empty .spec.schedulingGates"),
        );
    }
}

//! The counts in a workload's status: none is negative, a part is not more than the whole, collisions never go down.

use super::numbers::validate_not_negative;
use crate::field::{Errors, Path};

/// What the statuses of a ReplicaSet and a ReplicationController say.
pub struct ReplicaCounts {
    pub replicas: i32,
    pub fully_labeled: Option<i32>,
    pub ready: Option<i32>,
    pub available: Option<i32>,
    pub terminating: Option<i32>,
    pub observed_generation: Option<i64>,
}

pub fn validate_replica_counts(counts: &ReplicaCounts, errors: &mut Errors) {
    let parts = [
        ("fullyLabeledReplicas", counts.fully_labeled),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
    ];
    validate_counts(&[("replicas", Some(i64::from(counts.replicas)))], errors);
    validate_counts(&parts.map(widen), errors);
    let rest = [("observedGeneration", counts.observed_generation), widen(("terminatingReplicas", counts.terminating))];
    validate_counts(&rest, errors);
    validate_parts(counts.replicas, &parts, errors);
    validate_available(counts.ready, counts.available, "readyReplicas", errors);
}

/// Counts of a status, of which none is negative.
pub fn validate_counts(counts: &[(&'static str, Option<i64>)], errors: &mut Errors) {
    for (name, count) in counts {
        validate_not_negative(count.unwrap_or(0), Path::root("status").child(name), errors);
    }
}

/// A count of the width that all of them are checked in.
pub fn widen((name, count): (&'static str, Option<i32>)) -> (&'static str, Option<i64>) {
    (name, count.map(i64::from))
}

/// Counts in a status that are parts of its `replicas`.
pub fn validate_parts(replicas: i32, parts: &[(&'static str, Option<i32>)], errors: &mut Errors) {
    for (name, count) in parts {
        if count.unwrap_or(0) > replicas {
            let path = Path::root("status").child(name);
            errors.invalid(path, count.unwrap_or(0), "cannot be greater than status.replicas");
        }
    }
}

/// Available replicas are ready ones; `ready_name` is what the kind's message calls the ready ones.
pub fn validate_available(ready: Option<i32>, available: Option<i32>, ready_name: &str, errors: &mut Errors) {
    let available = available.unwrap_or(0);
    if available > ready.unwrap_or(0) {
        let path = Path::root("status").child("availableReplicas");
        errors.invalid(path, available, format!("cannot be greater than {ready_name}"));
    }
}

/// The collisions that names of pods' revisions had: once counted, the count stays and never goes down.
pub fn validate_collisions(count: Option<i32>, before: Option<i32>, errors: &mut Errors) {
    if before.is_some_and(|before| count.is_none_or(|count| count < before)) {
        errors.invalid(Path::root("status").child("collisionCount"), count.unwrap_or(0), "cannot be decremented");
    }
}

#[cfg(test)]
mod tests {
    use crate::Subresource;
    use crate::check::run_update;
    use serde_json::{Value, json};

    #[test]
    fn available_replicas_are_ready_ones() {
        let object = |status: Value| {
            json!({"spec": {
                "replicas": 2, "selector": {"a": "b"},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            }, "status": status})
        };
        let check = |ready: i32, available: i32, expect: &str| {
            let status = json!({"replicas": 2, "readyReplicas": ready, "availableReplicas": available});
            let kind = ("", "v1", "ReplicationController");
            let found = run_update(kind, Subresource::Status, object(status), object(json!({"replicas": 2})));
            assert_eq!(found.err().unwrap_or_default(), expect);
        };
        check(2, 1, "");
        check(1, 2, "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas");
        check(3, 0, "status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas");
    }

    const TEMPLATE: &str =
        r#"{"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;

    /// Changes the status of an `apps/v1` workload from `old` to `new`.
    fn status_update(kind: &str, old: &Value, new: &Value) -> String {
        let template: Value = serde_json::from_str(TEMPLATE).unwrap();
        let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "serviceName": "s", "template": template});
        let object = |status: &Value| json!({"spec": spec, "status": status});
        run_update(("apps", "v1", kind), Subresource::Status, object(new), object(old)).err().unwrap_or_default()
    }

    #[test]
    fn no_count_of_a_status_is_negative() {
        let cases = [
            ("Deployment", "observedGeneration"),
            ("Deployment", "terminatingReplicas"),
            ("Deployment", "collisionCount"),
            ("ReplicaSet", "terminatingReplicas"),
            ("ReplicaSet", "observedGeneration"),
            ("StatefulSet", "currentReplicas"),
            ("StatefulSet", "observedGeneration"),
            ("DaemonSet", "numberReady"),
            ("DaemonSet", "numberUnavailable"),
            ("DaemonSet", "collisionCount"),
        ];
        for (kind, field) in cases {
            let mut status = whole(kind);
            status[field] = json!(-1);
            let expect = format!("status.{field}: Invalid value: -1: must be greater than or equal to 0");
            assert_eq!(status_update(kind, &json!({}), &status), expect, "{kind}");
        }
    }

    /// The counts that a status of the kind must have.
    fn whole(kind: &str) -> Value {
        match kind {
            "DaemonSet" => json!({"currentNumberScheduled": 1, "numberMisscheduled": 0, "desiredNumberScheduled": 1,
                "numberReady": 1}),
            _ => json!({"replicas": 2}),
        }
    }

    #[test]
    fn the_replicas_of_a_stateful_set_are_parts_of_all() {
        let check = |status: Value, expect: &str| {
            assert_eq!(status_update("StatefulSet", &json!({}), &status), expect);
        };
        check(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "updatedReplicas": 2}), "");
        check(
            json!({"replicas": 1, "updatedReplicas": 2}),
            "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
        );
        check(
            json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 2}),
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
        );
    }

    #[test]
    fn collisions_never_go_down() {
        for kind in ["Deployment", "DaemonSet", "StatefulSet"] {
            let with = |count: i32| {
                let mut status = whole(kind);
                status["collisionCount"] = json!(count);
                status
            };
            assert_eq!(status_update(kind, &with(1), &with(2)), "", "{kind}");
            let expect = |count: i32| format!("status.collisionCount: Invalid value: {count}: cannot be decremented");
            assert_eq!(status_update(kind, &with(2), &with(1)), expect(1), "{kind}");
            assert_eq!(status_update(kind, &with(1), &whole(kind)), expect(0), "{kind}: left out");
        }
    }
}

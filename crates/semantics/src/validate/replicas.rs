//! The replica counts in a status (of a ReplicaSet, a ReplicationController, a Deployment): one may not exceed the other.

use super::numbers::{validate_count, validate_not_negative};
use crate::field::{Errors, Path};

/// What both statuses say.
pub struct ReplicaCounts {
    pub replicas: i32,
    pub fully_labeled: Option<i32>,
    pub ready: Option<i32>,
    pub available: Option<i32>,
}

pub fn validate_replica_counts(counts: &ReplicaCounts, errors: &mut Errors) {
    let path = Path::root("status");
    validate_not_negative(counts.replicas, path.child("replicas"), errors);
    let parts = [
        ("fullyLabeledReplicas", counts.fully_labeled),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
    ];
    validate_parts(counts.replicas, &parts, errors);
    validate_available(counts.ready, counts.available, errors);
}

/// Counts in a status that are parts of its `replicas`.
pub fn validate_parts(replicas: i32, parts: &[(&'static str, Option<i32>)], errors: &mut Errors) {
    let path = Path::root("status");
    for (name, count) in parts {
        validate_count(*count, path.child(name), errors);
        if count.unwrap_or(0) > replicas {
            errors.invalid(path.child(name), count.unwrap_or(0), "cannot be greater than status.replicas");
        }
    }
}

/// Available replicas are ready ones.
pub fn validate_available(ready: Option<i32>, available: Option<i32>, errors: &mut Errors) {
    let available = available.unwrap_or(0);
    if available > ready.unwrap_or(0) {
        let path = Path::root("status").child("availableReplicas");
        errors.invalid(path, available, "cannot be greater than readyReplicas");
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
}

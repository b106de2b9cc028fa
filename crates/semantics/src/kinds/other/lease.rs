//! Lease: durations are positive.

use k8s_openapi::api::coordination::v1::Lease;

use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::Shape;
use crate::typed::Rules;

pub struct LeaseRules;

impl Rules for LeaseRules {
    type Object = Lease;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate(object: &Lease, errors: &mut Errors) {
        let Some(spec) = &object.spec else { return };
        let path = Path::root("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.invalid(path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
            errors.invalid(path.child("leaseTransitions"), count, "must be greater than or equal to 0");
        }
        if spec.holder_identity.as_deref() == Some("") && spec.strategy.is_some() {
            errors.invalid(path.child("holderIdentity"), "", "must not be empty");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update};
    use serde_json::{Value, json};

    #[test]
    fn a_new_and_a_changed_lease_obey_the_same_rules() {
        let lease = |seconds: i32| -> Value { json!({"spec": {"leaseDurationSeconds": seconds}}) };
        let refusal = "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0";
        let (group, version, kind) = ("coordination.k8s.io", "v1", "Lease");
        check_create(group, version, kind, lease(0), refusal);
        check_create(group, version, kind, lease(15), "");
        check_update(group, version, kind, lease(0), lease(15), refusal);
        check_update(group, version, kind, lease(30), lease(15), "");
    }
}

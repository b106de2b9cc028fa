//! Lease: durations are positive.

use k8s_openapi::api::coordination::v1::Lease;

use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Context, Shape, Write};
use crate::typed::Rules;

pub struct LeaseRules;

impl Rules for LeaseRules {
    type Object = Lease;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate_create(_context: &Context, object: &Lease, errors: &mut Errors) {
        validate(object, errors);
    }

    fn validate_update(_write: &Write<'_>, object: &Lease, _old: &Lease, errors: &mut Errors) {
        validate(object, errors);
    }
}

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

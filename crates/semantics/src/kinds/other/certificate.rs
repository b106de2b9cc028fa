//! CertificateSigningRequest: records who asked; the spec never changes; approval is a subresource of its own.

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::field::{Errors, Path};
use crate::names::path_segment_name;
use crate::strategy::{Context, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::signer::validate_signer_name;

pub struct CertificateSigningRequestRules;

impl Rules for CertificateSigningRequestRules {
    type Object = CertificateSigningRequest;
    const SHAPE: Shape = Shape::new(path_segment_name).with_status();

    fn prepare_create(context: &Context, object: &mut CertificateSigningRequest) {
        let user = &context.user;
        object.spec.username = Some(user.name.clone());
        object.spec.uid = Some(user.uid.clone()).filter(|uid| !uid.is_empty());
        object.spec.groups = Some(user.groups.clone()).filter(|groups| !groups.is_empty());
        object.spec.extra = Some(user.extra.clone()).filter(|extra| !extra.is_empty());
        object.status = None;
    }

    fn validate_create(object: &CertificateSigningRequest, errors: &mut Errors) {
        validate(object, errors);
    }

    fn prepare_update(write: &Write<'_>, object: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        object.spec = old.spec.clone();
        match write.sub {
            Subresource::Approval => {
                let conditions = object.status.take().and_then(|s| s.conditions);
                object.status = Some(old.status.clone().unwrap_or_default());
                object.status.get_or_insert_default().conditions = conditions;
                stamp_conditions(object, old, write);
            }
            Subresource::Status => {
                keep_decisions(object, old);
                stamp_conditions(object, old, write);
            }
            _ => {}
        }
    }

    fn validate_update(
        write: &Write<'_>,
        object: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
        errors: &mut Errors,
    ) {
        validate(object, errors);
        if write.sub == Subresource::Approval {
            validate_decisions(object, old, errors);
        }
    }

    fn reset_fields(sub: Subresource) -> Vec<Vec<&'static str>> {
        match sub {
            Subresource::Status => vec![vec!["spec"], vec!["status", "conditions"]],
            Subresource::Approval => vec![vec!["spec"], vec!["status", "certificate"]],
            _ => vec![vec!["spec"], vec!["status"]],
        }
    }
}

fn conditions(object: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    object.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn is_decision(condition: &CertificateSigningRequestCondition) -> bool {
    matches!(condition.type_.as_str(), "Approved" | "Denied")
}

/// The status subresource cannot change who approved or denied.
fn keep_decisions(object: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    let mut list: Vec<_> = conditions(object).iter().filter(|c| !is_decision(c)).cloned().collect();
    list.extend(conditions(old).iter().filter(|c| is_decision(c)).cloned());
    object.status.get_or_insert_default().conditions = Some(list).filter(|list| !list.is_empty());
}

/// New conditions get the time; a transition time is kept while the status stays.
fn stamp_conditions(object: &mut CertificateSigningRequest, old: &CertificateSigningRequest, write: &Write<'_>) {
    let now = Time(write.context.now);
    let before = conditions(old).to_vec();
    for condition in object.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
        if condition.last_update_time.is_none() {
            condition.last_update_time = Some(now.clone());
        }
        if condition.last_transition_time.is_none() {
            let same = before.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
            condition.last_transition_time =
                same.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(now.clone()));
        }
    }
}

fn validate(object: &CertificateSigningRequest, errors: &mut Errors) {
    let path = Path::root("spec");
    if object.spec.request.0.is_empty() {
        errors.required(path.child("request"), "must be PEM encoded");
    }
    validate_signer_name(&object.spec.signer_name, &path.child("signerName"), errors);
    if object.spec.usages.as_ref().is_none_or(Vec::is_empty) {
        errors.required(path.child("usages"), "usages must be provided");
    }
    if let Some(seconds) = object.spec.expiration_seconds.filter(|seconds| *seconds < 600) {
        errors.invalid(
            path.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}

fn validate_decisions(object: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut Errors) {
    let path = Path::root("status").child("conditions");
    let has = |object: &CertificateSigningRequest, type_: &str| conditions(object).iter().any(|c| c.type_ == type_);
    if has(object, "Approved") && has(object, "Denied") {
        errors.invalid(path.clone(), "Denied", "Approved and Denied conditions are mutually exclusive");
    }
    for type_ in ["Approved", "Denied", "Failed"] {
        if has(old, type_) && !has(object, type_) {
            errors.forbidden(
                path.clone(),
                format!("updates may not remove a condition of type {}", crate::field::quote(type_)),
            );
        }
    }
}

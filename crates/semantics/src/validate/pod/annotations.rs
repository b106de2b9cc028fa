//! Annotations that mean something to pods: mirror pods, the cost of a deletion, the old names of security profiles.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::claims::MIRROR_ANNOTATION;
use super::visit::all_containers;
use crate::defaults::text;
use crate::field::{Errors, Path, quote};
use crate::security_annotations::{
    APP_ARMOR_PREFIX, LOCALHOST_PREFIX, RUNTIME_DEFAULT, SECCOMP_CONTAINER_PREFIX, SECCOMP_POD, UNCONFINED, annotation,
    mismatch,
};
use crate::validate::volume_source::validate_relative;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_RUNTIME_DEFAULTS: [&str; 2] = [RUNTIME_DEFAULT, "docker/default"];

/// The annotations by themselves; `path` leads to them. The spec is that of the pod or of the template.
pub(crate) fn validate_annotations(metadata: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if let Some(value) = annotation(metadata, MIRROR_ANNOTATION).filter(|_| text(&spec.node_name).is_empty()) {
        errors.invalid(path.key(MIRROR_ANNOTATION), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(cost) = annotation(metadata, DELETION_COST).filter(|cost| !is_cost(cost)) {
        errors.invalid(path.key(DELETION_COST), cost, "must be a 32bit integer");
    }
    if let Some(profile) = annotation(metadata, SECCOMP_POD) {
        validate_seccomp_value(profile, &path.child(SECCOMP_POD), errors);
    }
    for (key, profile) in metadata.annotations.iter().flatten() {
        if key.starts_with(SECCOMP_CONTAINER_PREFIX) {
            validate_seccomp_value(profile, &path.child(key), errors);
        }
    }
    validate_app_armor_values(metadata, spec, path, errors);
}

/// The annotations of a pod.
pub(crate) fn validate_pod_annotations(pod: &Pod, errors: &mut Errors) {
    let Some(spec) = &pod.spec else { return };
    validate_annotations(&pod.metadata, spec, &Path::root("metadata").child("annotations"), errors);
}

/// A 32-bit number without a plus sign or leading zeros.
fn is_cost(text: &str) -> bool {
    let starts_well = text == "0" || text.starts_with(|first: char| matches!(first, '-' | '1'..='9'));
    starts_well && text.parse::<i32>().is_ok()
}

fn validate_seccomp_value(profile: &str, path: &Path, errors: &mut Errors) {
    if SECCOMP_RUNTIME_DEFAULTS.contains(&profile) || profile == UNCONFINED {
        return;
    }
    match profile.strip_prefix(LOCALHOST_PREFIX) {
        Some(file) => validate_relative(file, path, errors),
        None => errors.invalid(path.clone(), profile, "must be a valid seccomp profile"),
    }
}

fn validate_app_armor_values(metadata: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let containers = all_containers(spec, &Path::default());
    for (key, profile) in metadata.annotations.iter().flatten() {
        let Some(name) = key.strip_prefix(APP_ARMOR_PREFIX) else { continue };
        if !containers.iter().any(|(_, container)| container.name == name) {
            errors.invalid(path.key(key), name, "container not found");
        }
        let known = ["", RUNTIME_DEFAULT, UNCONFINED].contains(&profile.as_str());
        if !known && !profile.starts_with(LOCALHOST_PREFIX) {
            let detail = format!("invalid AppArmor profile name: {}", quote(profile));
            errors.invalid(path.key(key), profile.as_str(), detail);
        }
    }
}

/// Where an annotation and a field both name a profile, they name the same. `path` is the spec's.
pub(crate) fn validate_profiles_agree(metadata: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let of_pod = spec.security_context.as_ref();
    let seccomp = of_pod.and_then(|context| context.seccomp_profile.as_ref());
    if let (Some(field), Some(value)) = (seccomp, annotation(metadata, SECCOMP_POD)) {
        let wrong = mismatch(value, &field.type_, &field.localhost_profile, &SECCOMP_RUNTIME_DEFAULTS);
        report(wrong, &path.child("securityContext").child("seccompProfile"), "seccomp", errors);
    }
    for (path, container) in all_containers(spec, path) {
        let field = container.security_context.and_then(|context| context.seccomp_profile.as_ref());
        let value = annotation(metadata, &format!("{SECCOMP_CONTAINER_PREFIX}{}", container.name));
        if let (Some(field), Some(value)) = (field, value) {
            let wrong = mismatch(value, &field.type_, &field.localhost_profile, &SECCOMP_RUNTIME_DEFAULTS);
            report(wrong, &path.child("securityContext").child("seccompProfile"), "seccomp", errors);
        }
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    for (path, container) in all_containers(spec, path) {
        let own = container.security_context.and_then(|context| context.app_armor_profile.as_ref());
        let field = own.or_else(|| of_pod.and_then(|context| context.app_armor_profile.as_ref()));
        let value = annotation(metadata, &format!("{APP_ARMOR_PREFIX}{}", container.name));
        if let (Some(field), Some(value)) = (field, value) {
            let wrong = mismatch(value, &field.type_, &field.localhost_profile, &[RUNTIME_DEFAULT]);
            report(wrong, &path.child("securityContext").child("appArmorProfile"), "apparmor", errors);
        }
    }
}

fn report(wrong: Option<&str>, path: &Path, what: &str, errors: &mut Errors) {
    if let Some(field) = wrong {
        let part = if field == "type" { "type" } else { "profile" };
        errors.forbidden(path.child(field), format!("{what} {part} in annotation and field must match"));
    }
}

/// What may not change in the annotations of a pod that exists.
pub(crate) fn validate_annotations_update(pod: &Pod, old: &Pod, errors: &mut Errors) {
    let path = Path::root("metadata").child("annotations");
    let fixed = |key: &str| match key {
        MIRROR_ANNOTATION => Some("mirror pod annotation"),
        key if key.starts_with(APP_ARMOR_PREFIX) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, before) in old.metadata.annotations.iter().flatten() {
        let changed = annotation(&pod.metadata, key) != Some(before);
        if let Some(what) = fixed(key).filter(|_| changed) {
            errors.forbidden(path.key(key), format!("may not remove or update {what}"));
        }
    }
    for (key, _) in pod.metadata.annotations.iter().flatten() {
        let added = annotation(&old.metadata, key).is_none();
        if let Some(what) = fixed(key).filter(|_| added) {
            errors.forbidden(path.key(key), format!("may not add {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update, run_create};
    use serde_json::{Value, json};

    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/c";

    fn pod(annotations: Value, context: Value) -> Value {
        json!({"metadata": {"annotations": annotations},
            "spec": {"containers": [{"name": "c", "image": "i", "securityContext": context}]}})
    }

    #[track_caller]
    fn check(annotations: Value, context: Value, expect: &str) {
        check_create("", "v1", "Pod", pod(annotations, context), expect);
    }

    #[test]
    fn values_are_checked() {
        check(
            json!({"seccomp.security.alpha.kubernetes.io/pod": "x"}),
            json!({}),
            "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"x\": must be a valid seccomp \
             profile",
        );
        check(json!({"seccomp.security.alpha.kubernetes.io/pod": "localhost/a"}), json!({}), "");
        check(
            json!({APP_ARMOR: "x"}),
            json!({}),
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: Invalid value: \"x\": invalid \
             AppArmor profile name: \"x\"",
        );
        check(
            json!({"container.apparmor.security.beta.kubernetes.io/none": "unconfined"}),
            json!({}),
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/none]: Invalid value: \"none\": \
             container not found",
        );
        for cost in ["+1", "01", "", "3000000000"] {
            let expect = format!(
                "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"{cost}\": must be a \
                 32bit integer"
            );
            check(json!({"controller.kubernetes.io/pod-deletion-cost": cost}), json!({}), &expect);
        }
        check(json!({"controller.kubernetes.io/pod-deletion-cost": "-5"}), json!({}), "");
    }

    #[test]
    fn an_annotation_and_a_field_agree() {
        check(
            json!({"container.seccomp.security.alpha.kubernetes.io/c": "unconfined"}),
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
            "spec.containers[0].securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must \
             match",
        );
        check(
            json!({APP_ARMOR: "localhost/a"}),
            json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "b"}}),
            "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in \
             annotation and field must match",
        );
    }

    #[test]
    fn an_app_armor_annotation_becomes_a_field_and_stays() {
        let made = run_create("", "v1", "Pod", pod(json!({APP_ARMOR: "localhost/a"}), json!(null))).unwrap();
        let profile = &made["spec"]["containers"][0]["securityContext"]["appArmorProfile"];
        assert_eq!(*profile, json!({"type": "Localhost", "localhostProfile": "a"}));
        check_update(
            "",
            "v1",
            "Pod",
            pod(json!({}), json!({})),
            pod(json!({APP_ARMOR: ""}), json!({})),
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not remove or update \
             AppArmor annotations",
        );
    }
}

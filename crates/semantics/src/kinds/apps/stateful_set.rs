//! StatefulSet: ordered, claims retained by default; only replicas, template, strategies and ordinals may change.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::defaults::claim::default_claim;
use crate::defaults::pod_spec::default_template;
use crate::defaults::{fill, fill_text, text};
use crate::field::{Errors, Path, Shown};
use crate::names::{dns1123_label, label_name};
use crate::strategy::{Generation, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::claim::validate_claim_spec;
use crate::validate::numbers::{
    int_or_percent_value, validate_count, validate_immutable, validate_int_or_percent, validate_percent_at_most_100,
};
use crate::validate::replicas::{validate_available, validate_collisions, validate_counts, validate_parts, widen};
use crate::validate::rollout::{ordered, strategy_fields};
use crate::validate::template::{
    SelectorOwner, validate_running_template, validate_selector, validate_selector_unchanged,
};
use crate::warnings::claim::claim_spec_warnings;
use crate::warnings::workload_warnings;

const NEGATIVE_LIMIT: &str =
    "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";

pub struct StatefulSetRules;

impl Rules for StatefulSetRules {
    type Object = StatefulSet;
    const SELECTOR_MAY_LACK: bool = true;
    const SHAPE: Shape = Shape::new(label_name).generation(Generation::Spec).with_status();

    fn default(object: &mut StatefulSet) {
        let spec = &mut object.spec;
        default_template(&mut spec.template);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            claim.spec.get_or_insert_default();
            default_claim(claim);
        }
        fill_text(&mut spec.pod_management_policy, "OrderedReady");
        default_strategy(spec.update_strategy.get_or_insert_default());
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        fill_text(&mut retention.when_deleted, "Retain");
        fill_text(&mut retention.when_scaled, "Retain");
        fill(&mut spec.replicas, 1);
        fill(&mut spec.revision_history_limit, 10);
    }

    fn pod_spec(object: &mut StatefulSet) -> Option<&mut PodSpec> {
        object.spec.template.spec.as_mut()
    }

    fn validate_create(object: &StatefulSet, errors: &mut Errors) {
        validate_spec(&object.spec, errors);
    }

    fn validate_update(write: &Write<'_>, object: &StatefulSet, old: &StatefulSet, errors: &mut Errors) {
        if write.sub == Subresource::Status {
            let status = object.status.clone().unwrap_or_default();
            validate_status(&status, errors);
            let before = old.status.as_ref().and_then(|status| status.collision_count);
            return validate_collisions(status.collision_count, before, errors);
        }
        let (spec, old) = (&object.spec, &old.spec);
        validate_spec(spec, errors);
        let path = Path::root("spec");
        validate_selector_unchanged(&spec.selector, &old.selector, errors);
        let claims = path.child("volumeClaimTemplates");
        validate_immutable(&spec.volume_claim_templates, &old.volume_claim_templates, claims, errors);
        validate_immutable(&text(&spec.service_name), &text(&old.service_name), path.child("serviceName"), errors);
        let policy = path.child("podManagementPolicy");
        validate_immutable(&spec.pod_management_policy, &old.pod_management_policy, policy, errors);
    }

    fn warnings(object: &StatefulSet, old: Option<&StatefulSet>) -> Vec<String> {
        let changed = old.is_none_or(|old| old.spec != object.spec);
        let template = Some(&object.spec.template).filter(|_| changed);
        let mut found = workload_warnings(None, template);
        for (index, claim) in object.spec.volume_claim_templates.iter().flatten().enumerate() {
            let path = Path::root("spec").child("volumeClaimTemplates").index(index).child("spec");
            found.extend(claim.spec.iter().flat_map(|spec| claim_spec_warnings(spec, &path)));
        }
        if object.spec.revision_history_limit.is_some_and(|limit| limit < 0) {
            found.push(NEGATIVE_LIMIT.to_owned());
        }
        found
    }
}

fn default_strategy(strategy: &mut StatefulSetUpdateStrategy) {
    if text(&strategy.type_).is_empty() {
        strategy.type_ = Some("RollingUpdate".to_owned());
        strategy.rolling_update.get_or_insert_default();
    }
    if text(&strategy.type_) == "RollingUpdate"
        && let Some(rolling) = &mut strategy.rolling_update
    {
        fill(&mut rolling.partition, 0);
        fill(&mut rolling.max_unavailable, IntOrString::Int(1));
    }
}

fn validate_status(status: &StatefulSetStatus, errors: &mut Errors) {
    let parts = [
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    validate_counts(&[("replicas", Some(i64::from(status.replicas)))], errors);
    validate_counts(&parts.map(widen), errors);
    validate_counts(&[("observedGeneration", status.observed_generation)], errors);
    validate_counts(&[("collisionCount", status.collision_count)].map(widen), errors);
    validate_parts(status.replicas, &parts, errors);
    validate_available(status.ready_replicas, status.available_replicas, "status.readyReplicas", errors);
}

fn validate_spec(spec: &StatefulSetSpec, errors: &mut Errors) {
    let path = Path::root("spec");
    match text(&spec.pod_management_policy) {
        "OrderedReady" | "Parallel" => {}
        "" => errors.required(path.child("podManagementPolicy"), ""),
        other => errors.invalid(path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    if let Some(strategy) = &spec.update_strategy {
        validate_strategy(strategy, &path.child("updateStrategy"), errors);
    }
    validate_claims(spec, &path, errors);
    validate_count(spec.replicas, path.child("replicas"), errors);
    validate_count(spec.min_ready_seconds, path.child("minReadySeconds"), errors);
    validate_count(spec.ordinals.as_ref().and_then(|o| o.start), path.child("ordinals.start"), errors);
    let service = text(&spec.service_name);
    if !service.is_empty() {
        errors.invalid_each(&path.child("serviceName"), service, dns1123_label(service));
    }
    let owner = SelectorOwner { name: "statefulset", unusable: Some("") };
    if validate_selector(&spec.selector, &spec.template, owner, &path, errors) {
        validate_running_template(&effective_template(spec), "StatefulSet", &path.child("template"), errors);
    }
}

/// The template as its pods will have it: with the claims as volumes, without the names the controller sets.
fn effective_template(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let pod = template.spec.get_or_insert_default();
    pod.hostname = None;
    pod.subdomain = None;
    let claims: Vec<String> =
        spec.volume_claim_templates.iter().flatten().filter_map(|claim| claim.metadata.name.clone()).collect();
    let volumes = pod.volumes.get_or_insert_default();
    volumes.retain(|volume| !claims.contains(&volume.name));
    volumes.extend(claims.into_iter().map(|name| Volume {
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name.clone(),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        name,
        ..Volume::default()
    }));
    template
}

fn validate_claims(spec: &StatefulSetSpec, path: &Path, errors: &mut Errors) {
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (name, value) in [("whenDeleted", text(&policy.when_deleted)), ("whenScaled", text(&policy.when_scaled))] {
            if !matches!(value, "Retain" | "Delete") {
                errors.not_supported(path.child(name), value, &["Retain", "Delete"]);
            }
        }
    }
    for (index, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
        if let Some(claim) = &claim.spec {
            validate_claim_spec(claim, &path.child("volumeClaimTemplates").index(index).child("spec"), errors);
        }
    }
}

fn validate_strategy(strategy: &StatefulSetUpdateStrategy, path: &Path, errors: &mut Errors) {
    let rolling_path = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.required(path.clone(), ""),
        ("OnDelete", Some(rolling)) => {
            let fields = ordered(rolling.partition, &rolling.max_unavailable);
            errors.invalid_struct(rolling_path, &fields, "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            validate_count(rolling.partition, rolling_path.child("partition"), errors);
            if let Some(unavailable) = &rolling.max_unavailable {
                let path = rolling_path.child("maxUnavailable");
                validate_int_or_percent(unavailable, &path, errors);
                if int_or_percent_value(unavailable) == 0 {
                    errors.invalid(path.clone(), json!(unavailable), "cannot be 0");
                }
                validate_percent_at_most_100(unavailable, &path, errors);
            }
        }
        (_, rolling) => {
            let rolling = rolling.as_ref().map(|r| Shown::of_struct(&ordered(r.partition, &r.max_unavailable)));
            let fields = strategy_fields(text(&strategy.type_), rolling);
            errors.invalid_struct(path.clone(), &fields, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

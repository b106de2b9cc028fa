//! Validation of Jobs.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::json;

use super::{CONTROLLER_UID, JOB_NAME};
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::label_selector;
use crate::names::dns1123_label;
use crate::validate::labels::validate_label_selector;
use crate::validate::numbers::{validate_count, validate_immutable, validate_not_negative};
use crate::validate::template::validate_template;

const PARALLELISM_MAX_INDEXED: i32 = 100_000;

pub(super) fn validate_new(job: &Job, errors: &mut Errors) {
    let Some(spec) = &job.spec else { return };
    validate_generated(job, spec, errors);
    validate_own_spec(spec, errors);
    let name = job.metadata.name.as_deref().unwrap_or_default();
    if spec.completion_mode.as_deref() == Some("Indexed") && spec.completions.unwrap_or(0) > 0 {
        let last = format!("{name}-{}", spec.completions.unwrap_or(1) - 1);
        let problems = dns1123_label(&last);
        if !problems.is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {last}");
            errors.invalid(Path::root("metadata").child("name"), name, detail);
        }
    }
}

pub(super) fn validate_change(job: &Job, old: &Job, errors: &mut Errors) {
    let (Some(spec), Some(old_spec)) = (&job.spec, &old.spec) else { return };
    validate_own_spec(spec, errors);
    let path = Path::root("spec");
    validate_completions(spec, old_spec, &path, errors);
    validate_immutable(&spec.selector, &old_spec.selector, path.child("selector"), errors);
    validate_template_change(job, old, &path, errors);
    validate_immutable(&spec.completion_mode, &old_spec.completion_mode, path.child("completionMode"), errors);
    validate_immutable(&spec.pod_failure_policy, &old_spec.pod_failure_policy, path.child("podFailurePolicy"), errors);
    let per_index = path.child("backoffLimitPerIndex");
    validate_immutable(&spec.backoff_limit_per_index, &old_spec.backoff_limit_per_index, per_index, errors);
    validate_immutable(&spec.managed_by, &old_spec.managed_by, path.child("managedBy"), errors);
    validate_immutable(&spec.success_policy, &old_spec.success_policy, path.child("successPolicy"), errors);
}

pub(super) fn validate_status(job: &Job, errors: &mut Errors) {
    let Some(status) = &job.status else { return };
    let path = Path::root("status");
    for (name, count) in [("active", status.active), ("succeeded", status.succeeded), ("failed", status.failed)] {
        validate_count(count, path.child(name), errors);
    }
}

/// The spec of a job of its own: also the selector.
fn validate_own_spec(spec: &JobSpec, errors: &mut Errors) {
    let path = Path::root("spec");
    validate_job_spec(spec, &path, errors);
    let selector_path = path.child("selector");
    let Some(selector) = &spec.selector else { return errors.required(selector_path, "") };
    validate_label_selector(Some(selector), &selector_path, errors);
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if !label_selector::matches(selector, &labels) {
        let path = path.child("template").child("metadata").child("labels");
        errors.invalid(path, json!(labels), "`selector` does not match template `labels`");
    }
}

fn validate_generated(job: &Job, spec: &JobSpec, errors: &mut Errors) {
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let path = Path::root("spec").child("template").child("metadata").child("labels");
    let expected = [(CONTROLLER_UID, &job.metadata.uid), (JOB_NAME, &job.metadata.name)];
    for (key, wanted) in expected {
        let wanted = wanted.as_deref().unwrap_or_default();
        if labels.get(key).is_none_or(|found| found != wanted) {
            let found = labels.get(key).cloned().unwrap_or_default();
            errors.invalid(path.key(key), found, format!("must be '{wanted}'"));
        }
    }
    let selected = spec.selector.as_ref().and_then(|s| s.match_labels.as_ref());
    let by_uid = selected.is_some_and(|labels| labels.get(CONTROLLER_UID) == job.metadata.uid.as_ref());
    if !by_uid {
        let value = serde_json::to_value(&spec.selector).unwrap_or_default();
        errors.invalid(Path::root("spec").child("selector"), value, "`selector` not auto-generated");
    }
}

/// What holds for a job and for the template of a CronJob.
pub(in crate::kinds::batch) fn validate_job_spec(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let counts = [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    for (name, count) in counts {
        validate_count(count, path.child(name), errors);
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        validate_not_negative(seconds, path.child("activeDeadlineSeconds"), errors);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.required(path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    validate_mode(spec, path, errors);
    validate_template(&spec.template, &path.child("template"), errors);
    validate_restart_policy(spec, path, errors);
}

fn validate_mode(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    match spec.completion_mode.as_deref().unwrap_or("NonIndexed") {
        "Indexed" => {
            if spec.completions.is_none() {
                errors.required(path.child("completions"), "when completion mode is Indexed");
            }
            if let Some(parallelism) = spec.parallelism.filter(|n| *n > PARALLELISM_MAX_INDEXED) {
                let detail =
                    format!("must be less than or equal to {PARALLELISM_MAX_INDEXED} when completion mode is Indexed");
                errors.invalid(path.child("parallelism"), parallelism, detail);
            }
            if let (Some(failed), Some(completions)) = (spec.max_failed_indexes, spec.completions)
                && failed > completions
            {
                errors.invalid(path.child("maxFailedIndexes"), failed, "must be less than or equal to completions");
            }
        }
        "NonIndexed" => {
            let indexed_only =
                [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)];
            for (name, value) in indexed_only {
                if let Some(value) = value {
                    errors.invalid(path.child(name), value, "requires indexed completion mode");
                }
            }
            if let Some(policy) = &spec.success_policy {
                let value = serde_json::to_value(policy).unwrap_or_default();
                errors.invalid(path.child("successPolicy"), value, "requires indexed completion mode");
            }
        }
        other => errors.not_supported(path.child("completionMode"), other, &["NonIndexed", "Indexed"]),
    }
    if let Some(policy) = spec.pod_replacement_policy.as_deref() {
        let path = path.child("podReplacementPolicy");
        match (spec.pod_failure_policy.is_some(), policy) {
            (true, "Failed") | (false, "Failed" | "TerminatingOrFailed") => {}
            (true, other) => errors.not_supported(path, other, &["Failed"]),
            (false, other) => errors.not_supported(path, other, &["Failed", "TerminatingOrFailed"]),
        }
    }
}

fn validate_restart_policy(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("template").child("spec").child("restartPolicy");
    let policy = spec.template.spec.as_ref().map(|pod| text(&pod.restart_policy)).unwrap_or_default();
    match policy {
        "Never" => {}
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            errors.invalid(path, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" => {}
        "Always" | "" => errors.required(path, "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(path, other, &["OnFailure", "Never"]),
    }
}

fn validate_completions(spec: &JobSpec, old: &JobSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("completions");
    if spec.completion_mode.as_deref() != Some("Indexed") {
        return validate_immutable(&spec.completions, &old.completions, path, errors);
    }
    if spec.completions != old.completions && spec.completions.is_some() && spec.completions != spec.parallelism {
        errors.invalid(path, json!(spec.completions), "can only be modified in tandem with spec.parallelism");
    }
}

/// While a job is suspended (and has no running pods) its scheduling directives and resources may change.
fn validate_template_change(job: &Job, old: &Job, path: &Path, errors: &mut Errors) {
    let (Some(spec), Some(old_spec)) = (&job.spec, &old.spec) else { return };
    let idle = old.status.as_ref().and_then(|s| s.active).unwrap_or(0) == 0;
    let started = old.status.as_ref().is_some_and(|s| s.start_time.is_some());
    let suspended = old_spec.suspend == Some(true);
    let mut expected = old_spec.template.clone();
    if suspended && (idle || !started) {
        allow_scheduling(&mut expected, &spec.template);
        allow_resources(&mut expected, &spec.template);
    }
    validate_immutable(&spec.template, &expected, path.child("template"), errors);
}

fn allow_scheduling(expected: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let metadata = new.metadata.clone().unwrap_or_default();
    let slot = expected.metadata.get_or_insert_default();
    slot.labels = metadata.labels;
    slot.annotations = metadata.annotations;
    let (Some(slot), Some(new)) = (&mut expected.spec, &new.spec) else { return };
    slot.node_selector.clone_from(&new.node_selector);
    slot.tolerations.clone_from(&new.tolerations);
    slot.scheduling_gates.clone_from(&new.scheduling_gates);
    let node_affinity = new.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    slot.affinity.get_or_insert_default().node_affinity = node_affinity;
}

fn allow_resources(expected: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let (Some(slot), Some(new)) = (&mut expected.spec, &new.spec) else { return };
    for (slot, new) in slot.containers.iter_mut().zip(&new.containers) {
        slot.resources.clone_from(&new.resources);
    }
    for (slot, new) in slot.init_containers.iter_mut().flatten().zip(new.init_containers.iter().flatten()) {
        slot.resources.clone_from(&new.resources);
    }
}

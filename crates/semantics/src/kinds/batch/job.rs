//! Job: gets a selector of its own unless told otherwise; its template and selector never change while it runs.

mod validation;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodSpec;

use crate::defaults::fill;
use crate::defaults::pod_spec::default_template;
use crate::field::Errors;
use crate::names::subdomain_name;
use crate::strategy::{Context, Generation, Shape, Subresource, Write};
use crate::typed::Rules;

pub(super) use validation::validate_job_spec;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const CONTROLLER_UID_OLD: &str = "controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const JOB_NAME_OLD: &str = "job-name";

pub struct JobRules;

impl Rules for JobRules {
    type Object = Job;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();

    fn default(object: &mut Job) {
        let spec = object.spec.get_or_insert_default();
        default_job_template_spec(spec);
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        fill(&mut spec.parallelism, 1);
        let backoff = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
        fill(&mut spec.backoff_limit, backoff);
        fill(&mut spec.completion_mode, "NonIndexed".to_owned());
        fill(&mut spec.suspend, false);
        let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        fill(&mut spec.pod_replacement_policy, replacement.to_owned());
        fill(&mut spec.manual_selector, false);
        let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
        if object.metadata.labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
            object.metadata.labels = labels;
        }
    }

    fn pod_spec(object: &mut Job) -> Option<&mut PodSpec> {
        object.spec.as_mut()?.template.spec.as_mut()
    }

    fn prepare_create(_context: &Context, object: &mut Job) {
        let name = object.metadata.name.clone().unwrap_or_default();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        if let Some(spec) = object.spec.as_mut().filter(|spec| spec.manual_selector != Some(true)) {
            generate_selector(spec, &name, &uid);
        }
    }

    fn validate_create(object: &Job, errors: &mut Errors) {
        validation::validate_new(object, errors);
    }

    fn validate_update(write: &Write<'_>, object: &Job, old: &Job, errors: &mut Errors) {
        match write.sub {
            Subresource::Status => validation::validate_status(object, errors),
            _ => validation::validate_change(object, old, errors),
        }
    }
}

/// Defaults that also hold for the job template of a CronJob.
pub(super) fn default_job_template_spec(spec: &mut JobSpec) {
    default_template(&mut spec.template);
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules);
    for pattern in rules.flat_map(|rule| rule.on_pod_conditions.iter_mut().flatten()) {
        crate::defaults::fill_text(&mut pattern.status, "True");
    }
}

/// Labels the pods with the job's name and uid and selects them by uid. What the user set stays, for validation to judge.
fn generate_selector(spec: &mut JobSpec, name: &str, uid: &str) {
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for key in [JOB_NAME_OLD, JOB_NAME] {
        labels.entry(key.to_owned()).or_insert_with(|| name.to_owned());
    }
    for key in [CONTROLLER_UID_OLD, CONTROLLER_UID] {
        labels.entry(key.to_owned()).or_insert_with(|| uid.to_owned());
    }
    let selector = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selector.entry(CONTROLLER_UID.to_owned()).or_insert_with(|| uid.to_owned());
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, run_create};
    use serde_json::json;

    #[test]
    fn a_new_job_selects_its_pods_by_uid() {
        let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}}});
        let made = run_create("batch", "v1", "Job", job).unwrap();
        assert_eq!(made["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "uid-1");
        assert_eq!(made["spec"]["template"]["metadata"]["labels"]["job-name"], "x");
        assert_eq!(made["spec"]["completions"], 1);
        assert_eq!(made["spec"]["backoffLimit"], 6);
    }

    #[test]
    fn pods_do_not_run_for_good() {
        let job = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        check_create(
            "batch",
            "v1",
            "Job",
            job,
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        );
    }
}

//! CronJob: a schedule and a job template.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use k8s_openapi::api::core::v1::PodSpec;

use super::job::{default_job_template_spec, validate_job_spec};
use crate::defaults::{fill, fill_text, text};
use crate::field::{Errors, Path};
use crate::names::{max_len_message, subdomain_name};
use crate::strategy::{Generation, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::numbers::{validate_count, validate_not_negative};

/// A job's name is the CronJob's with eleven more letters.
const NAME_LETTERS_MAX: usize = 52;

pub struct CronJobRules;

impl Rules for CronJobRules {
    type Object = CronJob;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();

    fn default(object: &mut CronJob) {
        let spec = &mut object.spec;
        fill_text(&mut spec.concurrency_policy, "Allow");
        fill(&mut spec.suspend, false);
        fill(&mut spec.successful_jobs_history_limit, 3);
        fill(&mut spec.failed_jobs_history_limit, 1);
        default_job_template_spec(spec.job_template.spec.get_or_insert_default());
    }

    fn pod_spec(object: &mut CronJob) -> Option<&mut PodSpec> {
        object.spec.job_template.spec.as_mut()?.template.spec.as_mut()
    }

    fn validate_create(object: &CronJob, errors: &mut Errors) {
        validate(&object.spec, errors);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if name.len() > NAME_LETTERS_MAX {
            errors.invalid(Path::root("metadata").child("name"), name, max_len_message(NAME_LETTERS_MAX));
        }
    }

    fn validate_update(write: &Write<'_>, object: &CronJob, _old: &CronJob, errors: &mut Errors) {
        if write.sub == Subresource::Main {
            validate(&object.spec, errors);
        }
    }
}

fn validate(spec: &CronJobSpec, errors: &mut Errors) {
    let path = Path::root("spec");
    validate_schedule(spec, &path, errors);
    if let Some(seconds) = spec.starting_deadline_seconds {
        validate_not_negative(seconds, path.child("startingDeadlineSeconds"), errors);
    }
    match spec.time_zone.as_deref() {
        Some("") => errors.invalid(path.child("timeZone"), "", "timeZone must be nil or non-empty string"),
        Some(zone) if zone.eq_ignore_ascii_case("local") => errors.invalid(
            path.child("timeZone"),
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ),
        Some(zone) if !is_zone_name(zone) => {
            errors.invalid(path.child("timeZone"), zone, format!("unknown time zone {zone}"));
        }
        _ => {}
    }
    match text(&spec.concurrency_policy) {
        "Allow" | "Forbid" | "Replace" => {}
        "" => errors.required(path.child("concurrencyPolicy"), ""),
        other => errors.not_supported(path.child("concurrencyPolicy"), other, &["Allow", "Forbid", "Replace"]),
    }
    if let Some(job) = &spec.job_template.spec {
        let path = path.child("jobTemplate").child("spec");
        if job.manual_selector == Some(true) {
            errors.not_supported(path.child("manualSelector"), true, &["nil", "false"]);
        }
        validate_job_spec(job, &path, errors);
    }
    validate_count(spec.successful_jobs_history_limit, path.child("successfulJobsHistoryLimit"), errors);
    validate_count(spec.failed_jobs_history_limit, path.child("failedJobsHistoryLimit"), errors);
}

fn is_zone_name(zone: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    zone.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.starts_with('-') && part.chars().all(letter))
}

/// Five fields, or a word such as `@daily`. What stands in the fields the controller's parser judges.
fn validate_schedule(spec: &CronJobSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("schedule");
    let schedule = spec.schedule.as_str();
    if schedule.is_empty() {
        return errors.required(path, "");
    }
    if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        return errors.invalid(path, schedule, detail);
    }
    let fields = schedule.split_whitespace().count();
    let words = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if schedule.starts_with('@') {
        if !words.contains(&schedule) && !schedule.starts_with("@every ") {
            errors.invalid(path, schedule, format!("unrecognized descriptor: {schedule}"));
        }
    } else if fields != 5 {
        let found = schedule.split_whitespace().collect::<Vec<_>>().join(" ");
        errors.invalid(path, schedule, format!("expected exactly 5 fields, found {fields}: [{found}]"));
    }
}

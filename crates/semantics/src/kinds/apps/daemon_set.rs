//! DaemonSet: one pod at a time is replaced by default; a change of the template is counted in an annotation.

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::defaults::pod_spec::default_template;
use crate::defaults::{fill, fill_text, text};
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Context, Generation, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::numbers::{
    int_or_percent_value, int_or_string_json, validate_count, validate_int_or_percent, validate_percent_at_most_100,
};
use crate::validate::replicas::{validate_collisions, validate_counts, widen};
use crate::validate::rollout::{strategy_fields, surging};
use crate::validate::template::{
    SelectorOwner, validate_running_template, validate_selector, validate_selector_unchanged,
};
use crate::warnings::workload_warnings;

/// Where the old API's count of template changes lives on.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub struct DaemonSetRules;

impl Rules for DaemonSetRules {
    type Object = DaemonSet;
    const SELECTOR_MAY_LACK: bool = true;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();

    fn default(object: &mut DaemonSet) {
        let spec = &mut object.spec;
        default_template(&mut spec.template);
        let strategy = spec.update_strategy.get_or_insert_default();
        fill_text(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            fill(&mut rolling.max_unavailable, IntOrString::Int(1));
        }
        if let Some(rolling) = &mut strategy.rolling_update {
            fill(&mut rolling.max_unavailable, IntOrString::Int(0));
            fill(&mut rolling.max_surge, IntOrString::Int(0));
        }
        fill(&mut spec.revision_history_limit, 10);
        let count = template_generation(object);
        set_template_generation(object, count);
    }

    fn pod_spec(object: &mut DaemonSet) -> Option<&mut PodSpec> {
        object.spec.template.spec.as_mut()
    }

    fn prepare_create(_context: &Context, object: &mut DaemonSet) {
        let count = template_generation(object).max(1);
        set_template_generation(object, count);
    }

    fn validate_create(object: &DaemonSet, errors: &mut Errors) {
        validate_spec(&object.spec, errors);
    }

    fn prepare_update(write: &Write<'_>, object: &mut DaemonSet, old: &DaemonSet) {
        if write.sub != Subresource::Main {
            return;
        }
        let before = template_generation(old);
        let same = object.spec.template == old.spec.template;
        set_template_generation(object, if same { before } else { before + 1 });
    }

    fn validate_update(write: &Write<'_>, object: &DaemonSet, old: &DaemonSet, errors: &mut Errors) {
        if write.sub == Subresource::Status {
            let status = object.status.clone().unwrap_or_default();
            validate_status(&status, errors);
            let before = old.status.as_ref().and_then(|status| status.collision_count);
            return validate_collisions(status.collision_count, before, errors);
        }
        let (spec, old) = (&object.spec, &old.spec);
        validate_selector_unchanged(&spec.selector, &old.selector, errors);
        validate_spec(spec, errors);
    }

    fn warnings(object: &DaemonSet, old: Option<&DaemonSet>) -> Vec<String> {
        let changed = old.is_none_or(|old| old.spec != object.spec);
        let template = Some(&object.spec.template).filter(|_| changed);
        workload_warnings(None, template)
    }
}

fn template_generation(object: &DaemonSet) -> i64 {
    let annotation = object.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
    annotation.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn set_template_generation(object: &mut DaemonSet, count: i64) {
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), count.to_string());
}

fn validate_status(status: &DaemonSetStatus, errors: &mut Errors) {
    let always = [
        ("currentNumberScheduled", status.current_number_scheduled),
        ("numberMisscheduled", status.number_misscheduled),
        ("desiredNumberScheduled", status.desired_number_scheduled),
        ("numberReady", status.number_ready),
    ];
    validate_counts(&always.map(|(name, count)| (name, Some(i64::from(count)))), errors);
    validate_counts(&[("observedGeneration", status.observed_generation)], errors);
    let rest = [
        ("updatedNumberScheduled", status.updated_number_scheduled),
        ("numberAvailable", status.number_available),
        ("numberUnavailable", status.number_unavailable),
        ("collisionCount", status.collision_count),
    ];
    validate_counts(&rest.map(widen), errors);
}

fn validate_spec(spec: &DaemonSetSpec, errors: &mut Errors) {
    let path = Path::root("spec");
    validate_selector(
        &spec.selector,
        &spec.template,
        SelectorOwner { name: "daemonset", unusable: None },
        &path,
        errors,
    );
    validate_running_template(&spec.template, "DaemonSet", &path.child("template"), errors);
    validate_count(spec.min_ready_seconds, path.child("minReadySeconds"), errors);
    if let Some(strategy) = &spec.update_strategy {
        validate_strategy(strategy, &path.child("updateStrategy"), errors);
    }
    validate_count(spec.revision_history_limit, path.child("revisionHistoryLimit"), errors);
}

fn validate_strategy(strategy: &DaemonSetUpdateStrategy, path: &Path, errors: &mut Errors) {
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.required(path.child("rollingUpdate"), ""),
        ("RollingUpdate", Some(rolling)) => validate_rolling(rolling, &path.child("rollingUpdate"), errors),
        _ => {
            let rolling = strategy.rolling_update.as_ref().map(|r| surging(&r.max_unavailable, &r.max_surge));
            let fields = strategy_fields(text(&strategy.type_), rolling);
            errors.not_supported_struct(path.clone(), &fields, &["RollingUpdate", "OnDelete"]);
        }
    }
}

fn validate_rolling(rolling: &RollingUpdateDaemonSet, path: &Path, errors: &mut Errors) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let (unavailable_path, surge_path) = (path.child("maxUnavailable"), path.child("maxSurge"));
    validate_int_or_percent(unavailable, &unavailable_path, errors);
    validate_int_or_percent(surge, &surge_path, errors);
    validate_percent_at_most_100(unavailable, &unavailable_path, errors);
    validate_percent_at_most_100(surge, &surge_path, errors);
    match (int_or_percent_value(unavailable) != 0, int_or_percent_value(surge) != 0) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.invalid(surge_path, int_or_string_json(surge), detail);
        }
        (false, false) => errors.required(unavailable_path, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

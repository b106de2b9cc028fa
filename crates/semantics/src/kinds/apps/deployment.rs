//! Deployment: rolling update of a quarter at a time unless told otherwise; the selector never changes.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::defaults::pod_spec::default_template;
use crate::defaults::{fill, fill_text, text};
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape, StatusMetadata, Subresource, Write};
use crate::typed::Rules;
use crate::validate::numbers::{
    int_or_percent_value, int_or_string_json, validate_count, validate_int_or_percent, validate_percent_at_most_100,
};
use crate::validate::replicas::{validate_available, validate_collisions, validate_counts, validate_parts, widen};
use crate::validate::rollout::{strategy_fields, surging};
use crate::validate::template::{
    DEPLOYMENT, validate_running_template, validate_selector, validate_selector_unchanged,
};
use crate::warnings::workload_warnings;

const QUARTER: &str = "25%";

pub struct DeploymentRules;

impl Rules for DeploymentRules {
    type Object = Deployment;
    const SELECTOR_MAY_LACK: bool = true;
    const SHAPE: Shape = Shape::new(subdomain_name)
        .generation(Generation::SpecOrAnnotations)
        .with_status()
        .status_metadata(StatusMetadata::KeepLabels);

    fn default(object: &mut Deployment) {
        let spec = &mut object.spec;
        default_template(&mut spec.template);
        fill(&mut spec.replicas, 1);
        default_strategy(spec.strategy.get_or_insert_default());
        fill(&mut spec.revision_history_limit, 10);
        fill(&mut spec.progress_deadline_seconds, 600);
    }

    fn pod_spec(object: &mut Deployment) -> Option<&mut PodSpec> {
        object.spec.template.spec.as_mut()
    }

    fn validate_create(object: &Deployment, errors: &mut Errors) {
        validate_spec(&object.spec, errors);
    }

    fn validate_update(write: &Write<'_>, object: &Deployment, old: &Deployment, errors: &mut Errors) {
        if write.sub == Subresource::Status {
            let status = object.status.clone().unwrap_or_default();
            validate_status(&status, errors);
            let before = old.status.as_ref().and_then(|status| status.collision_count);
            return validate_collisions(status.collision_count, before, errors);
        }
        let (spec, old) = (&object.spec, &old.spec);
        validate_spec(spec, errors);
        validate_selector_unchanged(&spec.selector, &old.selector, errors);
    }

    fn warnings(object: &Deployment, old: Option<&Deployment>) -> Vec<String> {
        let changed = old.is_none_or(|old| old.spec != object.spec);
        let template = Some(&object.spec.template).filter(|_| changed);
        workload_warnings(object.metadata.name.as_deref().filter(|_| old.is_none()), template)
    }
}

fn default_strategy(strategy: &mut DeploymentStrategy) {
    fill_text(&mut strategy.type_, "RollingUpdate");
    if text(&strategy.type_) == "RollingUpdate" {
        let rolling = strategy.rolling_update.get_or_insert_default();
        fill(&mut rolling.max_unavailable, IntOrString::String(QUARTER.to_owned()));
        fill(&mut rolling.max_surge, IntOrString::String(QUARTER.to_owned()));
    }
}

fn validate_spec(spec: &DeploymentSpec, errors: &mut Errors) {
    let path = Path::root("spec");
    validate_count(spec.replicas, path.child("replicas"), errors);
    if validate_selector(&spec.selector, &spec.template, DEPLOYMENT, &path, errors) {
        validate_running_template(&spec.template, "ReplicaSet", &path.child("template"), errors);
    }
    if let Some(strategy) = &spec.strategy {
        validate_strategy(strategy, &path.child("strategy"), errors);
    }
    validate_count(spec.min_ready_seconds, path.child("minReadySeconds"), errors);
    validate_count(spec.revision_history_limit, path.child("revisionHistoryLimit"), errors);
    if let Some(seconds) = spec.progress_deadline_seconds {
        let path = path.child("progressDeadlineSeconds");
        validate_count(Some(seconds), path.clone(), errors);
        if seconds <= spec.min_ready_seconds.unwrap_or(0) {
            errors.invalid(path, seconds, "must be greater than minReadySeconds");
        }
    }
}

fn validate_strategy(strategy: &DeploymentStrategy, path: &Path, errors: &mut Errors) {
    let rolling_path = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            let unavailable_path = rolling_path.child("maxUnavailable");
            validate_int_or_percent(unavailable, &unavailable_path, errors);
            validate_int_or_percent(surge, &rolling_path.child("maxSurge"), errors);
            if int_or_percent_value(unavailable) == 0 && int_or_percent_value(surge) == 0 {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.invalid(unavailable_path.clone(), int_or_string_json(unavailable), detail);
            }
            validate_percent_at_most_100(unavailable, &unavailable_path, errors);
        }
        ("RollingUpdate", None) => errors.required(rolling_path, "this should be defaulted and never be nil"),
        _ => {
            let rolling = strategy.rolling_update.as_ref().map(|r| surging(&r.max_unavailable, &r.max_surge));
            let fields = strategy_fields(text(&strategy.type_), rolling);
            errors.not_supported_struct(path.clone(), &fields, &["Recreate", "RollingUpdate"]);
        }
    }
}

fn validate_status(status: &DeploymentStatus, errors: &mut Errors) {
    let parts = [
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    validate_counts(&[("observedGeneration", status.observed_generation)], errors);
    validate_counts(&[("replicas", status.replicas)].map(widen), errors);
    validate_counts(&parts.map(widen), errors);
    let rest = [
        ("unavailableReplicas", status.unavailable_replicas),
        ("terminatingReplicas", status.terminating_replicas),
        ("collisionCount", status.collision_count),
    ];
    validate_counts(&rest.map(widen), errors);
    validate_parts(status.replicas.unwrap_or(0), &parts, errors);
    validate_available(status.ready_replicas, status.available_replicas, "readyReplicas", errors);
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update, run_create, run_update};
    use crate::strategy::Subresource;
    use serde_json::{Value, json};

    fn deployment(label: &str) -> Value {
        json!({"spec": {"selector": {"matchLabels": {"a": label}}, "template": {
            "metadata": {"labels": {"a": label}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    }

    #[test]
    fn defaults() {
        let made = run_create("apps", "v1", "Deployment", deployment("x")).unwrap();
        assert_eq!(made["spec"]["replicas"], 1);
        assert_eq!(made["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(made["spec"]["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(made["metadata"]["generation"], 1);
    }

    #[test]
    fn the_selector_matches_and_stays() {
        let mut bad = deployment("x");
        bad["spec"]["template"]["metadata"]["labels"] = json!({"a": "y"});
        check_create(
            "apps",
            "v1",
            "Deployment",
            bad,
            "spec.template.metadata.labels: Invalid value: {\"a\":\"y\"}: `selector` does not match template `labels`",
        );
        check_update(
            "apps",
            "v1",
            "Deployment",
            deployment("y"),
            deployment("x"),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"y\"}}: field is immutable",
        );
    }

    #[test]
    fn a_selector_without_parts_is_not_an_absent_one() {
        let refusal = |selector: Value| {
            let mut object = deployment("x");
            object["spec"]["selector"] = selector;
            run_create("apps", "v1", "Deployment", object).err().unwrap_or_default()
        };
        let empty = "spec.selector: Invalid value: {}: empty selector is invalid for deployment";
        assert_eq!(refusal(json!({})), empty);
        assert_eq!(refusal(json!({"matchLabels": {}, "matchExpressions": []})), empty);
        let absent = "[spec.selector: Required value, spec.template.metadata.labels: Invalid value: {\"a\":\"x\"}: \
                      `selector` does not match template `labels`]";
        assert_eq!(refusal(Value::Null), absent);
    }

    #[test]
    fn an_unknown_strategy_is_shown_as_upstream_holds_it() {
        let check = |strategy: Value, shown: &str| {
            let mut object = deployment("x");
            object["spec"]["strategy"] = strategy;
            let expect =
                format!("spec.strategy: Unsupported value: {shown}: supported values: \"Recreate\", \"RollingUpdate\"");
            check_create("apps", "v1", "Deployment", object, &expect);
        };
        check(json!({"type": "X"}), r#"{"Type":"X","RollingUpdate":null}"#);
        check(
            json!({"type": "X", "rollingUpdate": {"maxSurge": "5%"}}),
            r#"{"Type":"X","RollingUpdate":{"MaxUnavailable":0,"MaxSurge":"5%"}}"#,
        );
    }

    #[test]
    fn generation_rises_with_spec_and_annotations_only() {
        let run = |change: fn(&mut Value)| {
            let mut new = deployment("x");
            change(&mut new);
            let mut old = deployment("x");
            old["metadata"]["generation"] = json!(4);
            let kind = ("apps", "v1", "Deployment");
            run_update(kind, Subresource::Main, new, old).unwrap()["metadata"]["generation"].clone()
        };
        assert_eq!(run(|_| {}), 4);
        assert_eq!(run(|d| d["spec"]["replicas"] = json!(3)), 5);
        assert_eq!(run(|d| d["metadata"]["annotations"] = json!({"a": "b"})), 5);
        assert_eq!(run(|d| d["metadata"]["labels"] = json!({"a": "b"})), 4);
        assert_eq!(run(|d| d["status"] = json!({"replicas": 9})), 4);
    }
}

//! HorizontalPodAutoscaler in both versions: at least one replica and 80 % cpu by default.

use k8s_openapi::api::autoscaling::{v1, v2};
use serde_json::json;

use super::super::PLAIN;
use crate::defaults::fill;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape, Strategy};
use crate::typed::{Rules, Typed};

const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();
const CPU_UTILIZATION: i32 = 80;

pub fn strategy(version: &str, kind: &str) -> &'static dyn Strategy {
    match (version, kind) {
        ("v1", "HorizontalPodAutoscaler") => const { &Typed::<AutoscalerV1Rules>::new() },
        ("v2", "HorizontalPodAutoscaler") => const { &Typed::<AutoscalerV2Rules>::new() },
        _ => &PLAIN,
    }
}

pub struct AutoscalerV1Rules;

impl Rules for AutoscalerV1Rules {
    type Object = v1::HorizontalPodAutoscaler;
    const SHAPE: Shape = SHAPE;

    fn default(object: &mut Self::Object) {
        fill(&mut object.spec.min_replicas, 1);
    }

    fn validate(object: &Self::Object, errors: &mut Errors) {
        validate_bounds(object.spec.min_replicas, object.spec.max_replicas, errors);
    }
}

pub struct AutoscalerV2Rules;

impl Rules for AutoscalerV2Rules {
    type Object = v2::HorizontalPodAutoscaler;
    const SHAPE: Shape = SHAPE;

    fn default(object: &mut Self::Object) {
        let spec = &mut object.spec;
        fill(&mut spec.min_replicas, 1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![cpu_metric()]);
        }
        if let Some(behavior) = &mut spec.behavior {
            default_scale_up(behavior.scale_up.get_or_insert_default());
            default_scale_down(behavior.scale_down.get_or_insert_default());
        }
    }

    fn validate(object: &Self::Object, errors: &mut Errors) {
        validate_v2(&object.spec, errors);
    }
}

fn cpu_metric() -> v2::MetricSpec {
    v2::MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(v2::ResourceMetricSource {
            name: "cpu".to_owned(),
            target: v2::MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(CPU_UTILIZATION),
                ..v2::MetricTarget::default()
            },
        }),
        ..v2::MetricSpec::default()
    }
}

fn policy(type_: &str, value: i32) -> v2::HPAScalingPolicy {
    v2::HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 }
}

fn default_scale_up(rules: &mut v2::HPAScalingRules) {
    fill(&mut rules.stabilization_window_seconds, 0);
    fill(&mut rules.select_policy, "Max".to_owned());
    fill(&mut rules.policies, vec![policy("Pods", 4), policy("Percent", 100)]);
}

fn default_scale_down(rules: &mut v2::HPAScalingRules) {
    fill(&mut rules.select_policy, "Max".to_owned());
    fill(&mut rules.policies, vec![policy("Percent", 100)]);
}

fn validate_bounds(min: Option<i32>, max: i32, errors: &mut Errors) {
    let path = Path::root("spec");
    if let Some(min) = min.filter(|min| *min < 0) {
        errors.invalid(path.child("minReplicas"), min, "must be greater than or equal to 0");
    }
    if max < 1 {
        errors.invalid(path.child("maxReplicas"), max, "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(path.child("maxReplicas"), max, "must be greater than or equal to `minReplicas`");
    }
}

fn validate_v2(spec: &v2::HorizontalPodAutoscalerSpec, errors: &mut Errors) {
    validate_bounds(spec.min_replicas, spec.max_replicas, errors);
    let path = Path::root("spec").child("scaleTargetRef");
    for (name, value) in [("kind", &spec.scale_target_ref.kind), ("name", &spec.scale_target_ref.name)] {
        if value.is_empty() {
            errors.required(path.child(name), "");
        }
    }
    let known = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    for (index, metric) in spec.metrics.iter().flatten().enumerate() {
        if !known.contains(&metric.type_.as_str()) {
            let path = Path::root("spec").child("metrics").index(index).child("type");
            errors.not_supported(path, json!(metric.type_), &known);
        }
    }
}

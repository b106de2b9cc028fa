//! LimitRange: container defaults follow from max, default and min; the numbers of one item do not contradict.

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use serde_json::Value;

use crate::amount::nanos_or_zero;
use crate::field::{Errors, Path};
use crate::names::{qualified_name, subdomain_name};
use crate::resources::{ResourceList, round_up};
use crate::strategy::Shape;
use crate::typed::Rules;

pub struct LimitRangeRules;

impl Rules for LimitRangeRules {
    type Object = LimitRange;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn default(object: &mut LimitRange) {
        for item in object.spec.iter_mut().flat_map(|spec| &mut spec.limits) {
            default_item(item);
        }
    }

    fn validate(object: &LimitRange, errors: &mut Errors) {
        let path = Path::root("spec").child("limits");
        let mut seen = Vec::new();
        for (index, item) in object.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let path = path.index(index);
            if !matches!(item.type_.as_str(), "Pod" | "Container" | "PersistentVolumeClaim") {
                errors.invalid_each(&path.child("type"), &item.type_, qualified_name(&item.type_));
                if !item.type_.contains('/') {
                    let detail = "must be a standard limit type or fully qualified";
                    errors.invalid(path.child("type"), item.type_.as_str(), detail);
                }
            }
            if seen.contains(&&item.type_) {
                errors.duplicate(path.child("type"), item.type_.as_str());
            }
            seen.push(&item.type_);
            validate_item(item, &path, errors);
        }
    }
}

fn default_item(item: &mut LimitRangeItem) {
    for list in
        [&mut item.max, &mut item.min, &mut item.default, &mut item.default_request, &mut item.max_limit_request_ratio]
    {
        round_up(list);
    }
    if item.type_ != "Container" {
        return;
    }
    fill_missing(item.default.get_or_insert_default(), &item.max);
    fill_missing(item.default_request.get_or_insert_default(), &item.default);
    fill_missing(item.default_request.get_or_insert_default(), &item.min);
}

fn fill_missing(list: &mut ResourceList, from: &Option<ResourceList>) {
    for (name, quantity) in from.iter().flatten() {
        list.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
}

fn validate_item(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    if item.type_ == "Pod" {
        for (name, list) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.forbidden(path.child(name), detail);
            }
        }
    }
    if item.type_ == "PersistentVolumeClaim" {
        let has = |list: &Option<ResourceList>| list.as_ref().is_some_and(|list| list.contains_key("storage"));
        if !has(&item.min) && !has(&item.max) {
            errors.required(
                path.child("limits"),
                "either minimum or maximum storage value is required, but neither was provided",
            );
        }
    }
    let mut names: Vec<&String> = [&item.max, &item.min, &item.default, &item.default_request]
        .into_iter()
        .flatten()
        .flat_map(|l| l.keys())
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        validate_resource(item, name, path, errors);
    }
}

/// min <= defaultRequest <= default <= max, where each is given.
fn validate_resource(item: &LimitRangeItem, name: &str, path: &Path, errors: &mut Errors) {
    let amount = |list: &Option<ResourceList>| list.as_ref().and_then(|l| l.get(name)).cloned();
    let fields = [
        ("min", "min", amount(&item.min)),
        ("defaultRequest", "default request", amount(&item.default_request)),
        ("default", "default", amount(&item.default)),
        ("max", "max", amount(&item.max)),
    ];
    for (at, (low_field, low_words, low)) in fields.iter().enumerate() {
        for (_, high_words, high) in &fields[at + 1..] {
            let (Some(low), Some(high)) = (low, high) else { continue };
            if nanos_or_zero(low) > nanos_or_zero(high) {
                let detail = format!("{low_words} value {} is greater than {high_words} value {}", low.0, high.0);
                errors.invalid(path.child(low_field).key(name), Value::from(low.0.as_str()), detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, run_create};
    use serde_json::json;

    #[test]
    fn container_defaults_follow() {
        let made = run_create(
            "",
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}}),
        )
        .unwrap();
        assert_eq!(made["spec"]["limits"][0]["default"], json!({"cpu": "2"}));
        assert_eq!(made["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
    }

    #[test]
    fn bounds_do_not_cross() {
        check_create(
            "",
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}}),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
        );
    }
}

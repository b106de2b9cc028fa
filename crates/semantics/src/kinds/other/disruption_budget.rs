//! PodDisruptionBudget: one of minAvailable and maxUnavailable.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::labels::validate_label_selector;
use crate::validate::numbers::{validate_count, validate_int_or_percent, validate_percent_at_most_100};

pub struct DisruptionBudgetRules;

impl Rules for DisruptionBudgetRules {
    type Object = PodDisruptionBudget;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();

    fn validate(object: &PodDisruptionBudget, errors: &mut Errors) {
        let Some(spec) = &object.spec else { return };
        let path = Path::root("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let value = serde_json::to_value(spec).unwrap_or_default();
            errors.invalid(path.clone(), value, "minAvailable and maxUnavailable cannot be both set");
        }
        for (name, bound) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
            if let Some(bound) = bound {
                validate_int_or_percent(bound, &path.child(name), errors);
                validate_percent_at_most_100(bound, &path.child(name), errors);
            }
        }
        validate_label_selector(spec.selector.as_ref(), &path.child("selector"), errors);
        if let Some(policy) = spec.unhealthy_pod_eviction_policy.as_deref()
            && !matches!(policy, "AlwaysAllow" | "IfHealthyBudget")
        {
            let supported = ["AlwaysAllow", "IfHealthyBudget"];
            errors.not_supported(path.child("unhealthyPodEvictionPolicy"), policy, &supported);
        }
    }

    fn validate_update(
        write: &Write<'_>,
        object: &PodDisruptionBudget,
        _old: &PodDisruptionBudget,
        errors: &mut Errors,
    ) {
        if write.sub == Subresource::Status {
            validate_status(object, errors);
        }
    }
}

fn validate_status(object: &PodDisruptionBudget, errors: &mut Errors) {
    let Some(status) = &object.status else { return };
    let path = Path::root("status");
    let counts = [
        ("disruptionsAllowed", status.disruptions_allowed),
        ("currentHealthy", status.current_healthy),
        ("desiredHealthy", status.desired_healthy),
        ("expectedPods", status.expected_pods),
    ];
    for (name, count) in counts {
        validate_count(count, path.child(name), errors);
    }
}

//! PriorityClass: user classes stay below the system's; value and preemption never change.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::json;

use crate::defaults::fill;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape, Write};
use crate::typed::Rules;

/// The highest priority a user may define.
pub const USER_PRIORITY_MAX: i32 = 1_000_000_000;

const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub struct PriorityClassRules;

impl Rules for PriorityClassRules {
    type Object = PriorityClass;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::One);

    fn default(object: &mut PriorityClass) {
        fill(&mut object.preemption_policy, "PreemptLowerPriority".to_owned());
    }

    fn validate_create(object: &PriorityClass, errors: &mut Errors) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let value = object.value.unwrap_or(0);
        if name.starts_with("system-") {
            if !SYSTEM_CLASSES.contains(&(name, value)) {
                let detail = "priority class names with 'system-' prefix are reserved for system use only. error: this is not a known system priority class";
                errors.forbidden(Path::root("metadata").child("name"), detail);
            }
        } else if value > USER_PRIORITY_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
            errors.forbidden(Path::root("value"), detail);
        }
        let policy = object.preemption_policy.as_deref().unwrap_or_default();
        if !matches!(policy, "PreemptLowerPriority" | "Never") {
            errors.not_supported(Path::root("preemptionPolicy"), policy, &["Never", "PreemptLowerPriority"]);
        }
    }

    fn validate_update(_write: &Write<'_>, object: &PriorityClass, old: &PriorityClass, errors: &mut Errors) {
        if object.value != old.value {
            errors.invalid(Path::root("value"), json!(object.value), "field is immutable");
        }
        if object.preemption_policy != old.preemption_policy {
            errors.invalid(Path::root("preemptionPolicy"), json!(object.preemption_policy), "field is immutable");
        }
    }
}

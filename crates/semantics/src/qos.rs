//! The quality-of-service class of a pod: its resources -> `Guaranteed`, `Burstable` or `BestEffort`.
//!
//! Only cpu and memory count. Pod-level resources, if set, decide alone; else all containers must agree.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

use crate::amount::nanos_or_zero;
use crate::pod::all_containers;
use crate::resources::is_pod_level_resource;

/// How a pod is treated when its node runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QosClass {
    /// No requests and no limits for cpu and memory: goes first.
    BestEffort,
    /// Neither of the others.
    Burstable,
    /// Requests equal limits for both cpu and memory in every container: goes last.
    Guaranteed,
}

impl QosClass {
    /// The text in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

/// The class of a pod with this spec.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    if let Some(resources) = spec.resources.as_ref().filter(|r| sets_pod_level(r)) {
        return class_of(resources);
    }
    let empty = ResourceRequirements::default();
    unanimous(all_containers(spec).map(|c| class_of(c.resources.as_ref().unwrap_or(&empty))))
}

/// True if something is requested or limited for the whole pod.
pub(crate) fn sets_pod_level(resources: &ResourceRequirements) -> bool {
    resources.requests.iter().chain(&resources.limits).flatten().any(|(name, _)| is_pod_level_resource(name))
}

fn class_of(resources: &ResourceRequirements) -> QosClass {
    unanimous(["cpu", "memory"].into_iter().map(|name| {
        let amount = |list: &Option<crate::resources::ResourceList>| {
            list.as_ref().and_then(|l| l.get(name)).map_or(0, nanos_or_zero)
        };
        let (request, limit) = (amount(&resources.requests), amount(&resources.limits));
        match (request == limit, request == 0) {
            (false, _) => QosClass::Burstable,
            (true, true) => QosClass::BestEffort,
            (true, false) => QosClass::Guaranteed,
        }
    }))
}

/// The class all agree on; those that differ make `Burstable`, none makes `BestEffort`.
fn unanimous(mut classes: impl Iterator<Item = QosClass>) -> QosClass {
    let Some(first) = classes.next() else { return QosClass::BestEffort };
    if classes.all(|class| class == first) { first } else { QosClass::Burstable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn check(containers: Value, expect: QosClass) {
        let spec: PodSpec = from_value(json!({ "containers": containers.clone() })).unwrap();
        assert_eq!(qos_class(&spec), expect, "{containers}");
    }

    #[test]
    fn classes() {
        let full = json!({"name": "a", "resources": {
            "requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}}});
        let half = json!({"name": "b", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}});
        let none = json!({"name": "c"});
        check(json!([]), QosClass::BestEffort);
        check(json!([none]), QosClass::BestEffort);
        check(json!([full]), QosClass::Guaranteed);
        check(json!([half]), QosClass::Burstable);
        check(json!([full, none]), QosClass::Burstable);
        check(json!([{"name": "d", "resources": {"limits": {"ephemeral-storage": "1Gi"}}}]), QosClass::BestEffort);
    }
}

//! How errors show the update strategies of workloads: as upstream's internal structs, in their order.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::numbers::int_or_string_json;
use crate::field::Shown;

/// A strategy of this type; its rolling update as [`surging`] or [`ordered`] has it.
pub fn strategy_fields(type_: &str, rolling: Option<Shown>) -> [(&'static str, String); 2] {
    let rolling = rolling.map_or_else(|| "null".to_owned(), |rolling| rolling.to_string());
    [("Type", serde_json::Value::from(type_).to_string()), ("RollingUpdate", rolling)]
}

/// The rolling update of a Deployment or a DaemonSet: what is left out is 0.
pub fn surging(max_unavailable: &Option<IntOrString>, max_surge: &Option<IntOrString>) -> Shown {
    let shown = |count: &Option<IntOrString>| int_or_string_json(count.as_ref().unwrap_or(&IntOrString::Int(0)));
    Shown::of_struct(&[("MaxUnavailable", shown(max_unavailable)), ("MaxSurge", shown(max_surge))])
}

/// The fields of a StatefulSet's rolling update.
pub fn ordered(
    partition: Option<i32>,
    max_unavailable: &Option<IntOrString>,
) -> [(&'static str, serde_json::Value); 2] {
    let unavailable = max_unavailable.as_ref().map(int_or_string_json).unwrap_or_default();
    [("Partition", partition.unwrap_or(0).into()), ("MaxUnavailable", unavailable)]
}

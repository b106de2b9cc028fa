//! Common strategy for all kinds until the kinds' own are there.
use semantics::FieldError;
use semantics::strategy::{CommonStrategy, Generation, Shape, Strategy};
use serde_json::{Value, json};

static PLAIN: CommonStrategy = CommonStrategy { shape: Shape::new(semantics::names::subdomain_name) };
static BOTH: CommonStrategy =
    CommonStrategy { shape: Shape::new(semantics::names::subdomain_name).generation(Generation::Spec).with_status() };

pub fn strategy_of(_group: &str, _version: &str, kind: &str) -> &'static dyn Strategy {
    match kind {
        "ConfigMap" | "Secret" | "Event" | "Lease" | "EndpointSlice" | "Endpoints" | "ServiceAccount" => &PLAIN,
        _ => &BOTH,
    }
}
pub fn validate_binding(_: &Value) -> Vec<FieldError> {
    Vec::new()
}
pub fn bind(pod: &mut Value, binding: &Value, _now: jiff::Timestamp) -> Result<(), String> {
    pod["spec"]["nodeName"] = json!(binding["target"]["name"]);
    Ok(())
}

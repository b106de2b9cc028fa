//! Selectors that a client left out of a workload: upstream's structs hold a pointer there, those of k8s-openapi a plain struct, which
//! reads `{}` and nothing alike.
//!
//! Input: an object whose `spec.selector` may be absent or without parts. Output: the same as the struct tells the two apart, and back.
//! Within the struct, a selector without parts has an empty map of labels, and an absent one has none.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

/// Whether the client left the selector out.
pub fn is_absent(selector: &LabelSelector) -> bool {
    *selector == LabelSelector::default()
}

/// `object` as the struct can read it.
pub fn marked(object: Cow<'_, Value>) -> Cow<'_, Value> {
    if !object["spec"]["selector"].is_object() || parts(&object["spec"]["selector"]) > 0 {
        return object;
    }
    let mut object = object.into_owned();
    object["spec"]["selector"] = json!({"matchLabels": {}});
    Cow::Owned(object)
}

/// Undoes [`marked`] in what a struct was written as.
pub fn clear(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let Some(selector) = spec.get_mut("selector") else { return };
    if selector.get("matchLabels").is_none() && parts(selector) == 0 {
        spec.remove("selector");
    } else if parts(selector) == 0 {
        *selector = json!({});
    }
}

fn parts(selector: &Value) -> usize {
    let labels = selector["matchLabels"].as_object().map_or(0, serde_json::Map::len);
    labels + selector["matchExpressions"].as_array().map_or(0, Vec::len)
}

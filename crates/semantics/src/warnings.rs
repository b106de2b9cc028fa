//! Warnings: what a write may do and its author most likely did not mean. Objects -> lines for the client.
//!
//! Upstream's texts. They never refuse anything; kinds ask for them in `Rules::warnings`, after validation has passed.

pub mod address;
pub mod claim;
pub mod node_labels;
pub mod persistent_volume;
pub mod pod;
pub mod service;

mod paths;
mod ports;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::amount::nanos_or_zero;
use crate::field::{Path, quote};
use crate::names::dns1123_label;
use crate::warnings::pod::template_warnings;

const NANOS_PER_MILLI: i128 = 1_000_000;

/// The name of a workload becomes part of its pods' hostnames, so it had better be a DNS label. `use_` says what it is used in.
pub(crate) fn name_as_hostname(name: &str, use_: &str) -> Option<String> {
    let problems = dns1123_label(name);
    (!problems.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {use_}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        )
    })
}

/// The warnings about a workload: its name, if it is new and names its pods, and its template, if the spec is new or changed.
pub(crate) fn workload_warnings(new_name: Option<&str>, template: Option<&PodTemplateSpec>) -> Vec<String> {
    let name = new_name.and_then(|name| name_as_hostname(name, "Pod names and hostnames"));
    let path = Path::root("spec").child("template");
    name.into_iter().chain(template.map(|template| template_warnings(template, &path)).unwrap_or_default()).collect()
}

/// Bytes come whole: a fraction is mostly a mistaken `m`.
pub(crate) fn fractional_bytes(value: Option<&Quantity>, path: &Path) -> Option<String> {
    let value = value?;
    let millis = -(-nanos_or_zero(value)).div_euclid(NANOS_PER_MILLI);
    (millis % 1000 != 0)
        .then(|| format!("{path}: fractional byte value {} is invalid, must be an integer", quote(&value.0)))
}

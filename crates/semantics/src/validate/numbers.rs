//! Counts and shares: not negative, percentages, bounds.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::field::{Errors, Path};
use crate::names::percent;

pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";

pub fn validate_not_negative(value: impl Into<i64>, path: Path, errors: &mut Errors) {
    let value = value.into();
    if value < 0 {
        errors.invalid(path, value, NEGATIVE);
    }
}

/// An optional count.
pub fn validate_count(value: Option<i32>, path: Path, errors: &mut Errors) {
    if let Some(value) = value {
        validate_not_negative(value, path, errors);
    }
}

/// A count or a percentage, neither negative.
pub fn validate_int_or_percent(value: &IntOrString, path: &Path, errors: &mut Errors) {
    match value {
        IntOrString::Int(number) => validate_not_negative(*number, path.clone(), errors),
        IntOrString::String(text) => errors.invalid_each(path, text, percent(text)),
    }
}

pub fn validate_percent_at_most_100(value: &IntOrString, path: &Path, errors: &mut Errors) {
    if let IntOrString::String(text) = value
        && text.strip_suffix('%').and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n > 100)
    {
        errors.invalid(path.clone(), text.as_str(), "must not be greater than 100%");
    }
}

/// The number of a count or percentage, 0 for what is neither.
pub fn int_or_percent_value(value: &IntOrString) -> i64 {
    match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => text.strip_suffix('%').and_then(|n| n.parse().ok()).unwrap_or(0),
    }
}

pub fn int_or_string_json(value: &IntOrString) -> Value {
    match value {
        IntOrString::Int(number) => json!(number),
        IntOrString::String(text) => json!(text),
    }
}

/// Reports a change of a field that may not change.
pub fn validate_immutable<T: serde::Serialize + PartialEq>(new: &T, old: &T, path: Path, errors: &mut Errors) {
    if new == old {
        return;
    }
    let value = serde_json::to_value(new).unwrap_or_default();
    let before = serde_json::to_value(old).unwrap_or_default();
    if !crate::semantic_eq::semantic_eq(&value, &before) {
        errors.invalid(path, value, "field is immutable");
    }
}

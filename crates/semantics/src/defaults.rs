//! Defaults that several kinds share: pod specs, claims and the small words for filling a field.
//!
//! Input: a struct as the client sent it. Output: the same with absent parts filled as the v1 API documents. All of it is
//! idempotent. "Absent" follows the API: for a plain string or number the zero value is absent, for an optional one
//! (a pointer in the API's own types) only a missing one is.

pub mod claim;
pub(crate) mod disabled;
pub mod pod_spec;
pub mod volume;

/// Fills an optional field that is missing; an explicit zero stays.
pub(crate) fn fill<T>(slot: &mut Option<T>, value: T) {
    if slot.is_none() {
        *slot = Some(value);
    }
}

/// Fills a text that is missing or empty.
pub(crate) fn fill_text(slot: &mut Option<String>, value: &str) {
    if slot.as_deref().is_none_or(str::is_empty) {
        *slot = Some(value.to_owned());
    }
}

/// Fills a number that is missing or zero.
pub(crate) fn fill_number(slot: &mut Option<i32>, value: i32) {
    if matches!(slot, None | Some(0)) {
        *slot = Some(value);
    }
}

/// The text, or `""` if it is missing.
pub(crate) fn text(slot: &Option<String>) -> &str {
    slot.as_deref().unwrap_or_default()
}

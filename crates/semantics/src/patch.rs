//! The three patches that change an object without tracking fields: JSON patch, merge patch, strategic merge patch.
//!
//! Input: the current object and a parsed patch document. Output: the patched object; the input is never changed in
//! place, so a failed patch leaves nothing half done. Decoding, defaulting and validation of the result come after.
//! Server-side apply is in `apply`.

mod json;
pub mod strategic;

use serde_json::Value;

pub use json::json;
pub use strategic::strategic;

/// Why a patch could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The document is no patch of its kind: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// It is one, but asks for what no server can know how to do: 500, as ever.
    #[error("{0}")]
    Failed(String),
    /// It is one, but does not fit this object (a failed `test`, a missing path): 422 Invalid.
    #[error("{0}")]
    Unfit(String),
    /// More operations than allowed: 413 RequestEntityTooLarge.
    #[error("The allowed maximum operations in a JSON patch is {max}, got {0}", max = json::OPERATIONS_MAX)]
    TooLarge(usize),
}

/// RFC 7386: objects merge, `null` removes, everything else replaces.
pub fn merge(current: &Value, patch: &Value) -> Value {
    let mut merged = current.clone();
    json_patch::merge(&mut merged, patch);
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_removes_with_null() {
        assert_eq!(
            merge(&json!({"a": {"b": 1, "c": 2}}), &json!({"a": {"b": null, "d": 3}})),
            json!({"a": {"c": 2, "d": 3}})
        );
    }
}

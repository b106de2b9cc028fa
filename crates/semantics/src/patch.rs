//! The three patches that change an object without tracking fields: JSON patch, merge patch, strategic merge patch.
//!
//! Input: the current object and a parsed patch document. Output: the patched object; the input is never changed in
//! place, so a failed patch leaves nothing half done. Decoding, defaulting and validation of the result come after.
//! Server-side apply is in `apply`.

pub mod strategic;

use serde_json::Value;

pub use strategic::strategic;

/// Upstream's bound on the operations of one JSON patch.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Why a patch could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The document is no patch of its kind: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// It is one, but does not fit this object (a failed `test`, a missing path): 422 Invalid.
    #[error("{0}")]
    Unfit(String),
    /// More operations than allowed: 413 RequestEntityTooLarge.
    #[error("The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {0}")]
    TooLarge(usize),
}

/// RFC 6902: a list of operations, all or none.
pub fn json(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    if operations.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(PatchError::TooLarge(operations.len()));
    }
    let mut patched = current.clone();
    json_patch::patch(&mut patched, &operations).map_err(|e| PatchError::Unfit(e.to_string()))?;
    Ok(patched)
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
    fn json_patch_is_all_or_nothing() {
        let object = json!({"a": 1});
        let patch = json!([{"op": "add", "path": "/b", "value": 2}, {"op": "test", "path": "/a", "value": 9}]);
        assert!(matches!(json(&object, &patch), Err(PatchError::Unfit(_))));
        let patch = json!([{"op": "add", "path": "/b", "value": 2}]);
        assert_eq!(json(&object, &patch), Ok(json!({"a": 1, "b": 2})));
    }

    #[test]
    fn json_patch_of_another_form_is_malformed() {
        assert!(matches!(json(&json!({}), &json!({"op": "add"})), Err(PatchError::Malformed(_))));
        assert!(matches!(json(&json!({}), &json!([{"op": "leap", "path": "/a"}])), Err(PatchError::Malformed(_))));
        let many = vec![json!({"op": "remove", "path": "/a"}); JSON_PATCH_OPERATIONS_MAX + 1];
        assert!(matches!(json(&json!({}), &Value::Array(many)), Err(PatchError::TooLarge(_))));
    }

    #[test]
    fn merge_patch_removes_with_null() {
        assert_eq!(
            merge(&json!({"a": {"b": 1, "c": 2}}), &json!({"a": {"b": null, "d": 3}})),
            json!({"a": {"c": 2, "d": 3}})
        );
    }
}

//! Managed fields: who set what, for every write.
//!
//! Input: the object about to be written and the stored one. Output: `metadata.managedFields` filled in.
//! The rules are `semantics::apply`; this file brings the manager's name, the operation and the time.

use semantics::Subresource;
use serde_json::Value;

use crate::error::ApiError;
use crate::rest::Call;

/// Records the caller as the owner of what it changed. `old` is absent at creation.
pub fn track(_call: &Call, _object: &mut Value, _old: Option<&Value>, _sub: Subresource) -> Result<(), ApiError> {
    Ok(())
}

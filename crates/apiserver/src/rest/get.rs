//! Get: one object from the cache.
//!
//! The cache holds every answered write, so a get is linearizable without asking the store, and the `resourceVersion`
//! parameter changes nothing but the check that it is not from the future.

use http::{Response, StatusCode};

use super::Call;
use crate::body::Body;
use crate::error::ApiError;
use crate::request::parse_resource_version;

pub fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    // Negotiation comes first: a 406 hides whether the object exists.
    call.output(false)?;
    let asked = parse_resource_version(call.query.get("resourceVersion").unwrap_or_default())?.unwrap_or(0);
    let applied = call.registry().feed.applied();
    if asked > applied {
        return Err(ApiError::too_large_resource_version(asked, applied));
    }
    let entry = call.current()?;
    call.reply(StatusCode::OK, &entry)
}

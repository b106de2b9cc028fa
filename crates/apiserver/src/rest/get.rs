//! Get: one object from the cache.
//!
//! Without a `resourceVersion` the caches have caught up with all servers before (see `rest`); with one, this waits until they
//! have come that far.

use http::{Response, StatusCode};

use super::Call;
use super::list::fresh_enough;
use crate::body::Body;
use crate::error::ApiError;
use crate::request::parse_resource_version;

pub async fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    // Negotiation comes first: a 406 hides whether the object exists.
    call.output(false)?;
    let asked = parse_resource_version(call.query.get("resourceVersion").unwrap_or_default())
        .map_err(|detail| ApiError::new(500, "", detail))?
        .unwrap_or(0);
    if asked > 0 {
        fresh_enough(call, asked).await?;
    }
    let entry = call.current()?;
    call.reply(StatusCode::OK, &entry)
}

//! Deletecollection: every object of a collection that the selectors choose, each deleted as by itself.
//!
//! Invariant: an object that somebody else deletes meanwhile is no error; at most [`PARALLEL`] deletes are under way.

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use http::{Response, StatusCode};

use super::delete::{Deleted, delete_entry, parse_options};
use super::list::{self, Listed};
use super::{Call, body};
use crate::body::Body;
use crate::error::ApiError;
use crate::request::parse_list_options;

const PARALLEL: usize = 16;

pub async fn delete_collection(call: &Call, request_body: Body) -> Result<Response<Body>, ApiError> {
    let representation = call.output(false)?;
    let bytes = body::read(request_body, call.core.config.body_bytes_max).await?;
    let asked = parse_options(call, &bytes)?;
    let options = parse_list_options(&call.query, false)?;
    let Listed { entries, meta } = list::select_entries(call, &options).await?;
    let results: Vec<Result<Deleted, ApiError>> = stream::iter(entries)
        .map(|entry| -> BoxFuture<'_, Result<Deleted, ApiError>> { Box::pin(delete_entry(call, entry, &asked)) })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    let mut deleted = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok(Deleted::Gone(entry) | Deleted::Waits(entry)) => deleted.push(entry),
            Err(error) if error.reason == "NotFound" => {}
            Err(error) => return Err(error),
        }
    }
    deleted.sort_by(|a, b| a.key.cmp(&b.key));
    list::reply(call, StatusCode::OK, representation, deleted, &meta)
}

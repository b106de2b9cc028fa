//! Subresources: halves of an object, virtual objects beside it, and streams to where it runs.
//!
//! The kind table says which ones a kind has and with which verbs; what is missing there is a 404 or 405 here.

pub mod binding;
pub mod eviction;
pub mod scale;
pub mod token;

use http::{Method, Response};
use semantics::Subresource;

use super::{Call, get, patch, update};
use crate::body::Body;
use crate::error::ApiError;
use crate::streams;

/// The methods that a proxy passes on. What is asked of the authorizer is the verb of each; OPTIONS has none.
const PROXIED: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

pub async fn handle(call: Call, body: Body) -> Result<Response<Body>, ApiError> {
    let name = call.info.subresource.clone();
    let verb = call.info.verb.clone();
    let verbs: &[&str] = match call.resource.kind.and_then(|kind| kind.subresource(&name)) {
        Some(subresource) => subresource.verbs,
        None => return Err(ApiError::no_such_resource()),
    };
    let is_proxied = name == "proxy" && PROXIED.contains(&call.method);
    if !is_proxied && !verbs.contains(&verb.as_str()) {
        return Err(ApiError::method_not_allowed());
    }
    let half = match name.as_str() {
        "status" => Some(Subresource::Status),
        "ephemeralcontainers" => Some(Subresource::EphemeralContainers),
        "resize" => Some(Subresource::Resize),
        "finalize" => Some(Subresource::Finalize),
        "approval" => Some(Subresource::Approval),
        _ => None,
    };
    match (half, verb.as_str(), name.as_str()) {
        (Some(_), "get", _) => get::get(&call).await,
        (Some(half), "update", _) => update::update(&call, body, half).await,
        (Some(half), "patch", _) => patch::patch(&call, body, half).await,
        (None, _, "scale") => scale::handle(&call, body).await,
        (None, "create", "binding") => binding::create(&call, body).await,
        (None, "create", "eviction") => eviction::create(&call, body).await,
        (None, "create", "token") => token::create(&call, body).await,
        (None, _, "log" | "exec" | "attach" | "portforward" | "proxy") => streams::handle(call, body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

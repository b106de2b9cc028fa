//! Kinds that are computed, not stored: reviews, the legacy `bindings`, component statuses.
//!
//! Input: a POST of the kind. Output: what the configured [`Review`] makes of it. Nothing is stored.

use std::sync::Arc;

use api::kinds;
use api::schema::MessageRef;
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::chain::{Attributes, Identity, Review};
use crate::encode::value_bytes;
use crate::error::ApiError;
use crate::managed;
use crate::negotiate::{Offers, negotiate_input, negotiate_output};
use crate::request::{Query, RequestInfo};
use crate::rest::body::{Expected, decode, read};
use crate::rest::{Warnings, respond, sub};
use crate::server::Core;
use crate::write_options::{OptionsKind, WriteOptions};

/// An authorized request for a resource that is not stored.
pub struct Asked {
    pub info: RequestInfo,
    pub query: Query,
    pub identity: Identity,
    pub attributes: Attributes,
}

pub async fn serve(
    core: &Arc<Core>,
    review: Option<&Arc<dyn Review>>,
    parts: &Parts,
    body: Body,
    asked: Asked,
    warnings: &Warnings,
) -> Result<Response<Body>, ApiError> {
    let Asked { info, query, identity, attributes } = asked;
    let kind = kinds::by_resource(&info.group, &info.version, &info.resource).ok_or_else(ApiError::no_such_resource)?;
    if kind.plural == "componentstatuses" && kind.group.is_empty() && matches!(info.verb.as_str(), "get" | "list") {
        return component_statuses(parts, &query, &info);
    }
    if info.verb != "create" || !kind.has_verb("create") || !info.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    if kind.plural == "bindings" && kind.group.is_empty() {
        return sub::binding::create_in_namespace(core, parts, body, info, query, identity).await;
    }
    let wants = negotiate_output(&parts.headers, &query, Offers::PLAIN)?;
    let media = negotiate_input(&parts.headers)?;
    let bytes = read(body, core.config.body_bytes_max).await?;
    let expected = Expected { api_version: kind.api_version, kind: kind.kind, message: Some(kind.message) };
    let mut object =
        decode(&bytes, media, expected, WriteOptions::parse(&query, OptionsKind::Create)?.validation, warnings)?;
    let review = review.ok_or_else(ApiError::no_such_resource)?;
    let manager = managed::manager_of(&parts.headers, &query);
    managed::track_review(&mut object, kind, &manager, core.registry.now());
    let answer = review.review(&info.resource, object, &attributes).await?;
    let answer = canonical(&answer, kind.message)?;
    Ok(respond(StatusCode::CREATED, wants.media, value_bytes(&answer, wants.media, wants.pretty)?))
}

/// The answer as any object is served: without what is empty.
fn canonical(answer: &Value, message: MessageRef) -> Result<Value, ApiError> {
    let bytes = api::codec::encode_object(answer, message).map_err(ApiError::internal)?;
    api::codec::decode_object(&bytes, message).map_err(ApiError::internal)
}

/// The three components of old; all live in this process, so they are as healthy as this answer.
fn component_statuses(parts: &Parts, query: &Query, info: &RequestInfo) -> Result<Response<Body>, ApiError> {
    let wants = negotiate_output(&parts.headers, query, Offers::PLAIN)?;
    let one = |name: &str| {
        json!({
            "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
            "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]
        })
    };
    let all = ["controller-manager", "etcd-0", "scheduler"];
    let value: Value = match info.name.as_str() {
        "" => json!({
            "kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {},
            "items": all.map(one)
        }),
        name if all.contains(&name) => one(name),
        name => return Err(ApiError::not_found("", "componentstatuses", name)),
    };
    Ok(respond(StatusCode::OK, wants.media, value_bytes(&value, wants.media, wants.pretty)?))
}

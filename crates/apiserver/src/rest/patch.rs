//! Patch: JSON, merge, strategic merge and server-side apply, through the loop of `update`.
//!
//! Invariants: what a patch makes is decoded as strictly as a body; a patch that names no resource version is repeated on the
//! newest state; the patch document is parsed once.

use api::schema::MessageRef;
use http::{Response, StatusCode};
use semantics::Subresource;
use semantics::apply::Configuration;
use semantics::patch::PatchError;
use serde_json::{Map, Value};

use super::body::{self, Expected};
use super::create::default;
use super::update::{Change, check_name, fill_name, modify};
use super::{Call, Warnings};
use crate::body::Body;
use crate::error::ApiError;
use crate::managed;
use crate::negotiate::{PatchType, negotiate_patch};
use crate::write_options::{FieldValidation, WriteOptions};

/// A parsed patch.
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

pub async fn patch(call: &Call, request_body: Body, sub: Subresource) -> Result<Response<Body>, ApiError> {
    let kind = negotiate_patch(&call.headers, call.resource.message.is_some())?;
    call.output(false)?;
    let bytes = body::read(request_body, call.core.config.body_bytes_max).await?;
    let WriteOptions { dry_run, validation } = WriteOptions::parse(&call.query, kind.options_kind())?;
    let change = Change { sub, dry_run, options_kind: "PatchOptions", creates: false, tracked: false };
    if kind == PatchType::Apply {
        return apply(call, &bytes, change, validation).await;
    }
    let patch = parse(kind, &bytes)?;
    let make = |current: Option<&Value>| -> Result<Value, ApiError> {
        let current = current.ok_or_else(|| call.not_found(&call.info.name))?;
        let mut object = patched(&patch, current, Expected::of(call), validation, &call.warnings)?;
        check_name(call, &mut object)?;
        default(call, &mut object)?;
        Ok(object)
    };
    let (entry, _) = modify(call, change, &make).await?;
    call.reply(StatusCode::OK, &entry)
}

pub fn parse(kind: PatchType, bytes: &[u8]) -> Result<Patch, ApiError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| ApiError::bad_request("invalid JSON patch"))?;
    match (kind, &value) {
        (PatchType::Json, _) => Ok(Patch::Json(value)),
        (PatchType::Merge, Value::Object(_)) => Ok(Patch::Merge(value)),
        (PatchType::Merge, Value::Null) => Err(ApiError::bad_request("Invalid JSON Patch")),
        (PatchType::Merge, _) => Err(ApiError::bad_request(format!("error decoding patch: {}", no_map(&value)))),
        (_, Value::Object(_)) => Ok(Patch::Strategic(value)),
        (_, Value::Null) => Ok(Patch::Strategic(Value::Object(Map::new()))),
        _ => Err(ApiError::bad_request(no_map(&value))),
    }
}

/// What Go's decoder says of a patch that is no object.
fn no_map(value: &Value) -> String {
    let found = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    };
    format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
}

/// The object that a patch makes of the current one, decoded.
pub fn patched(
    patch: &Patch,
    current: &Value,
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    let patched = apply_patch(expected.message, patch, current)?;
    body::decode_patched(&patched, expected, validation, warnings).map_err(|failure| {
        let shown = match patch {
            Patch::Strategic(patch) => semantics::printed::printed(patch),
            _ => patched.to_string(),
        };
        failure.of_patch(&shown, expected)
    })
}

/// The patched object, not yet decoded.
fn apply_patch(message: Option<MessageRef>, patch: &Patch, current: &Value) -> Result<Value, ApiError> {
    match patch {
        Patch::Json(patch) => semantics::patch::json(current, patch),
        Patch::Merge(patch) => Ok(semantics::patch::merge(current, patch)),
        Patch::Strategic(patch) => semantics::patch::strategic(current, patch, message),
    }
    .map_err(|error| match error {
        PatchError::Malformed(text) => ApiError::bad_request(text),
        PatchError::Failed(text) => ApiError::new(500, "", text),
        PatchError::Unfit(text) => {
            // Upstream keeps the reason to itself, too; clients match this text.
            tracing::debug!(reason = text, "a patch does not fit its object");
            ApiError::unprocessable()
        }
        PatchError::TooLarge(_) => {
            ApiError::new(413, "RequestEntityTooLarge", format!("Request entity too large: {error}"))
        }
    })
}

/// Server-side apply: creates what is missing, and takes or refuses fields that others own.
async fn apply(
    call: &Call,
    bytes: &[u8],
    change: Change,
    validation: FieldValidation,
) -> Result<Response<Body>, ApiError> {
    let sent = applied(call, bytes, Expected::of(call))?;
    let decoded = body::decode_patched(&sent, Expected::of(call), validation, &call.warnings)
        .map_err(|failure| failure.of_object(bytes, Expected::of(call)))?;
    let change = Change { creates: change.sub == Subresource::Main, tracked: true, ..change };
    let force = call.query.flag("force");
    let make = |current: Option<&Value>| -> Result<Value, ApiError> {
        let uid = decoded["metadata"]["uid"].as_str().unwrap_or_default();
        if current.is_none() && !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(ApiError::conflict(&call.resource.group, &call.resource.plural, &call.info.name, &why));
        }
        let config = Configuration { sent: &sent, decoded: &decoded };
        let mut object = managed::apply(call, current, config, change.sub, force)?;
        default(call, &mut object)?;
        Ok(object)
    };
    let (entry, created) = modify(call, change, &make).await?;
    call.reply(if created { StatusCode::CREATED } else { StatusCode::OK }, &entry)
}

/// The configuration as it was sent, if it is of the kind that is expected and conforms to its schema.
pub fn applied(call: &Call, bytes: &[u8], expected: Expected<'_>) -> Result<Value, ApiError> {
    let mut sent =
        body::yaml(bytes).map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if sent.is_null() {
        sent = Value::Object(Map::new());
    }
    if !sent.is_object() {
        let detail = format!("error unmarshaling JSON: while decoding JSON: {}", no_map(&sent));
        return Err(ApiError::bad_request(format!("error decoding patch: {detail}")));
    }
    if sent["apiVersion"] != expected.api_version || sent["kind"] != expected.kind {
        return Err(ApiError::bad_request(format!("invalid object type: {}", semantics::apply::type_of(&sent))));
    }
    semantics::apply::check(&sent, expected.message).map_err(managed::apply_error)?;
    fill_name(call, &mut sent)?;
    Ok(sent)
}

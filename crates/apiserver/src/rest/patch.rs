//! Patch: JSON, merge, strategic merge and server-side apply, through the loop of `update`.
//!
//! Invariants: what a patch makes is decoded as strictly as a body; a patch that names no resource version is repeated on the
//! newest state; the patch document is parsed once.

use api::schema::MessageRef;
use http::{Response, StatusCode};
use semantics::Subresource;
use semantics::patch::PatchError;
use serde_json::Value;

use super::Call;
use super::body::{self, Expected};
use super::create::default;
use super::update::{Change, check_name, modify};
use crate::body::Body;
use crate::error::ApiError;
use crate::managed;
use crate::negotiate::{PatchType, negotiate_patch};
use crate::request::{FieldValidation, parse_field_validation};

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
    let validation = parse_field_validation(&call.query)?;
    let dry_run = call.query.dry_run()?;
    let change = Change { sub, dry_run, options_kind: "PatchOptions", creates: false, tracked: false };
    if kind == PatchType::Apply {
        return apply(call, &bytes, change, validation).await;
    }
    if call.query.get("force").is_some() {
        return Err(force_is_for_apply());
    }
    let patch = parse(kind, &bytes)?;
    let make = |current: Option<&Value>| -> Result<Value, ApiError> {
        let current = current.ok_or_else(|| call.not_found(&call.info.name))?;
        let patched = apply_patch(call.resource.message, &patch, current)?;
        finish(call, &patched, validation)
    };
    let (entry, _) = modify(call, change, &make).await?;
    call.reply(StatusCode::OK, &entry)
}

fn force_is_for_apply() -> ApiError {
    let cause = serde_json::json!({
        "reason": "FieldValueForbidden",
        "message": "Forbidden: may not be specified for non-apply patch",
        "field": "force"
    });
    ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause])
}

pub fn parse(kind: PatchType, bytes: &[u8]) -> Result<Patch, ApiError> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    match kind {
        PatchType::Json => Ok(Patch::Json(value)),
        PatchType::Merge if value.is_object() => Ok(Patch::Merge(value)),
        PatchType::Strategic if value.is_object() => Ok(Patch::Strategic(value)),
        _ => Err(ApiError::bad_request(
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        )),
    }
}

/// The patched object as a decoded, defaulted one.
fn finish(call: &Call, patched: &Value, validation: FieldValidation) -> Result<Value, ApiError> {
    let mut object = body::decode_patched(patched, Expected::of(call), validation, &call.warnings)?;
    check_name(call, &mut object)?;
    default(call, &mut object)?;
    Ok(object)
}

/// The patched object, not yet decoded.
pub fn apply_patch(message: Option<MessageRef>, patch: &Patch, current: &Value) -> Result<Value, ApiError> {
    match patch {
        Patch::Json(patch) => semantics::patch::json(current, patch),
        Patch::Merge(patch) => Ok(semantics::patch::merge(current, patch)),
        Patch::Strategic(patch) => semantics::patch::strategic(current, patch, message),
    }
    .map_err(|error| match error {
        PatchError::Malformed(text) => ApiError::bad_request(text),
        PatchError::Unfit(text) => ApiError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {text}"),
        ),
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
    if call.query.get("fieldManager").unwrap_or_default().is_empty() {
        let cause = serde_json::json!({
            "reason": "FieldValueRequired",
            "message": "Required value: is required for apply patch",
            "field": "fieldManager"
        });
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
    }
    let json = body::yaml_to_json(bytes, Expected::of(call))?;
    let mut config = body::decode_json(&json, Expected::of(call), validation, &call.warnings)?;
    check_name(call, &mut config)?;
    let change = Change { creates: change.sub == Subresource::Main, tracked: true, ..change };
    let force = call.query.flag("force");
    let make = |current: Option<&Value>| -> Result<Value, ApiError> {
        let uid = config["metadata"]["uid"].as_str().unwrap_or_default();
        if current.is_none() && !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(ApiError::conflict(&call.resource.group, &call.resource.plural, &call.info.name, &why));
        }
        let mut object = managed::apply(call, current, &config, change.sub, force)?;
        default(call, &mut object)?;
        Ok(object)
    };
    let (entry, created) = modify(call, change, &make).await?;
    call.reply(if created { StatusCode::CREATED } else { StatusCode::OK }, &entry)
}

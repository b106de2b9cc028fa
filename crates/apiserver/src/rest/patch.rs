//! Patch: JSON, merge, strategic merge and server-side apply, through the loop of `update`.
//!
//! Invariants: what a patch makes is decoded as strictly as a body; a patch that names no resource version is repeated on the
//! newest state; the patch document is parsed once.

use api::schema::MessageRef;
use http::{Response, StatusCode};
use semantics::Subresource;
use serde_json::Value;

use super::Call;
use super::body::{self, Expected};
use super::create::default;
use super::update::{Change, check_name, modify};
use crate::body::Body;
use crate::error::ApiError;
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

pub fn apply_patch(_message: Option<MessageRef>, patch: &Patch, current: &Value) -> Result<Value, ApiError> {
    match patch {
        Patch::Json(_) | Patch::Strategic(_) => Err(ApiError::internal("not yet")),
        Patch::Merge(patch) => {
            let mut out = current.clone();
            merge(&mut out, patch);
            Ok(out)
        }
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(patch), true) = (patch, target.is_object()) else {
        *target = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().map(|map| map.remove(key));
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

async fn apply(
    _call: &Call,
    _bytes: &[u8],
    _change: Change,
    _validation: FieldValidation,
) -> Result<Response<Body>, ApiError> {
    Err(ApiError::internal("not yet"))
}

//! Request bodies: read within a bound, decoded strictly into values of the expected kind.
//!
//! Input: body bytes in JSON, YAML or protobuf. Output: a value with `apiVersion` and `kind`, or upstream's error.
//! Invariant: unknown and duplicate fields are errors, warnings or dropped, as `fieldValidation` says; never kept.
//! What a body claims to be is in `claim`, what its errors look like in `failure`.

mod claim;
mod failure;
mod yaml;

use api::codec::{self, envelope};
use api::schema::MessageRef;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;

use super::{Call, Warnings};
use crate::body::Body;
use crate::error::ApiError;
use crate::negotiate::{Media, negotiate_input};
use crate::write_options::{FieldValidation, OptionsKind, WriteOptions};

pub use self::yaml::yaml;
use claim::Claim;
pub use failure::Failure;

/// The whole body. Errors: 413 beyond `bytes_max`, 400 when the client breaks off.
pub async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("error reading the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > bytes_max {
            return Err(ApiError::too_large(bytes_max));
        }
        if all.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// What a body must be.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    /// `None`: a custom resource; nothing is known of its fields here.
    pub message: Option<MessageRef>,
}

impl<'a> Expected<'a> {
    pub fn of(call: &'a Call) -> Self {
        Self { api_version: &call.resource.api_version, kind: &call.resource.kind_name, message: call.resource.message }
    }
}

/// What a POST brings: the object of the expected kind, and whether it is a dry run.
pub async fn posted(call: &Call, request_body: Body, expected: Expected<'_>) -> Result<(Value, bool), ApiError> {
    let media = negotiate_input(&call.headers)?;
    let bytes = read(request_body, call.core.config.body_bytes_max).await?;
    let WriteOptions { dry_run, validation } = WriteOptions::parse(&call.query, OptionsKind::Create)?;
    Ok((decode(&bytes, media, expected, validation, &call.warnings)?, dry_run))
}

/// Decodes an object of the expected kind.
pub fn decode(
    bytes: &[u8],
    media: Media,
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    decode_or_fail(bytes, media, expected, validation, warnings).map_err(|failure| failure.of_object(bytes, expected))
}

/// Like [`decode`], for callers with errors of their own form.
pub fn decode_or_fail(
    bytes: &[u8],
    media: Media,
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, Failure> {
    match media {
        Media::Json => decode_json(bytes, expected, validation, warnings),
        Media::Yaml => decode_json(&yaml_to_json(bytes)?, expected, validation, warnings),
        Media::Proto => decode_proto(bytes, expected),
    }
}

/// JSON of an object whose type may be left out; it is filled in then.
pub fn decode_json(
    bytes: &[u8],
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, Failure> {
    codec::check_json(bytes).map_err(|error| Failure::no_type(&error))?;
    let claim = Claim::of_json(bytes)?;
    claim.check(expected)?;
    let mut value = match expected.message {
        _ if claim.is_null => Value::Object(serde_json::Map::new()),
        Some(message) => {
            let decoded =
                codec::decode_json_strict(bytes, message).map_err(|error| claim.unfit(expected, error.to_string()))?;
            report(decoded.problems, &claim, expected, validation, warnings)?;
            decoded.value
        }
        None => serde_json::from_slice(bytes).map_err(|error| Failure::no_type(&error.to_string()))?,
    };
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".to_owned(), Value::from(expected.api_version));
        map.insert("kind".to_owned(), Value::from(expected.kind));
    }
    Ok(value)
}

/// A value that a patch has made, as if it had come in as a body.
pub fn decode_patched(
    value: &Value,
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, Failure> {
    let bytes = serde_json::to_vec(value).map_err(|error| Failure::no_type(&error.to_string()))?;
    decode_json(&bytes, expected, validation, warnings)
}

fn report(
    problems: Vec<String>,
    claim: &Claim,
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), Failure> {
    match validation {
        _ if problems.is_empty() => Ok(()),
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            warnings.add(problems);
            Ok(())
        }
        FieldValidation::Strict => Err(claim.unfit(expected, codec::strict_decoding_message(&problems))),
    }
}

/// YAML as JSON bytes. JSON is YAML, too.
pub fn yaml_to_json(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let value = yaml(bytes).map_err(Failure::Unrecognized)?;
    serde_json::to_vec(&value).map_err(|error| Failure::Unrecognized(error.to_string()))
}

fn decode_proto(bytes: &[u8], expected: Expected<'_>) -> Result<Value, Failure> {
    let message = expected.message.ok_or(Failure::NoProtobuf)?;
    let unrecognized = |text: &str| Failure::Unrecognized(text.to_owned());
    if bytes.is_empty() {
        return Err(unrecognized("empty data"));
    }
    if !envelope::is_enveloped(bytes) {
        let prefix = "[107 56 115 0]";
        let text = format!("provided data does not appear to be a protobuf message, expected prefix {prefix}");
        return Err(Failure::Unrecognized(text));
    }
    if bytes.len() == envelope::MAGIC.len() {
        return Err(unrecognized("empty body"));
    }
    let unknown =
        envelope::unwrap(bytes).map_err(|error| unrecognized(error.to_string().trim_start_matches("proto: ")))?;
    let claim = Claim::new(unknown.api_version, unknown.kind);
    claim.check(expected)?;
    let type_meta = codec::TypeMeta { api_version: expected.api_version, kind: expected.kind };
    codec::decode_fragments(&[unknown.raw], message, Some(type_meta))
        .map_err(|error| claim.unfit(expected, error.to_string()))
}

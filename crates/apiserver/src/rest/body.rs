//! Request bodies: read within a bound, decoded strictly into values of the expected kind.
//!
//! Input: body bytes in JSON, YAML or protobuf. Output: a value with `apiVersion` and `kind`, or upstream's error.
//! Invariant: unknown and duplicate fields are errors, warnings or dropped, as `fieldValidation` says; never kept.

use api::codec::{self, envelope};
use api::kinds::split_api_version;
use api::schema::MessageRef;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;

use super::{Call, Warnings};
use crate::body::Body;
use crate::error::ApiError;
use crate::negotiate::Media;
use crate::request::FieldValidation;

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

    fn version(&self) -> &'a str {
        split_api_version(self.api_version).1
    }

    fn misfit(&self, detail: impl std::fmt::Display) -> ApiError {
        let kind = self.kind;
        ApiError::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {detail}", self.version()))
    }
}

/// Decodes an object of the expected kind.
pub fn decode(
    bytes: &[u8],
    media: Media,
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    let value = match media {
        Media::Json => decode_json(bytes, expected, validation, warnings)?,
        Media::Yaml => decode_json(&yaml_to_json(bytes, expected)?, expected, validation, warnings)?,
        Media::Proto => decode_proto(bytes, expected)?,
    };
    Ok(value)
}

#[derive(Default, Deserialize)]
struct TypeOnly {
    #[serde(default, rename = "apiVersion")]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

/// JSON of an object whose type may be left out; it is filled in then.
pub fn decode_json(
    bytes: &[u8],
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    let found: TypeOnly = serde_json::from_slice(bytes).map_err(|error| unrecognized(bytes, expected, &error))?;
    check_type(&found.api_version.unwrap_or_default(), &found.kind.unwrap_or_default(), expected)?;
    let mut value = match expected.message {
        Some(message) => {
            let decoded = codec::decode_json_strict(bytes, message).map_err(|error| expected.misfit(error))?;
            report(decoded.problems, expected, validation, warnings)?;
            decoded.value
        }
        None => serde_json::from_slice(bytes).map_err(|error| unrecognized(bytes, expected, &error))?,
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
) -> Result<Value, ApiError> {
    let bytes = serde_json::to_vec(value).map_err(ApiError::internal)?;
    decode_json(&bytes, expected, validation, warnings)
}

fn report(
    problems: Vec<String>,
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), ApiError> {
    match validation {
        _ if problems.is_empty() => Ok(()),
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            warnings.add(problems);
            Ok(())
        }
        FieldValidation::Strict => Err(expected.misfit(codec::strict_decoding_message(&problems))),
    }
}

fn check_type(api_version: &str, kind: &str, expected: Expected<'_>) -> Result<(), ApiError> {
    if !kind.is_empty() && kind != expected.kind {
        let version = split_api_version(if api_version.is_empty() { expected.api_version } else { api_version }).1;
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: converting ({version}.{kind}) to ({}.{}): unknown conversion",
            expected.kind,
            expected.version(),
            expected.kind
        )));
    }
    if !api_version.is_empty() && api_version != expected.api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    Ok(())
}

/// Bytes that are no object at all: upstream's text shows where they begin.
fn unrecognized(bytes: &[u8], expected: Expected<'_>, error: &serde_json::Error) -> ApiError {
    let shown: String = bytes.iter().take(24).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > 24 { " ..." } else { "" };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error} ({shown}{more})",
        expected.kind
    ))
}

/// YAML as JSON bytes. JSON is YAML, too.
pub fn yaml_to_json(bytes: &[u8], expected: Expected<'_>) -> Result<Vec<u8>, ApiError> {
    let bad = |detail: String| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): yaml: {detail}",
            expected.kind
        ))
    };
    let text = std::str::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
    let value: Value = serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()))?;
    serde_json::to_vec(&value).map_err(ApiError::internal)
}

fn decode_proto(bytes: &[u8], expected: Expected<'_>) -> Result<Value, ApiError> {
    let message = expected.message.ok_or_else(|| ApiError::unsupported_media_type(&Media::ALL[..2]))?;
    let unknown = envelope::unwrap(bytes).map_err(|error| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {error}",
            expected.kind
        ))
    })?;
    check_type(unknown.api_version, unknown.kind, expected)?;
    let type_meta = codec::TypeMeta { api_version: expected.api_version, kind: expected.kind };
    codec::decode_fragments(&[unknown.raw], message, Some(type_meta)).map_err(|error| expected.misfit(error))
}

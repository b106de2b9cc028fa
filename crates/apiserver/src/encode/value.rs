//! Free-standing values (Status, Scale, Table, reviews) as bodies. Value and media type -> bytes.

use api::codec;
use api::schema;
use bytes::Bytes;
use serde_json::Value;

use super::unreadable;
use crate::error::ApiError;
use crate::negotiate::Media;

/// The value carries its type; protobuf needs that type in the schema.
pub fn value_bytes(value: &Value, media: Media, pretty: bool) -> Result<Bytes, ApiError> {
    match media {
        Media::Json if pretty => {
            let mut out = serde_json::to_vec_pretty(value).map_err(unreadable)?;
            out.push(b'\n');
            Ok(out.into())
        }
        Media::Json => {
            let mut out = serde_json::to_vec(value).map_err(unreadable)?;
            out.push(b'\n');
            Ok(out.into())
        }
        Media::Yaml => serde_saphyr::to_string(value).map(Bytes::from).map_err(unreadable),
        Media::Proto => {
            let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
            let (api_version, kind) = (word("apiVersion"), word("kind"));
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let message = schema::by_kind(group, version, kind)
                .or_else(|| schema::message(&format!("meta/v1.{kind}")))
                .ok_or_else(|| unreadable(format!("no schema of {kind}")))?;
            codec::encode_object(value, message).map(Bytes::from).map_err(unreadable)
        }
    }
}

/// For errors about errors: an empty body is all that is left to send.
pub fn value_bytes_or_empty(value: &Value, media: Media) -> Bytes {
    value_bytes(value, media, false).unwrap_or_default()
}

//! JSON <-> protobuf over the schema table: the three forms of an object are JSON bytes, protobuf bytes and `Value`.
//!
//! ```text
//!     JSON bytes --decode_json--> Value --encode_proto--> protobuf (what the store holds, in an envelope)
//!     protobuf --decode_proto--> Value,   protobuf --transcode_json--> JSON bytes (streaming, no Value)
//! ```
//!
//! Invariants: any input gives a result or an error, never a panic; nesting is bounded; `transcode_json` and
//! `decode_proto` give the same document; JSON -> protobuf -> JSON is a fixed point; what is printed for absent and zero
//! fields is what Go's encoder prints. Sizes are the caller's to bound. No defaulting and no validation happen here.

pub mod envelope;
pub mod wire;

mod encode;
mod json;
mod sink;
mod syntax;
mod time;
mod walk;

use serde_json::Value;

use crate::schema::MessageRef;

pub use encode::{EncodeError, encode_proto};
pub use json::{DecodeError, Decoded, decode_json_strict, strict_decoding_message};
pub use syntax::check_json;

/// `apiVersion` and `kind` of an object; protobuf has them in the envelope, JSON in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeMeta<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
}

/// Why protobuf bytes are not a message of the expected type.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtoError {
    #[error("proto: unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    Varint,
    #[error("proto: illegal tag")]
    Tag,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: wrong wireType for the field")]
    Mismatch,
    #[error("proto: message nested too deeply")]
    Depth,
    #[error("proto: {0:?} is not a quantity")]
    Quantity(String),
    #[error("proto: not an object of Kubernetes' protobuf form: {0}")]
    Envelope(&'static str),
}

/// Appends the JSON form of the protobuf message in `fragments` (merged in order, as protobuf merges concatenated
/// messages: this is how a resource version joins stored bytes) to `out`. Prints `kind` and `apiVersion` first when
/// `type_meta` is given. On an error `out` is as before.
pub fn transcode_json(
    fragments: &[&[u8]],
    message: MessageRef,
    type_meta: Option<TypeMeta<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), ProtoError> {
    let before = out.len();
    let result = walk::walk(fragments, message, type_meta, &mut sink::JsonText { out });
    if result.is_err() {
        out.truncate(before);
    }
    result
}

/// The JSON form of a protobuf message as a value, without `kind` and `apiVersion` (see [`decode_object`]).
pub fn decode_proto(bytes: &[u8], message: MessageRef) -> Result<Value, ProtoError> {
    decode_fragments(&[bytes], message, None)
}

/// Like [`transcode_json`], into a value.
pub fn decode_fragments(
    fragments: &[&[u8]],
    message: MessageRef,
    type_meta: Option<TypeMeta<'_>>,
) -> Result<Value, ProtoError> {
    let mut tree = sink::Tree::default();
    walk::walk(fragments, message, type_meta, &mut tree)?;
    Ok(tree.root)
}

/// Unwraps an envelope and decodes its object; `kind` and `apiVersion` come from the envelope.
pub fn decode_object(bytes: &[u8], message: MessageRef) -> Result<Value, ProtoError> {
    let unknown = envelope::unwrap(bytes)?;
    decode_fragments(&[unknown.raw], message, Some(unknown.type_meta()))
}

/// Encodes an object and wraps it with the `apiVersion` and `kind` that it carries.
pub fn encode_object(value: &Value, message: MessageRef) -> Result<Vec<u8>, EncodeError> {
    let raw = encode_proto(value, message)?;
    let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut out = Vec::with_capacity(raw.len() + 64);
    envelope::wrap(TypeMeta { api_version: word("apiVersion"), kind: word("kind") }, &[&raw], &mut out);
    Ok(out)
}

/// The protobuf fragment that sets `metadata.resourceVersion` of an object: append it to the message's bytes.
pub fn resource_version_fragment(revision: u64) -> Vec<u8> {
    let text = revision.to_string();
    let mut inner = Vec::with_capacity(text.len() + 2);
    wire::put_bytes(&mut inner, 6, text.as_bytes());
    let mut out = Vec::with_capacity(inner.len() + 2);
    wire::put_bytes(&mut out, 1, &inner);
    out
}

fn encode_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// `Err` holds the position of the first wrong byte, as Go counts it.
fn decode_base64(text: &str) -> Result<Vec<u8>, usize> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
    // Like Go's decoder: unused bits of the last symbol do not matter, line breaks are skipped.
    const GO: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let text: std::borrow::Cow<'_, str> =
        if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "").into() } else { text.into() };
    GO.decode(text.as_bytes()).map_err(|error| match error {
        base64::DecodeError::InvalidByte(at, _) => at,
        _ => text.len(),
    })
}

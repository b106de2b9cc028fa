//! The envelope around a protobuf object: `k8s\0`, then a `runtime.Unknown` message with type, raw bytes and encodings.
//!
//! This is the form in which built-in kinds are stored and in which `application/vnd.kubernetes.protobuf` carries them.
//! Writing takes the object in parts, so that serving adds a resource version without copying the stored bytes first.

use super::wire::{self, Reader, Wire};
use super::{ProtoError, TypeMeta};

/// The first bytes of every enveloped object.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// A parsed envelope, borrowing from the input.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    /// The object's protobuf message.
    pub raw: &'a [u8],
    pub content_encoding: &'a str,
    pub content_type: &'a str,
}

impl<'a> Unknown<'a> {
    pub fn type_meta(&self) -> TypeMeta<'a> {
        TypeMeta { api_version: self.api_version, kind: self.kind }
    }
}

/// Whether the bytes claim to be an enveloped object.
pub fn is_enveloped(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Takes the envelope off.
pub fn unwrap(bytes: &[u8]) -> Result<Unknown<'_>, ProtoError> {
    let bytes = bytes.strip_prefix(MAGIC).ok_or(ProtoError::Envelope("the magic prefix is missing"))?;
    let mut unknown = Unknown::default();
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.read()? {
        let Wire::Bytes(value) = value else { return Err(ProtoError::Mismatch) };
        match tag {
            1 => read_type_meta(value, &mut unknown)?,
            2 => unknown.raw = value,
            3 => unknown.content_encoding = text(value)?,
            4 => unknown.content_type = text(value)?,
            _ => {}
        }
    }
    Ok(unknown)
}

fn read_type_meta<'a>(bytes: &'a [u8], unknown: &mut Unknown<'a>) -> Result<(), ProtoError> {
    let mut reader = Reader::new(bytes);
    while let Some((tag, value)) = reader.read()? {
        match (tag, value) {
            (1, Wire::Bytes(value)) => unknown.api_version = text(value)?,
            (2, Wire::Bytes(value)) => unknown.kind = text(value)?,
            _ => {}
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, ProtoError> {
    std::str::from_utf8(bytes).map_err(|_| ProtoError::Envelope("a name is not UTF-8"))
}

/// Appends the envelope around the concatenation of `parts` (the object's message in fragments).
pub fn wrap(type_meta: TypeMeta<'_>, parts: &[&[u8]], out: &mut Vec<u8>) {
    let mut types = Vec::with_capacity(type_meta.api_version.len() + type_meta.kind.len() + 4);
    wire::put_bytes(&mut types, 1, type_meta.api_version.as_bytes());
    wire::put_bytes(&mut types, 2, type_meta.kind.as_bytes());
    out.extend_from_slice(MAGIC);
    wire::put_bytes(out, 1, &types);
    wire::put_header(out, 2, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
    wire::put_bytes(out, 3, b"");
    wire::put_bytes(out, 4, b"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrap_and_unwrap_are_inverse() {
        let mut out = Vec::new();
        wrap(TypeMeta { api_version: "apps/v1", kind: "Deployment" }, &[b"\x0a\x00", b"\x0a\x03abc"], &mut out);
        let unknown = unwrap(&out).unwrap();
        assert_eq!((unknown.api_version, unknown.kind), ("apps/v1", "Deployment"));
        assert_eq!(unknown.raw, b"\x0a\x00\x0a\x03abc");
        assert!(unwrap(b"{}").is_err());
        assert!(unwrap(&out[..out.len() - 1]).is_err());
    }
}

//! Objects, lists and watch events as response bytes, in every representation.
//!
//! ```text
//! Entry (wire bytes) + Representation -> one object | a list in chunks | a watch event
//! ```
//!
//! Invariants: protobuf and JSON of an object are made from the cached bytes without decoding them to a value, unless the
//! served version differs from the stored one; the resource version is added here and nowhere else; lists are made chunk by
//! chunk. Not here: negotiation, HTTP, which objects belong to a list.

use std::borrow::Cow;
use std::sync::Arc;

use api::codec::wire::{self, Reader, Wire};
use api::codec::{self, TypeMeta, envelope};
use api::schema::{self, MessageRef};
use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cache::Entry;
use crate::cache::entry::Form;
use crate::error::ApiError;
use crate::negotiate::{Media, Representation, Shape};
use crate::registry::Resource;
use crate::stored;
use crate::table;

/// Parts of one protobuf message, and its type.
type Fragments<'a> = (Vec<Cow<'a, [u8]>>, MessageRef);

/// Encodes what one resource has to say in one representation.
#[derive(Clone)]
pub struct Encoder {
    pub resource: Arc<Resource>,
    pub representation: Representation,
    /// Whole objects, metadata or nothing in table rows.
    pub include: table::Include,
    /// For ages in table cells.
    pub now: Timestamp,
}

/// `metadata` of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListMeta {
    pub revision: i64,
    pub resume: String,
    pub remaining: Option<i64>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.resume.is_empty() {
            meta["continue"] = Value::from(self.resume.as_str());
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = Value::from(remaining);
        }
        meta
    }

    fn to_proto(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_bytes(&mut out, 1, b"");
        wire::put_bytes(&mut out, 2, self.revision.to_string().as_bytes());
        wire::put_bytes(&mut out, 3, self.resume.as_bytes());
        if let Some(remaining) = self.remaining {
            wire::put_varint(&mut out, 4 << 3);
            wire::put_varint(&mut out, remaining as u64);
        }
        out
    }
}

/// The types of watch events, as bytes of a frame key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Added = 1,
    Modified = 2,
    Deleted = 3,
    Bookmark = 4,
    Error = 5,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::internal(error)
}

/// The `meta.k8s.io` message of a name, if the schema has it (it does; the type says so for want of a promise).
fn meta_message(name: &str) -> Result<MessageRef, ApiError> {
    schema::message(&format!("meta/v1.{name}")).ok_or_else(|| unreadable(format!("no schema of {name}")))
}

impl Encoder {
    pub fn new(resource: Arc<Resource>, representation: Representation) -> Self {
        Self { resource, representation, include: table::Include::Metadata, now: Timestamp::UNIX_EPOCH }
    }

    /// The type that the client sees.
    fn type_meta(&self) -> TypeMeta<'_> {
        match self.representation.shape {
            Shape::Object => TypeMeta { api_version: &self.resource.api_version, kind: &self.resource.kind_name },
            Shape::Partial => {
                TypeMeta { api_version: self.representation.meta_version(), kind: "PartialObjectMetadata" }
            }
            Shape::Table => TypeMeta { api_version: self.representation.meta_version(), kind: "Table" },
        }
    }

    /// A number for this encoder's frames among those of all encoders of the same cache.
    pub fn number(&self) -> u32 {
        (self.resource.number << 10) | (self.representation.number() << 2) | self.include as u32
    }

    /// The protobuf message(s) of an entry in the served version and shape, without resource version.
    fn fragments<'a>(&self, entry: &'a Entry) -> Result<Fragments<'a>, ApiError> {
        let message = self.resource.message.ok_or_else(|| unreadable("the kind has no protobuf form"))?;
        let object: Cow<'a, [u8]> = if entry.form == Form::Proto && self.resource.conversion.is_none() {
            Cow::Borrowed(&entry.object)
        } else {
            let value = self.served_value(entry)?;
            Cow::Owned(codec::encode_proto(&value, message).map_err(unreadable)?)
        };
        if self.representation.shape != Shape::Partial {
            return Ok((vec![object], message));
        }
        let mut out = Vec::new();
        let mut reader = Reader::new(&object);
        while let Some((tag, value)) = reader.read().map_err(unreadable)? {
            if let (1, Wire::Bytes(metadata)) = (tag, value) {
                wire::put_bytes(&mut out, 1, metadata);
            }
        }
        Ok((vec![Cow::Owned(out)], meta_message("PartialObjectMetadata")?))
    }

    /// The object in the served version, with type and resource version.
    pub fn served_value(&self, entry: &Entry) -> Result<Value, ApiError> {
        let mut value = stored::decode_entry(entry, &self.resource.source).map_err(unreadable)?;
        if let Some(conversion) = self.resource.conversion {
            (conversion.from_storage)(&mut value);
        }
        if let Value::Object(map) = &mut value {
            map.insert("apiVersion".to_owned(), Value::from(self.resource.api_version.as_str()));
            map.insert("kind".to_owned(), Value::from(self.resource.kind_name.as_str()));
        }
        Ok(value)
    }

    fn append_json(
        &self,
        entry: &Entry,
        revision: i64,
        type_meta: Option<TypeMeta<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        if self.resource.message.is_none() {
            let mut value = self.served_value(entry)?;
            if self.representation.shape == Shape::Partial {
                let meta = value["metadata"].take();
                let type_meta = self.type_meta();
                value = json!({"apiVersion": type_meta.api_version, "kind": type_meta.kind, "metadata": meta});
            }
            if revision > 0 {
                value["metadata"]["resourceVersion"] = Value::from(revision.to_string());
            }
            return serde_json::to_writer(out, &value).map_err(unreadable);
        }
        let (fragments, message) = self.fragments(entry)?;
        let version = version_fragment(revision);
        let mut parts: Vec<&[u8]> = fragments.iter().map(AsRef::as_ref).collect();
        if let Some(version) = &version {
            parts.push(version);
        }
        codec::transcode_json(&parts, message, type_meta, out).map_err(unreadable)
    }

    /// An object in an envelope, with type.
    fn append_proto(&self, entry: &Entry, revision: i64, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let (fragments, _) = self.fragments(entry)?;
        let version = version_fragment(revision);
        let mut parts: Vec<&[u8]> = fragments.iter().map(AsRef::as_ref).collect();
        if let Some(version) = &version {
            parts.push(version);
        }
        envelope::wrap(self.type_meta(), &parts, out);
        Ok(())
    }

    /// One object as the body of a response, without a final line break.
    fn append_object(&self, entry: &Entry, revision: i64, out: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.representation.shape == Shape::Table {
            let meta = ListMeta { revision, ..ListMeta::default() };
            let table = table::table(self, &[entry], &meta, true)?;
            out.extend_from_slice(&value_bytes(&table, Media::Json, false)?);
            return Ok(());
        }
        match self.representation.media {
            Media::Proto => self.append_proto(entry, revision, out),
            Media::Json | Media::Yaml => self.append_json(entry, revision, Some(self.type_meta()), out),
        }
    }

    /// The body of a response that is one object.
    pub fn object(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        let mut out = Vec::with_capacity(entry.object.len() * 2 + 128);
        self.append_object(entry, entry.revision, &mut out)?;
        self.finish(out)
    }

    /// Line break, indentation or YAML, as the media type wants.
    fn finish(&self, mut out: Vec<u8>) -> Result<Bytes, ApiError> {
        match self.representation {
            Representation { media: Media::Json, pretty: false, .. } => out.push(b'\n'),
            Representation { media: Media::Proto, .. } => {}
            Representation { media, pretty, .. } => {
                let value: Value = serde_json::from_slice(&out).map_err(unreadable)?;
                return value_bytes(&value, media, pretty);
            }
        }
        Ok(out.into())
    }

    /// A watch event of an entry. `revision` differs from the entry's for deletions.
    pub fn event(&self, event: EventType, entry: &Entry, revision: i64, columns: bool) -> Result<Bytes, ApiError> {
        let mut object = Vec::with_capacity(entry.object.len() * 2 + 128);
        if self.representation.shape == Shape::Table {
            let meta = ListMeta { revision, ..ListMeta::default() };
            let table = table::table(self, &[entry], &meta, columns)?;
            object = value_bytes(&table, Media::Json, false)?.to_vec();
        } else {
            self.append_object(entry, revision, &mut object)?;
        }
        Ok(frame(self.representation.media, event, &object))
    }

    /// A bookmark at `revision`; `initial_end` marks the end of the initial events of a streaming list.
    pub fn bookmark(&self, revision: i64, initial_end: bool) -> Result<Bytes, ApiError> {
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let type_meta = self.type_meta();
        let mut value = json!({"apiVersion": type_meta.api_version, "kind": type_meta.kind, "metadata": meta});
        match (self.representation.shape, self.representation.media) {
            (Shape::Table, _) => {
                let bookmark = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": self.representation.meta_version(),
                    "metadata": value["metadata"]
                });
                value["metadata"] = json!({"resourceVersion": revision.to_string()});
                value["columnDefinitions"] = Value::Null;
                value["rows"] = json!([{"cells": [], "object": bookmark}]);
                Ok(frame(Media::Json, EventType::Bookmark, value.to_string().as_bytes()))
            }
            (shape, Media::Proto) => {
                let message = match (shape, self.resource.message) {
                    (Shape::Object, Some(message)) => message,
                    _ => meta_message("PartialObjectMetadata")?,
                };
                let raw = codec::encode_proto(&value, message).map_err(unreadable)?;
                let mut object = Vec::with_capacity(raw.len() + 64);
                envelope::wrap(type_meta, &[&raw], &mut object);
                Ok(frame(Media::Proto, EventType::Bookmark, &object))
            }
            (shape, media) => {
                let mut object = Vec::new();
                match (shape, self.resource.message) {
                    (Shape::Object, Some(message)) => {
                        // Through the message, so that the object looks as upstream's zero value does.
                        let raw = codec::encode_proto(&value, message).map_err(unreadable)?;
                        codec::transcode_json(&[&raw], message, Some(type_meta), &mut object).map_err(unreadable)?;
                    }
                    _ => object = value.to_string().into_bytes(),
                }
                Ok(frame(media, EventType::Bookmark, &object))
            }
        }
    }

    /// The ERROR event that ends a watch.
    pub fn error_event(&self, error: &ApiError) -> Bytes {
        let media = if self.representation.media == Media::Proto { Media::Proto } else { Media::Json };
        let status = value_bytes_or_empty(&error.to_value(), media);
        frame(media, EventType::Error, status.trim_ascii_end())
    }

    /// What comes before the items of a list, in JSON.
    fn list_head(&self, meta: &ListMeta) -> Vec<u8> {
        let (api_version, kind) = match self.representation.shape {
            Shape::Partial => (self.representation.meta_version(), "PartialObjectMetadataList"),
            _ => (self.resource.api_version.as_str(), self.resource.list_kind.as_str()),
        };
        let head = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[",
            meta.to_value()
        );
        head.into_bytes()
    }

    /// The chunks of a list's body, made one after the other as they are asked for.
    pub fn list(self, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Result<ListChunks, ApiError> {
        let plain_json = self.representation.media == Media::Json && !self.representation.pretty;
        if self.representation.shape == Shape::Table {
            let entries: Vec<&Entry> = entries.iter().map(AsRef::as_ref).collect();
            let table = table::table(&self, &entries, meta, true)?;
            let body = value_bytes(&table, self.representation.media, self.representation.pretty)?;
            return Ok(ListChunks::whole(self, body));
        }
        match self.representation.media {
            Media::Json if plain_json => {
                let head = self.list_head(meta);
                Ok(ListChunks { encoder: self, entries, next: 0, pending: Some(head), tail: Some(b"]}\n".to_vec()) })
            }
            Media::Proto => self.proto_list(entries, meta),
            media => {
                let mut out = self.list_head(meta);
                for (at, entry) in entries.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.append_json(entry, entry.revision, self.item_type(), &mut out)?;
                }
                out.extend_from_slice(b"]}");
                let value: Value = serde_json::from_slice(&out).map_err(unreadable)?;
                let body = value_bytes(&value, media, self.representation.pretty)?;
                Ok(ListChunks::whole(self, body))
            }
        }
    }

    /// Items of a typed list carry no type of their own; partial objects and custom resources do.
    fn item_type(&self) -> Option<TypeMeta<'_>> {
        (self.representation.shape == Shape::Partial).then(|| self.type_meta())
    }

    fn proto_list(self, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Result<ListChunks, ApiError> {
        let mut size = 0;
        let head = meta.to_proto();
        let mut list_head = Vec::new();
        wire::put_bytes(&mut list_head, 1, &head);
        size += list_head.len();
        for entry in &entries {
            let length = self.item_length(entry)?;
            size += 1 + varint_length(length) + length;
        }
        let (api_version, kind) = match self.representation.shape {
            Shape::Partial => (self.representation.meta_version(), "PartialObjectMetadataList"),
            _ => (self.resource.api_version.as_str(), self.resource.list_kind.as_str()),
        };
        let mut out = envelope::MAGIC.to_vec();
        let mut types = Vec::new();
        wire::put_bytes(&mut types, 1, api_version.as_bytes());
        wire::put_bytes(&mut types, 2, kind.as_bytes());
        wire::put_bytes(&mut out, 1, &types);
        wire::put_header(&mut out, 2, size);
        out.extend_from_slice(&list_head);
        let mut tail = Vec::new();
        wire::put_bytes(&mut tail, 3, b"");
        wire::put_bytes(&mut tail, 4, b"");
        Ok(ListChunks { encoder: self, entries, next: 0, pending: Some(out), tail: Some(tail) })
    }

    /// Bytes of an item's message with its resource version.
    fn item_length(&self, entry: &Entry) -> Result<usize, ApiError> {
        let version = version_fragment(entry.revision).map_or(0, |v| v.len());
        if entry.form == Form::Proto && self.resource.conversion.is_none() && self.representation.shape == Shape::Object
        {
            return Ok(entry.object.len() + version);
        }
        let (fragments, _) = self.fragments(entry)?;
        Ok(fragments.iter().map(|f| f.len()).sum::<usize>() + version)
    }

    fn append_item(&self, entry: &Entry, first: bool, out: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.representation.media != Media::Proto {
            if !first {
                out.push(b',');
            }
            return self.append_json(entry, entry.revision, self.item_type(), out);
        }
        let (fragments, _) = self.fragments(entry)?;
        let version = version_fragment(entry.revision).unwrap_or_default();
        let length = fragments.iter().map(|f| f.len()).sum::<usize>() + version.len();
        wire::put_header(out, 2, length);
        for fragment in &fragments {
            out.extend_from_slice(fragment);
        }
        out.extend_from_slice(&version);
        Ok(())
    }
}

fn varint_length(value: usize) -> usize {
    let bits = (usize::BITS - value.leading_zeros()).max(1) as usize;
    bits.div_ceil(7)
}

fn version_fragment(revision: i64) -> Option<Vec<u8>> {
    u64::try_from(revision).ok().filter(|r| *r > 0).map(codec::resource_version_fragment)
}

/// Bytes of a list chunk: large enough to be cheap, small enough not to matter.
const CHUNK_BYTES: usize = 128 * 1024;

/// The body of a list, made lazily. An iterator of chunks.
pub struct ListChunks {
    encoder: Encoder,
    entries: Vec<Arc<Entry>>,
    next: usize,
    pending: Option<Vec<u8>>,
    tail: Option<Vec<u8>>,
}

impl ListChunks {
    fn whole(encoder: Encoder, body: Bytes) -> Self {
        Self { encoder, entries: Vec::new(), next: 0, pending: Some(body.to_vec()), tail: None }
    }
}

impl Iterator for ListChunks {
    type Item = Result<Bytes, ApiError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut out = self.pending.take().unwrap_or_default();
        out.reserve(if self.next < self.entries.len() { CHUNK_BYTES + 16 * 1024 } else { 0 });
        while self.next < self.entries.len() && out.len() < CHUNK_BYTES {
            let entry = &self.entries[self.next];
            if let Err(error) = self.encoder.append_item(entry, self.next == 0, &mut out) {
                self.next = self.entries.len();
                self.tail = None;
                return Some(Err(error));
            }
            self.next += 1;
        }
        if self.next >= self.entries.len()
            && let Some(tail) = self.tail.take()
        {
            out.extend_from_slice(&tail);
        }
        (!out.is_empty()).then(|| Ok(out.into()))
    }
}

/// A watch event's frame: a JSON line, or a length and a protobuf `WatchEvent` without envelope around an enveloped object.
pub fn frame(media: Media, event: EventType, object: &[u8]) -> Bytes {
    let name = event.as_str();
    if media != Media::Proto {
        let mut out = BytesMut::with_capacity(object.len() + 40);
        out.put_slice(b"{\"type\":\"");
        out.put_slice(name.as_bytes());
        out.put_slice(b"\",\"object\":");
        out.put_slice(object);
        out.put_slice(b"}\n");
        return out.freeze();
    }
    let inner = 1 + varint_length(object.len()) + object.len();
    let mut message = Vec::with_capacity(inner + 32);
    wire::put_bytes(&mut message, 1, name.as_bytes());
    wire::put_header(&mut message, 2, inner);
    wire::put_bytes(&mut message, 1, object);
    let mut out = BytesMut::with_capacity(message.len() + 4);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(&message);
    out.freeze()
}

/// A free-standing value (Status, Scale, Table, reviews) as a body. The value carries its type; protobuf needs that type in the
/// schema.
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

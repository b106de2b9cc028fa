//! Watch events as frames: a JSON line, or a length and a protobuf message.
//!
//! Entry and event type -> one frame; bookmarks and the error that ends a watch too. A frame is made once for all watchers
//! of the same representation, by who calls this.

use api::codec::wire::{self, varint_length};
use api::codec::{self, envelope};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::value::value_bytes_or_empty;
use super::{Encoder, meta_message, unreadable};
use crate::cache::Entry;
use crate::error::ApiError;
use crate::negotiate::{Media, Shape};

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

impl Encoder {
    /// A watch event of an entry. `revision` differs from the entry's for deletions.
    pub fn event(&self, event: EventType, entry: &Entry, revision: i64, columns: bool) -> Result<Bytes, ApiError> {
        Ok(frame(self.representation.media, event, &self.one(entry, revision, columns)?))
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
}

/// A watch event's frame: a JSON line, or a length and a protobuf `WatchEvent` without envelope around an enveloped object.
fn frame(media: Media, event: EventType, object: &[u8]) -> Bytes {
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
    let inner = 1 + varint_length(object.len() as u64) + object.len();
    let mut message = Vec::with_capacity(inner + 32);
    wire::put_bytes(&mut message, 1, name.as_bytes());
    wire::put_header(&mut message, 2, inner);
    wire::put_bytes(&mut message, 1, object);
    let mut out = BytesMut::with_capacity(message.len() + 4);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(&message);
    out.freeze()
}

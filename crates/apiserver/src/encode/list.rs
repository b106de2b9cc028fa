//! Lists as bodies, made chunk by chunk as they are sent.
//!
//! Entries and the list's metadata -> [`ListChunks`]. Invariant: no more than a chunk of a list is in memory twice, but for
//! tables, YAML and indented JSON, which are made as a whole.

use std::sync::Arc;

use api::codec::wire::{self, varint_length};
use api::codec::{TypeMeta, envelope};
use bytes::Bytes;
use serde_json::{Value, json};

use super::value::value_bytes;
use super::{Encoder, unreadable};
use crate::cache::Entry;
use crate::error::ApiError;
use crate::negotiate::{Media, Shape};
use crate::table;

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

impl Encoder {
    /// The type of a list of what the client sees.
    fn list_type(&self) -> TypeMeta<'_> {
        match self.representation.shape {
            Shape::Partial => {
                TypeMeta { api_version: self.representation.meta_version(), kind: "PartialObjectMetadataList" }
            }
            _ => TypeMeta { api_version: &self.resource.api_version, kind: &self.resource.list_kind },
        }
    }

    /// What comes before the items of a list, in JSON.
    fn list_head(&self, meta: &ListMeta) -> Vec<u8> {
        let TypeMeta { api_version, kind } = self.list_type();
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
            size += 1 + varint_length(length as u64) + length;
        }
        let TypeMeta { api_version, kind } = self.list_type();
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
        let (fragments, _) = self.versioned(entry, entry.revision)?;
        Ok(fragments.iter().map(|f| f.len()).sum())
    }

    fn append_item(&self, entry: &Arc<Entry>, first: bool, out: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.representation.media != Media::Proto {
            if !first {
                out.push(b',');
            }
            // Other shapes and versions share the cache, but not the copies.
            if self.representation.shape == Shape::Object && self.resource.conversion.is_none() {
                let make = |out: &mut Vec<u8>| self.append_json(entry, entry.revision, None, out);
                return self.resource.cache.json_copies.append(entry, out, make);
            }
            return self.append_json(entry, entry.revision, self.item_type(), out);
        }
        let (fragments, _) = self.versioned(entry, entry.revision)?;
        wire::put_header(out, 2, fragments.iter().map(|f| f.len()).sum());
        for fragment in &fragments {
            out.extend_from_slice(fragment);
        }
        Ok(())
    }
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

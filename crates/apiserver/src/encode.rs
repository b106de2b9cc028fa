//! Objects as response bytes, in every representation; lists and watch events are made of them.
//!
//! ```text
//! Entry (wire bytes) + Representation -> one object | a list in chunks | a watch event
//! ```
//!
//! Invariants: protobuf and JSON of an object are made from the cached bytes without decoding them to a value, unless the
//! served version differs from the stored one; the resource version is added here and nowhere else; lists are made chunk by
//! chunk. Not here: negotiation, HTTP, which objects belong to a list.
//!
//! Reading order: this file, `list`, `event`, `value`.

mod event;
mod list;
mod value;

use std::borrow::Cow;
use std::sync::Arc;

use api::codec::wire::{self, Reader, Wire};
use api::codec::{self, TypeMeta, envelope};
use api::schema::{self, MessageRef};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cache::Entry;
use crate::cache::entry::Form;
use crate::error::ApiError;
use crate::negotiate::{Media, Representation, Shape};
use crate::registry::Resource;
use crate::stored;
use crate::table;

pub use event::EventType;
pub use list::{ListChunks, ListMeta};
pub use value::value_bytes;

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

    /// [`Self::fragments`] with the resource version, if there is one.
    fn versioned<'a>(&self, entry: &'a Entry, revision: i64) -> Result<Fragments<'a>, ApiError> {
        let (mut fragments, message) = self.fragments(entry)?;
        fragments.extend(version_fragment(revision).map(Cow::Owned));
        Ok((fragments, message))
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

    /// An object in JSON; its type is said where a `type_meta` is given.
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
        let (fragments, message) = self.versioned(entry, revision)?;
        let parts: Vec<&[u8]> = fragments.iter().map(AsRef::as_ref).collect();
        codec::transcode_json(&parts, message, type_meta, out).map_err(unreadable)
    }

    /// An object in an envelope, with type.
    fn append_proto(&self, entry: &Entry, revision: i64, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let (fragments, _) = self.versioned(entry, revision)?;
        let parts: Vec<&[u8]> = fragments.iter().map(AsRef::as_ref).collect();
        envelope::wrap(self.type_meta(), &parts, out);
        Ok(())
    }

    /// One object without a final line break: JSON where YAML is asked for. A table names its columns if `columns`.
    fn one(&self, entry: &Entry, revision: i64, columns: bool) -> Result<Vec<u8>, ApiError> {
        let mut out = Vec::with_capacity(entry.object.len() * 2 + 128);
        match (self.representation.shape, self.representation.media) {
            (Shape::Table, _) => {
                let meta = ListMeta { revision, ..ListMeta::default() };
                let table = table::table(self, &[entry], &meta, columns)?;
                serde_json::to_writer(&mut out, &table).map_err(unreadable)?;
            }
            (_, Media::Proto) => self.append_proto(entry, revision, &mut out)?,
            (_, Media::Json | Media::Yaml) => self.append_json(entry, revision, Some(self.type_meta()), &mut out)?,
        }
        Ok(out)
    }

    /// The body of a response that is one object.
    pub fn object(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        self.finish(self.one(entry, entry.revision, true)?)
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
}

/// The resource version as a fragment of an object's message.
fn version_fragment(revision: i64) -> Option<Vec<u8>> {
    u64::try_from(revision).ok().filter(|r| *r > 0).map(codec::resource_version_fragment)
}

//! The stored form of objects: key layout, envelope, encryption at rest.
//!
//! Input: stored key-value pairs, or objects to store. Output: cache entries, or bytes to store.
//! Invariant [I8]: what is written is upstream's form: the protobuf envelope `k8s\0` for built-in kinds, JSON for custom
//! resources, sealed by the transformer where there is one; never with a resource version.
//! Not here: which kind is stored where (see `registry`).

use std::sync::Arc;

use api::codec::wire::{Reader, Wire};
use api::codec::{self, TypeMeta, envelope};
use api::schema::MessageRef;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use store::KeyValue;

use crate::cache::Entry;
use crate::cache::entry::{EntryParts, Form};
use crate::chain::{TransformError, Transformer};

/// Where and how a kind's objects are stored.
pub struct Source {
    /// Such as `/registry/services/specs/`.
    pub prefix: Bytes,
    pub namespaced: bool,
    pub transformer: Option<Arc<dyn Transformer>>,
    /// `None`: stored as JSON.
    pub message: Option<MessageRef>,
    pub api_version: String,
    pub kind: String,
}

/// A stored value is not an object of its kind, or an object cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error("decrypt or encrypt a stored object")]
    Transform(#[from] TransformError),
    #[error("read the protobuf form of {key}")]
    Proto {
        key: String,
        #[source]
        source: codec::ProtoError,
    },
    #[error("read the JSON form of {key}")]
    Json {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("encode the object for {key}")]
    Encode {
        key: String,
        #[source]
        source: codec::EncodeError,
    },
    #[error("{key} has an unknown form")]
    UnknownForm { key: String },
}

impl Source {
    /// `namespace` is empty for cluster-wide kinds.
    pub fn key(&self, namespace: &str, name: &str) -> Bytes {
        let mut key = self.namespace_prefix(namespace);
        key.extend_from_slice(name.as_bytes());
        Bytes::from(key)
    }

    /// What all keys of a namespace (of all namespaces for an empty one) start with.
    pub fn namespace_prefix(&self, namespace: &str) -> Vec<u8> {
        let mut key = self.prefix.to_vec();
        if self.namespaced && !namespace.is_empty() {
            key.extend_from_slice(namespace.as_bytes());
            key.push(b'/');
        }
        key
    }

    /// The bytes of an object as they go into the store, and the same in the plain form. A resource version in the value is
    /// left out.
    pub fn encode(&self, key: &Bytes, value: &Value) -> Result<Encoded, StoredError> {
        let text = || String::from_utf8_lossy(key).into_owned();
        let (plain, form, start, length) = match self.message {
            Some(message) => {
                let raw = codec::encode_proto(value, message)
                    .map_err(|source| StoredError::Encode { key: text(), source })?;
                let type_meta = TypeMeta { api_version: &self.api_version, kind: &self.kind };
                let mut out = Vec::with_capacity(raw.len() + 64);
                envelope::wrap(type_meta, &[&raw], &mut out);
                // The envelope ends with two empty fields of two bytes each.
                let start = out.len() - 4 - raw.len();
                (Bytes::from(out), Form::Proto, start, raw.len())
            }
            None => {
                let out = serde_json::to_vec(value).map_err(|source| StoredError::Json { key: text(), source })?;
                let length = out.len();
                (Bytes::from(out), Form::Json, 0, length)
            }
        };
        let object = plain.slice(start..start + length);
        let stored = match &self.transformer {
            Some(transformer) => transformer.seal(key, &plain)?,
            None => plain,
        };
        Ok(Encoded { stored, object, form })
    }

    /// The entry of an object that is not in the store (yet): for answers to writes. `revision` 0: none is shown.
    pub fn entry(&self, key: Bytes, encoded: Encoded, revision: i64) -> Entry {
        let labels = scan_labels(encoded.form, &encoded.object).unwrap_or_default();
        Entry::new(EntryParts {
            key,
            prefix_length: self.prefix.len(),
            namespaced: self.namespaced,
            form: encoded.form,
            object: encoded.object,
            revision,
            labels,
        })
    }
}

/// An encoded object.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// What the store gets.
    pub stored: Bytes,
    /// The object alone: the protobuf message without envelope, or JSON.
    pub object: Bytes,
    pub form: Form,
}

/// A stored pair as a cache entry. The object's bytes are a slice of the stored value unless that is sealed.
pub fn parse_entry(source: &Source, kv: &Arc<KeyValue>) -> Result<Entry, StoredError> {
    let text = || String::from_utf8_lossy(&kv.key).into_owned();
    let plain = match &source.transformer {
        Some(transformer) => transformer.open(&kv.key, kv.value.clone())?,
        None => kv.value.clone(),
    };
    let (form, object) = if envelope::is_enveloped(&plain) {
        let unknown = envelope::unwrap(&plain).map_err(|source| StoredError::Proto { key: text(), source })?;
        (Form::Proto, plain.slice_ref(unknown.raw))
    } else if plain.first() == Some(&b'{') {
        (Form::Json, plain)
    } else {
        return Err(StoredError::UnknownForm { key: text() });
    };
    let labels = match form {
        Form::Proto => scan_labels(form, &object).map_err(|source| StoredError::Proto { key: text(), source })?,
        Form::Json => json_labels(&object).map_err(|source| StoredError::Json { key: text(), source })?,
    };
    Ok(Entry::new(EntryParts {
        key: kv.key.clone(),
        prefix_length: source.prefix.len(),
        namespaced: source.namespaced,
        form,
        object,
        revision: kv.mod_revision,
        labels,
    }))
}

type Labels = Box<[(Box<str>, Box<str>)]>;

/// Tags of `ObjectMeta` in every kind's message, and of `labels` in `ObjectMeta`.
const METADATA_TAG: u32 = 1;
const LABELS_TAG: u32 = 11;

fn scan_labels(form: Form, object: &[u8]) -> Result<Labels, codec::ProtoError> {
    if form == Form::Json {
        return Ok(json_labels(object).unwrap_or_default());
    }
    let mut labels = Vec::new();
    let mut message = Reader::new(object);
    while let Some((tag, value)) = message.read()? {
        let (METADATA_TAG, Wire::Bytes(metadata)) = (tag, value) else { continue };
        let mut metadata = Reader::new(metadata);
        while let Some((tag, value)) = metadata.read()? {
            if let (LABELS_TAG, Wire::Bytes(pair)) = (tag, value) {
                labels.push(map_pair(pair)?);
            }
        }
    }
    Ok(labels.into_boxed_slice())
}

fn map_pair(pair: &[u8]) -> Result<(Box<str>, Box<str>), codec::ProtoError> {
    let (mut key, mut value) = (Box::default(), Box::default());
    let mut reader = Reader::new(pair);
    while let Some((tag, field)) = reader.read()? {
        if let Wire::Bytes(bytes) = field {
            let text = String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
            match tag {
                1 => key = text,
                2 => value = text,
                _ => {}
            }
        }
    }
    Ok((key, value))
}

#[derive(Deserialize)]
struct Labelled {
    #[serde(default)]
    metadata: LabelledMeta,
}

#[derive(Default, Deserialize)]
struct LabelledMeta {
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
}

fn json_labels(object: &[u8]) -> Result<Labels, serde_json::Error> {
    let parsed: Labelled = serde_json::from_slice(object)?;
    let labels = parsed.metadata.labels.unwrap_or_default();
    Ok(labels.into_iter().map(|(k, v)| (k.into_boxed_str(), v.into_boxed_str())).collect())
}

/// The whole object as a value, with type and resource version (none for revision 0).
pub fn decode_entry(entry: &Entry, source: &Source) -> Result<Value, StoredError> {
    let text = || String::from_utf8_lossy(&entry.key).into_owned();
    let mut value = match (entry.form, source.message) {
        (Form::Proto, Some(message)) => {
            let type_meta = TypeMeta { api_version: &source.api_version, kind: &source.kind };
            codec::decode_fragments(&[&entry.object], message, Some(type_meta))
                .map_err(|source| StoredError::Proto { key: text(), source })?
        }
        (Form::Proto, None) => return Err(StoredError::UnknownForm { key: text() }),
        (Form::Json, _) => {
            serde_json::from_slice(&entry.object).map_err(|source| StoredError::Json { key: text(), source })?
        }
    };
    if entry.revision > 0 && value.is_object() {
        if !value["metadata"].is_object() {
            value["metadata"] = Value::Object(serde_json::Map::new());
        }
        value["metadata"]["resourceVersion"] = Value::from(entry.revision.to_string());
    }
    Ok(value)
}

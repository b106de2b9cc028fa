//! One object in the cache: its wire bytes, shared with the store, and the little that selecting needs.
//!
//! Input: a stored key and value. Output: an [`Entry`]. Invariant: the bytes are never copied (except when the stored form is
//! encrypted) and never decoded for reads by key, namespace or label.

use std::sync::OnceLock;

use bytes::Bytes;

use super::json_copies::JsonCopy;

/// How an object's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The kind's protobuf message, without envelope.
    Proto,
    /// JSON: custom resources, and what an older cluster stored so.
    Json,
}

#[derive(Debug)]
pub struct Entry {
    /// The store key.
    pub key: Bytes,
    pub form: Form,
    /// The object without its resource version; a slice of the stored value.
    pub object: Bytes,
    /// Revision of the last write: the resource version.
    pub revision: i64,
    namespace: (u16, u16),
    name: u16,
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the kind's selectable fields, filled at the first field selector that asks.
    pub fields: OnceLock<Vec<(&'static str, String)>>,
    /// Filled by [`super::JsonCopies`].
    pub(super) json: JsonCopy,
}

/// Where an object's bytes and facts come from.
pub struct EntryParts {
    pub key: Bytes,
    /// Bytes of the key before the namespace or name.
    pub prefix_length: usize,
    pub namespaced: bool,
    pub form: Form,
    pub object: Bytes,
    pub revision: i64,
    pub labels: Box<[(Box<str>, Box<str>)]>,
}

impl Entry {
    pub fn new(parts: EntryParts) -> Self {
        let start = parts.prefix_length.min(parts.key.len());
        let slash = parts.key[start..].iter().position(|byte| *byte == b'/').filter(|_| parts.namespaced);
        let (namespace, name) = match slash {
            Some(at) => ((start, start + at), start + at + 1),
            None => ((start, start), start),
        };
        let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Self {
            form: parts.form,
            object: parts.object,
            revision: parts.revision,
            namespace: (short(namespace.0), short(namespace.1)),
            name: short(name),
            labels: parts.labels,
            fields: OnceLock::new(),
            json: JsonCopy::default(),
            key: parts.key,
        }
    }

    /// Empty for cluster-wide kinds.
    pub fn namespace(&self) -> &str {
        self.part(self.namespace.0 as usize, self.namespace.1 as usize)
    }

    pub fn name(&self) -> &str {
        self.part(self.name as usize, self.key.len())
    }

    fn part(&self, from: usize, to: usize) -> &str {
        self.key.get(from..to).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
    }
}

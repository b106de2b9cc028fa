//! Label and field selectors over cache entries.
//!
//! Input: selector texts. Output: a [`Selection`] that says yes or no to an entry. Invariant: an entry is decoded at most once
//! in its life, and only if a field beyond name and namespace is asked for.

use api::selector::{FieldSelector, LabelSelector, field_value};

use crate::cache::Entry;
use crate::encode::Encoder;
use crate::error::ApiError;
use crate::negotiate::Representation;
use crate::request::ListOptions;
use crate::rest::Call;

/// Which entries of a resource are wanted.
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// One for each resource that shares the cache: each names its fields in its own way.
    decoders: Vec<Encoder>,
    /// The one name that can match, if the selector says so.
    pub name: Option<String>,
    /// The one namespace that can match.
    pub namespace: Option<String>,
}

impl Selection {
    pub fn parse(call: &Call, options: &ListOptions) -> Result<Self, ApiError> {
        let labels =
            LabelSelector::parse(&options.label_selector).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let fields =
            FieldSelector::parse(&options.field_selector).map_err(|error| ApiError::bad_request(error.to_string()))?;
        for requirement in &fields.requirements {
            let known = match call.resource.kind {
                Some(kind) => kind.field_path(&requirement.label).map(|_| ()),
                None if matches!(requirement.label.as_str(), "metadata.name" | "metadata.namespace") => Ok(()),
                None => Err(format!("field label not supported: {}", requirement.label)),
            };
            known.map_err(ApiError::bad_request)?;
        }
        let in_path = Some(call.info.name.as_str()).filter(|name| !name.is_empty());
        let name = fields.exact("metadata.name").or(in_path).map(str::to_owned);
        let namespace = fields.exact("metadata.namespace").map(str::to_owned);
        let sharing = call.core.registry.sharing_cache_with(&call.resource);
        let decoders = sharing.into_iter().map(|resource| Encoder::new(resource, Representation::JSON)).collect();
        Ok(Self { labels, fields, decoders, name, namespace })
    }

    pub fn is_everything(&self) -> bool {
        self.name.is_none() && self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        if self.name.as_deref().is_some_and(|name| name != entry.name()) {
            return false;
        }
        if !self.labels.is_everything() && !self.labels.matches(|key| entry.label(key)) {
            return false;
        }
        self.fields.is_everything() || self.fields.matches(|label| self.field(entry, label))
    }

    fn field<'a>(&self, entry: &'a Entry, label: &str) -> &'a str {
        match label {
            "metadata.name" => entry.name(),
            "metadata.namespace" => entry.namespace(),
            _ => {
                let fields =
                    entry.fields.get_or_init(|| self.decoders.iter().flat_map(|d| read_fields(d, entry)).collect());
                fields.iter().find(|(known, _)| *known == label).map_or("", |(_, value)| value.as_str())
            }
        }
    }
}

/// All selectable fields of an entry in one served version: the strategy's computed ones and the table's.
fn read_fields(decoder: &Encoder, entry: &Entry) -> Vec<(&'static str, String)> {
    let resource = &decoder.resource;
    let value = match decoder.served_value(entry) {
        Ok(value) => value,
        Err(error) => {
            tracing::error!(%error, "an object cannot be decoded for a field selector; its fields are empty");
            return Vec::new();
        }
    };
    let mut fields = resource.strategy.selectable_fields(&value);
    let Some(kind) = resource.kind else { return fields };
    for selectable in kind.selectable_fields {
        if !fields.iter().any(|(label, _)| *label == selectable.label) {
            let at_path = fields.iter().find(|(label, _)| *label == selectable.path).map(|(_, v)| v.clone());
            let text = at_path.unwrap_or_else(|| field_value(&value, kind.message, selectable.path));
            fields.push((selectable.label, text));
        }
    }
    fields
}

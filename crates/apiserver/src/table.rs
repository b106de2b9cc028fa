//! `meta.k8s.io` Tables: what `kubectl get` prints.
//!
//! Input: entries and their encoder. Output: a Table value. The cells of a kind come from `semantics::columns`; a kind without
//! columns of its own has its name and its creation time.

use serde_json::{Value, json};

use crate::cache::Entry;
use crate::encode::{Encoder, ListMeta};
use crate::error::ApiError;
use crate::request::Query;

/// What a row carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    Metadata = 0,
    Object = 1,
    Nothing = 2,
}

pub fn parse_include(query: &Query) -> Result<Include, ApiError> {
    match query.get("includeObject").unwrap_or_default() {
        "" | "Metadata" => Ok(Include::Metadata),
        "Object" => Ok(Include::Object),
        "None" => Ok(Include::Nothing),
        other => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// `columns`: with column definitions (watches send them once).
pub fn table(encoder: &Encoder, entries: &[&Entry], meta: &ListMeta, columns: bool) -> Result<Value, ApiError> {
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let value = encoder.served_value(entry)?;
        let cells = json!([entry.name(), value["metadata"]["creationTimestamp"]]);
        let mut row = json!({"cells": cells});
        match encoder.include {
            Include::Nothing => {}
            Include::Object => row["object"] = value,
            Include::Metadata => {
                row["object"] = json!({
                    "kind": "PartialObjectMetadata",
                    "apiVersion": encoder.representation.meta_version(),
                    "metadata": value["metadata"]
                });
            }
        }
        rows.push(row);
    }
    let mut list = json!({});
    if meta.revision > 0 {
        list["resourceVersion"] = Value::from(meta.revision.to_string());
    }
    if !meta.resume.is_empty() {
        list["continue"] = Value::from(meta.resume.as_str());
    }
    if let Some(remaining) = meta.remaining {
        list["remainingItemCount"] = Value::from(remaining);
    }
    Ok(json!({
        "kind": "Table",
        "apiVersion": encoder.representation.meta_version(),
        "metadata": list,
        "columnDefinitions": if columns { definitions() } else { Value::Null },
        "rows": rows
    }))
}

fn definitions() -> Value {
    let name = "Name must be unique within a namespace.";
    let age = "When the object was created.";
    json!([
        {"name": "Name", "type": "string", "format": "name", "description": name, "priority": 0},
        {"name": "Created At", "type": "date", "format": "", "description": age, "priority": 0}
    ])
}

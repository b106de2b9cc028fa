//! `meta.k8s.io` Tables: what `kubectl get` prints.
//!
//! Input: entries and their encoder. Output: a Table value. The cells of a kind come from `semantics::columns`; a kind without
//! columns of its own has its name and its creation time.

use semantics::columns::Column;
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

/// `columns`: with column definitions (watches send them once). Errors: 406 for kinds that have no table.
pub fn table(encoder: &Encoder, entries: &[&Entry], meta: &ListMeta, columns: bool) -> Result<Value, ApiError> {
    let kind = encoder.resource.kind;
    let defined = match kind {
        Some(kind) => semantics::columns::columns(kind)
            .ok_or_else(|| ApiError::new(406, "NotAcceptable", semantics::columns::no_table(kind)))?,
        None => PLAIN,
    };
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let value = encoder.served_value(entry)?;
        let mut row = match kind {
            Some(kind) => {
                let made = semantics::columns::row(kind, &value, encoder.now);
                let mut row = json!({"cells": made.cells});
                if !made.conditions.is_empty() {
                    row["conditions"] = Value::Array(made.conditions);
                }
                row
            }
            None => json!({"cells": [entry.name(), value["metadata"]["creationTimestamp"]]}),
        };
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
        "columnDefinitions": if columns { semantics::columns::definitions(defined) } else { Value::Null },
        "rows": rows
    }))
}

/// Custom resources without columns of their own.
const PLAIN: &[Column] = &[
    Column { name: "Name", ty: "string", format: "name", priority: 0 },
    Column { name: "Created At", ty: "date", format: "", priority: 0 },
];

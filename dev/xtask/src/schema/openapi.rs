//! Reads the published OpenAPI documents: `swagger.json` and `v3/*.json` -> flags of messages and fields.
//! Takes list types and keys, map types, patch strategies, required fields, defaults and which definitions are kinds.
//! Descriptions are never read.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// Facts by definition name.
pub struct Facts {
    definitions: BTreeMap<String, Value>,
    /// Definition -> field -> published default, of scalars.
    defaults: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Facts {
    /// Reads `dir/swagger.json` and `dir/v3/*.json`.
    pub fn read(dir: &Path) -> Result<Facts, String> {
        let swagger = read_json(&dir.join("swagger.json"))?;
        let definitions = swagger["definitions"].as_object().cloned().unwrap_or_default().into_iter().collect();
        let mut defaults = BTreeMap::new();
        let v3 = dir.join("v3");
        let entries = std::fs::read_dir(&v3).map_err(|e| format!("read {}: {e}", v3.display()))?;
        let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            collect_defaults(&read_json(&path)?, &mut defaults);
        }
        Ok(Facts { definitions, defaults })
    }

    /// Flags of a message line: ` kind` (it has a group-version-kind of its own), ` atomic` (map type).
    pub fn message_flags(&self, definition: &str) -> String {
        let mut flags = String::new();
        let Some(schema) = self.definitions.get(definition) else { return flags };
        if schema.get("x-kubernetes-group-version-kind").is_some() {
            flags.push_str(" kind");
        }
        if schema["x-kubernetes-map-type"] == "atomic" {
            flags.push_str(" atomic");
        }
        flags
    }

    /// Whether a definition of this name is published (structs that are only ever inlined are not).
    pub fn has(&self, definition: &str) -> bool {
        self.definitions.contains_key(definition)
    }

    /// Flags of a field line, each with a leading space. A zero default is a fact only for a field that may be absent
    /// (`optional`): others are published with their zero value anyway.
    pub fn field_flags(&self, definition: &str, field: &str, optional: bool) -> String {
        let mut flags = String::new();
        if let Some(default) = self.defaults.get(definition).and_then(|d| d.get(field))
            && (optional || !is_zero(default))
        {
            flags.push_str(&format!(" default:{default}"));
        }
        let Some(schema) = self.definitions.get(definition) else { return flags };
        if schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == field)) {
            flags.push_str(" required");
        }
        let property = &schema["properties"][field];
        if let Some(map_type) = property["x-kubernetes-map-type"].as_str() {
            flags.push_str(&format!(" {map_type}"));
        }
        match property["x-kubernetes-list-type"].as_str() {
            Some("map") => {
                let keys: Vec<&str> = strings(&property["x-kubernetes-list-map-keys"]);
                flags.push_str(&format!(" map:{}", keys.join(",")));
            }
            Some(list_type) => flags.push_str(&format!(" {list_type}")),
            None => {}
        }
        if let Some(strategy) = property["x-kubernetes-patch-strategy"].as_str() {
            flags.push_str(&format!(" patch:{strategy}"));
        }
        if let Some(key) = property["x-kubernetes-patch-merge-key"].as_str() {
            flags.push_str(&format!(" key:{key}"));
        }
        flags
    }
}

fn collect_defaults(document: &Value, defaults: &mut BTreeMap<String, BTreeMap<String, Value>>) {
    let Some(schemas) = document["components"]["schemas"].as_object() else { return };
    for (definition, schema) in schemas {
        let Some(properties) = schema["properties"].as_object() else { continue };
        for (field, property) in properties {
            match property.get("default") {
                Some(Value::Object(_) | Value::Null) | None => {}
                Some(default) => {
                    defaults.entry(definition.clone()).or_default().insert(field.clone(), default.clone());
                }
            }
        }
    }
}

fn is_zero(default: &Value) -> bool {
    default == "" || default == false || default.as_f64() == Some(0.0)
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|a| a.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn read_json(path: &Path) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("parse {}: {e}", path.display()))
}

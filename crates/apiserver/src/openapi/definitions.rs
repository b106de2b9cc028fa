//! Schema definitions: messages of the schema table -> OpenAPI schemas, with everything that they refer to.

use std::collections::BTreeSet;

use api::kinds::Kind;
use api::schema::{Field, ListType, Message, MessageRef, Repeat, Type};
use serde_json::{Map, Value, json};

use super::Dialect;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// The definitions of all messages reachable from `roots`.
pub(super) fn closure(roots: &[MessageRef], kinds: &[Kind], dialect: Dialect) -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<MessageRef> = roots.to_vec();
    while let Some(message) = open.pop() {
        let name = message.definition();
        if !seen.insert(name.clone()) {
            continue;
        }
        schemas.insert(name, definition(message.get(), kinds, dialect));
        open.extend(message.get().json_fields().filter_map(|entry| entry.field.message()));
        let unions = |ty| matches!(ty, Type::SchemaOrArray | Type::SchemaOrBool | Type::SchemaOrStrings);
        if message.get().json_fields().any(|entry| unions(entry.field.ty)) {
            open.extend(api::schema::message("apiextensions/v1.JSONSchemaProps"));
        }
    }
    schemas.extend(special_definitions(dialect));
    if !seen.iter().any(|name| name.starts_with(EXTENSIONS)) {
        schemas.retain(|name, _| !name.starts_with(EXTENSIONS));
    }
    schemas
}

/// Types whose JSON form is a scalar or free: they are no messages of the table.
fn special_definitions(dialect: Dialect) -> Map<String, Value> {
    let v3 = dialect == Dialect::V3;
    let time = json!({"type": "string", "format": "date-time"});
    let quantity =
        if v3 { json!({"oneOf": [{"type": "string"}, {"type": "number"}]}) } else { json!({"type": "string"}) };
    let int_or_string = if v3 {
        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
    } else {
        json!({"format": "int-or-string", "type": "string"})
    };
    let object = json!({"type": "object"});
    let mut map = Map::new();
    let mut put = |name: String, schema: Value| map.insert(name, schema);
    put(format!("{META}.Time"), time.clone());
    put(format!("{META}.MicroTime"), time);
    put(format!("{META}.FieldsV1"), object.clone());
    put(format!("{META}.Patch"), object.clone());
    put("io.k8s.apimachinery.pkg.runtime.RawExtension".to_owned(), object);
    put("io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(), quantity);
    put("io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned(), int_or_string);
    for name in ["JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"] {
        put(format!("{EXTENSIONS}.{name}"), json!({}));
    }
    map
}

fn definition(message: &'static Message, kinds: &[Kind], dialect: Dialect) -> Value {
    let mut schema = json!({"type": "object"});
    let mut properties = Map::new();
    let mut required = Vec::new();
    if message.type_meta {
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
    }
    for entry in message.json_fields() {
        properties.insert(entry.field.name.to_owned(), property(entry.field, dialect));
        if entry.field.required {
            required.push(entry.field.name);
        }
    }
    if !properties.is_empty() {
        schema["properties"] = Value::Object(properties);
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if message.atomic {
        schema["x-kubernetes-map-type"] = Value::from("atomic");
    }
    if message.is_kind {
        schema["x-kubernetes-group-version-kind"] = group_version_kinds(message, kinds);
    }
    schema
}

/// A kind's own group-version; options and events of watches belong to every group-version.
fn group_version_kinds(message: &Message, kinds: &[Kind]) -> Value {
    let entry = |group: &str, version: &str| json!({"group": group, "version": version, "kind": message.name});
    match (message.package.group, message.name) {
        (Some(group), _) => json!([entry(group, message.package.version)]),
        (None, "DeleteOptions" | "WatchEvent") => {
            let versions: BTreeSet<(&str, &str)> = kinds.iter().map(|kind| (kind.group, kind.version)).collect();
            versions.into_iter().map(|(group, version)| entry(group, version)).collect()
        }
        (None, _) => json!([entry("", "v1")]),
    }
}

fn property(field: &Field, dialect: Dialect) -> Value {
    let mut schema = match field.repeat {
        Repeat::One => value(field, dialect),
        Repeat::List => json!({"type": "array", "items": element(field, dialect)}),
        Repeat::Map => json!({"type": "object", "additionalProperties": element(field, dialect)}),
    };
    if dialect == Dialect::V3
        && let Some(default) = field.default.and_then(|text| serde_json::from_str::<Value>(text).ok())
    {
        schema["default"] = default;
    }
    match &field.list_type {
        ListType::Unset => {}
        ListType::Atomic => schema["x-kubernetes-list-type"] = Value::from("atomic"),
        ListType::Set => schema["x-kubernetes-list-type"] = Value::from("set"),
        ListType::Map(keys) => {
            schema["x-kubernetes-list-type"] = Value::from("map");
            schema["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
    for (set, map_type) in [(field.map_atomic, "atomic"), (field.map_granular, "granular")] {
        if set {
            schema["x-kubernetes-map-type"] = Value::from(map_type);
        }
    }
    let strategy: Vec<&str> = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")]
        .into_iter()
        .filter_map(|(set, word)| set.then_some(word))
        .collect();
    if !strategy.is_empty() {
        schema["x-kubernetes-patch-strategy"] = Value::from(strategy.join(","));
    }
    if let Some(key) = field.merge_key {
        schema["x-kubernetes-patch-merge-key"] = Value::from(key);
    }
    schema
}

/// The schema of a field's own value. v3 cannot put anything beside a reference, so it wraps it, and it gives values that
/// are always present their zero value as default.
fn value(field: &Field, dialect: Dialect) -> Value {
    let mut schema = element(field, dialect);
    if dialect == Dialect::V2 {
        return schema;
    }
    if schema.get("$ref").is_some() {
        schema = json!({"allOf": [schema]});
    }
    let zero = match field.ty {
        // A struct value is there even under `omitempty`.
        Type::Message(_) if !field.pointer => Some(json!({})),
        _ if field.pointer || field.omit_empty => None,
        Type::String => Some(json!("")),
        Type::Bool => Some(json!(false)),
        Type::Int32 | Type::Int64 | Type::Double => Some(json!(0)),
        _ => None,
    };
    if let Some(zero) = zero {
        schema["default"] = zero;
    }
    schema
}

/// The schema of the field's type: an element of a list, a value of a map.
fn element(field: &Field, dialect: Dialect) -> Value {
    let refer = |definition: &str| dialect.reference(definition);
    match field.ty {
        Type::String => json!({"type": "string"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Strings => json!({"type": "array", "items": {"type": "string"}}),
        Type::Message(message) => refer(&message.definition()),
        Type::Time => refer(&format!("{META}.Time")),
        Type::MicroTime => refer(&format!("{META}.MicroTime")),
        Type::Fields => refer(&format!("{META}.FieldsV1")),
        Type::Quantity => refer("io.k8s.apimachinery.pkg.api.resource.Quantity"),
        Type::IntOrString => refer("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
        Type::Raw => refer("io.k8s.apimachinery.pkg.runtime.RawExtension"),
        Type::Json => refer(&format!("{EXTENSIONS}.JSON")),
        Type::SchemaOrArray => refer(&format!("{EXTENSIONS}.JSONSchemaPropsOrArray")),
        Type::SchemaOrBool => refer(&format!("{EXTENSIONS}.JSONSchemaPropsOrBool")),
        Type::SchemaOrStrings => refer(&format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray")),
    }
}

//! Checks over all kinds of the table: no field gets lost on the way through a kind's struct, and defaulting is idempotent.

use api::schema::{Field, MessageRef, Repeat, Type};
use serde_json::{Map, Value, json};

use super::strategy;
use crate::apply::{Configuration, Writer, apply};

/// Deep enough for a pod template in a job template in a cron job.
const DEPTH_MAX: usize = 14;

/// A value of the message with every field set, down to a depth and not twice into one message.
fn filled(message: MessageRef, above: &[MessageRef]) -> Value {
    let mut map = Map::new();
    if above.len() < DEPTH_MAX && !above.contains(&message) {
        let above: Vec<MessageRef> = above.iter().copied().chain([message]).collect();
        for entry in message.get().json_fields() {
            let value = filled_field(entry.field, &above);
            if !value.as_object().is_some_and(Map::is_empty) {
                map.insert(entry.field.name.to_owned(), value);
            }
        }
    }
    Value::Object(map)
}

fn filled_field(field: &'static Field, above: &[MessageRef]) -> Value {
    let value = match field.ty {
        Type::String => json!("x"),
        Type::Bool => json!(true),
        Type::Int32 | Type::Int64 => json!(7),
        Type::Double => json!(1.5),
        Type::Bytes => json!("AA=="),
        Type::Time => json!("2026-01-01T00:00:00Z"),
        Type::MicroTime => json!("2026-01-01T00:00:00.000000Z"),
        Type::Quantity => json!("1"),
        Type::IntOrString => json!(1),
        Type::Raw | Type::Fields | Type::Json => json!({"a": 1}),
        Type::Strings => json!(["x"]),
        Type::Message(message) => filled(message, above),
        Type::SchemaOrArray | Type::SchemaOrBool | Type::SchemaOrStrings => return json!({}),
    };
    match field.repeat {
        Repeat::One => value,
        Repeat::List => json!([value]),
        Repeat::Map => json!({"k": value}),
    }
}

/// Paths of `before` that `after` does not have with the same value.
fn lost(before: &Value, after: &Value, path: &str, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a {
                lost(value, b.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for (index, value) in a.iter().enumerate() {
                lost(value, b.get(index).unwrap_or(&Value::Null), &format!("{path}[{index}]"), found);
            }
        }
        (Value::Object(a), Value::Null) if a.is_empty() => {}
        (a, b) if a == b => {}
        _ => found.push(path.to_owned()),
    }
}

/// Fields of pods whose features are off.
const DISABLED: [&str; 7] =
    [".user", ".defaultUser", "emptyDir.mode", "grpc.mode", ".stopSignal", ".schedulingGroup", ".evictionResponders"];

/// What defaulting changes on purpose.
fn is_expected(kind: &str, path: &str) -> bool {
    let of_pod = path.starts_with(".spec") || path.starts_with(".template");
    let disabled = of_pod && DISABLED.iter().any(|field| path.ends_with(field));
    disabled || kind == "Secret" && (path.starts_with(".stringData") || path == ".data.k")
}

#[test]
fn no_field_is_lost_in_a_struct() {
    let mut all = Vec::new();
    for kind in api::kinds::all().iter().filter(|kind| kind.is_stored()) {
        let mut object = filled(kind.message, &[]);
        object["apiVersion"] = json!(kind.api_version);
        object["kind"] = json!(kind.kind);
        let mut after = object.clone();
        if let Err(problem) = strategy(kind).default(&mut after) {
            all.push(format!("{} {}: {problem}", kind.api_version, kind.kind));
            continue;
        }
        let mut found = Vec::new();
        lost(&object, &after, "", &mut found);
        found.retain(|path| !is_expected(kind.kind, path));
        all.extend(found.into_iter().map(|path| format!("{} {}{path}", kind.api_version, kind.kind)));
        let mut again = after.clone();
        strategy(kind).default(&mut again).unwrap();
        assert_eq!(again, after, "{} is not idempotent", kind.kind);
    }
    assert!(all.is_empty(), "{} lost:\n{}", all.len(), all.join("\n"));
}

#[test]
fn an_empty_object_of_every_kind_can_be_defaulted() {
    for kind in api::kinds::all().iter().filter(|kind| kind.is_stored()) {
        let mut object = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}});
        strategy(kind).default(&mut object).unwrap();
        let once = object.clone();
        strategy(kind).default(&mut object).unwrap();
        assert_eq!(object, once, "{}", kind.kind);
    }
}

fn whole(config: &Value) -> Configuration<'_> {
    Configuration { sent: config, decoded: config }
}

#[test]
fn every_kind_can_be_applied_again_and_given_up() {
    for kind in api::kinds::all().iter().filter(|kind| kind.is_stored()) {
        let writer = Writer {
            manager: "m",
            api_version: kind.api_version,
            subresource: "",
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            message: Some(kind.message),
            reset: Vec::new(),
        };
        let identity = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}});
        let mut config = filled(kind.message, &[]);
        config["apiVersion"] = identity["apiVersion"].clone();
        config["kind"] = identity["kind"].clone();
        config["metadata"] = json!({"name": "x", "labels": {"a": "b"}});
        let once = apply(&writer, None, whole(&config), false).unwrap();
        assert_eq!(apply(&writer, Some(&once), whole(&config), false).unwrap(), once, "{}", kind.kind);
        let given_up = apply(&writer, Some(&once), whole(&identity), false).unwrap();
        assert_eq!(given_up, identity, "{}", kind.kind);
    }
}

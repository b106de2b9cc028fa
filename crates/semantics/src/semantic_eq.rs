//! Equality as the API means it: two values -> whether a user would call them the same.
//!
//! Absent, null, an empty list and an empty map are one thing, at every depth. Quantities are compared as texts: they
//! are canonical by the time values are compared.

use serde_json::{Map, Value};

/// True if `a` and `b` say the same.
pub fn semantic_eq(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => maps_eq(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| semantic_eq(a, b)),
        _ => (is_empty(a) && is_empty(b)) || a == b,
    }
}

fn maps_eq(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.iter().all(|(key, value)| match b.get(key) {
        Some(other) => semantic_eq(value, other),
        None => is_empty(value),
    }) && b.iter().all(|(key, value)| a.contains_key(key) || is_empty(value))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(a: Value, b: Value, expect: bool) {
        assert_eq!(semantic_eq(&a, &b), expect, "{a} {b}");
        assert_eq!(semantic_eq(&b, &a), expect, "{b} {a}");
    }

    #[test]
    fn empty_is_absent() {
        check(json!({"a": []}), json!({}), true);
        check(json!({"a": {"b": null}}), json!(null), true);
        check(json!({"a": 0}), json!({}), false);
        check(json!({"a": [{}]}), json!({"a": []}), false);
        check(json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": {}}}), true);
    }
}

//! Whether a configuration to be applied conforms to the schema: value -> what is wrong with it, place by place.
//!
//! Server-side apply looks at a configuration before it is decoded, so unknown fields are errors here whatever the field
//! validation says, and the texts are those of structured merge.

use std::collections::BTreeSet;

use api::schema::{Field, ListType, Message, MessageRef, Repeat, Type};
use serde_json::{Map, Value};

use super::field_set::{FieldSet, field_element};
use super::shape::of_field;
use crate::printed::printed;

/// More complaints are not collected.
const ERRORS_MAX: usize = 100;

/// All complaints, each `PLACE: what`.
pub(super) fn check(value: &Value, message: MessageRef) -> Vec<String> {
    let mut checker = Checker::default();
    checker.message(value, message.get());
    checker.errors
}

#[derive(Default)]
struct Checker {
    /// As in `FieldsV1`.
    path: Vec<String>,
    errors: Vec<String>,
}

impl Checker {
    fn complain(&mut self, what: &str) {
        if self.errors.len() < ERRORS_MAX {
            let mut set = FieldSet::default();
            set.insert(&self.path);
            self.errors.push(format!("{}: {what}", set.printed_paths().concat()));
        }
    }

    fn at(&mut self, element: String, check: impl FnOnce(&mut Self)) {
        self.path.push(element);
        check(self);
        self.path.pop();
    }

    fn message(&mut self, value: &Value, message: &'static Message) {
        let Some(fields) = self.map(value) else { return };
        for (name, value) in fields {
            if message.type_meta && matches!(name.as_str(), "apiVersion" | "kind") {
                continue;
            }
            self.at(field_element(name), |checker| match message.json_field(name) {
                Some(field) => checker.field(value, field),
                None => checker.complain("field not declared in schema"),
            });
        }
    }

    /// `null` is allowed everywhere.
    fn map<'v>(&mut self, value: &'v Value) -> Option<&'v Map<String, Value>> {
        if value.as_object().is_none() && !value.is_null() {
            self.complain(&format!("expected map, got &{{{}}}", printed(value)));
        }
        value.as_object()
    }

    fn field(&mut self, value: &Value, field: &'static Field) {
        match field.repeat {
            Repeat::One => self.one(value, field),
            Repeat::Map => {
                for (key, value) in self.map(value).into_iter().flatten() {
                    self.at(field_element(key), |checker| checker.one(value, field));
                }
            }
            Repeat::List => self.list(value, field),
        }
    }

    fn list(&mut self, value: &Value, field: &'static Field) {
        if value.is_null() {
            return;
        }
        let Some(items) = value.as_array() else {
            self.complain(&format!("expected list, got &{{{}}}", printed(value)));
            return;
        };
        let shape = of_field(field);
        let unique = matches!(field.list_type, ListType::Map(_) | ListType::Set);
        let mut seen = BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            let element = shape.path_element(item).filter(|_| unique);
            if let Some(element) = element.as_ref().filter(|element| !seen.insert((*element).clone())) {
                let mut key = FieldSet::default();
                key.insert(std::slice::from_ref(element));
                self.complain(&format!("duplicate entries for key {}", key.printed_paths().concat()));
            }
            self.at(element.unwrap_or_else(|| format!("i:{at}")), |checker| checker.one(item, field));
        }
    }

    /// One value of the field's type.
    fn one(&mut self, value: &Value, field: &'static Field) {
        let scalar = !value.is_object() && !value.is_array();
        match field.ty {
            _ if value.is_null() => {}
            Type::Message(message) => self.message(value, message.get()),
            Type::String | Type::Bytes if !value.is_string() => {
                self.complain(&format!("expected string, got &value.valueUnstructured{{Value:{}}}", printed(value)));
            }
            Type::Int32 | Type::Int64 | Type::Double if !value.is_number() => {
                self.complain(&format!("expected numeric (int or float), got {}", go_type(value)));
            }
            Type::Bool if !value.is_boolean() => {
                self.complain(&format!("expected boolean, got &{{{}}}", printed(value)));
            }
            Type::Quantity | Type::IntOrString | Type::Time | Type::MicroTime if !scalar => {
                self.complain(&format!("expected any scalar, got &{{{}}}", printed(value)));
            }
            _ => {}
        }
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null | Value::Number(_) => "int64",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_pod(spec: Value, expect: &[&str]) {
        let pod = api::schema::by_kind("", "v1", "Pod").unwrap();
        assert_eq!(check(&json!({"apiVersion": "v1", "kind": "Pod", "spec": spec}), pod), expect);
    }

    #[test]
    fn what_conforms() {
        check_pod(
            json!({
                "containers": [{"name": "a", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": "x"}}}],
                "nodeSelector": {"a": "b"}, "securityContext": null, "tolerations": []
            }),
            &[],
        );
    }

    #[test]
    fn what_does_not() {
        let containers = ".spec.containers";
        check_pod(json!({"foo": 1}), &[".spec.foo: field not declared in schema"]);
        check_pod(
            json!({"nodeSelector": {"a": 1}}),
            &[".spec.nodeSelector.a: expected string, got &value.valueUnstructured{Value:1}"],
        );
        check_pod(json!({"nodeSelector": [1]}), &[".spec.nodeSelector: expected map, got &{[1]}"]);
        check_pod(json!({"containers": "x"}), &[&format!("{containers}: expected list, got &{{x}}")]);
        check_pod(json!({"priority": "x"}), &[".spec.priority: expected numeric (int or float), got string"]);
        check_pod(json!({"hostNetwork": "x"}), &[".spec.hostNetwork: expected boolean, got &{x}"]);
        check_pod(
            json!({"containers": [{"name": "a"}, {"name": "a", "bar": 1}]}),
            &[
                &format!("{containers}: duplicate entries for key [name=\"a\"]"),
                &format!("{containers}[name=\"a\"].bar: field not declared in schema"),
            ],
        );
    }
}

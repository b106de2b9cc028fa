//! Label and field selectors: what `?labelSelector=` and `?fieldSelector=` say, and whether an object matches.
//!
//! Text or the `LabelSelector` struct -> requirements -> a yes or no. Error texts are upstream's. Field selectors know
//! labels only; where a label's value lies in an object is the kinds table's word (see [`field_value`]).

mod fields;
mod label_key;
mod label_parse;
mod labels;

use serde_json::Value;

use crate::schema::{MessageRef, Repeat, Type};

pub use fields::{FieldRequirement, FieldSelector};
pub use label_key::{label_key_problems, label_value_problems};
pub use labels::{LabelSelector, Operator, Requirement, SelectorError};

/// The type of the scalar at a dotted JSON path; `None` when the path leads nowhere.
pub fn field_type(message: MessageRef, path: &str) -> Option<Type> {
    let mut message = message;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let field = message.json_field(part)?;
        match (field.repeat, field.ty) {
            (Repeat::One, Type::Message(inner)) if parts.peek().is_some() => message = inner,
            (Repeat::One, ty) if parts.peek().is_none() => return Some(ty),
            _ => return None,
        }
    }
    None
}

/// The value at a dotted JSON path as field selectors compare it: absent is `""`, `false` or `0` by type.
pub fn field_value(object: &Value, message: MessageRef, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => match field_type(message, path) {
            Some(Type::Bool) => "false".to_owned(),
            Some(Type::Int32 | Type::Int64) => "0".to_owned(),
            _ => String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn field_values_default_by_type() {
        let pod = crate::schema::message("core/v1.Pod").unwrap();
        let object = json!({"spec": {"nodeName": "a"}, "status": {}});
        assert_eq!(field_value(&object, pod, "spec.nodeName"), "a");
        assert_eq!(field_value(&object, pod, "spec.hostNetwork"), "false");
        assert_eq!(field_value(&object, pod, "status.phase"), "");
    }
}

//! `Value` -> protobuf along the schema, byte for byte what upstream's generated encoders write.
//!
//! Fields go in tag order, map keys sorted; a Go value field is written even when it is zero or absent, a pointer, list
//! or map only when it is set. Written back to front (see [`super::wire::BackWriter`]). Unknown JSON fields are ignored:
//! strict decoding has reported them before.

use serde_json::{Map, Value};

use super::time;
use super::wire::BackWriter;
use crate::quantity::Quantity;
use crate::schema::{Field, Message, MessageRef, Repeat, Type};

/// A value that does not fit its field: where, and what the field takes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{path}: not a valid {expected}")]
pub struct EncodeError {
    /// Such as `spec.containers[0].name`.
    pub path: String,
    pub expected: &'static str,
}

impl EncodeError {
    fn new(expected: &'static str) -> Self {
        EncodeError { path: String::new(), expected }
    }

    fn within(mut self, outer: impl std::fmt::Display) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{outer}{separator}{}", self.path);
        self
    }
}

/// Encodes an object as a bare message (no envelope; `kind` and `apiVersion` are not part of it).
pub fn encode_proto(value: &Value, message: MessageRef) -> Result<Vec<u8>, EncodeError> {
    let mut out = BackWriter::default();
    encode_message(object(value)?, message.get(), &mut out)?;
    Ok(out.finish())
}

fn object(value: &Value) -> Result<Option<&Map<String, Value>>, EncodeError> {
    match value {
        Value::Object(map) => Ok(Some(map)),
        Value::Null => Ok(None),
        _ => Err(EncodeError::new("object")),
    }
}

fn encode_message(
    map: Option<&Map<String, Value>>,
    message: &'static Message,
    out: &mut BackWriter,
) -> Result<(), EncodeError> {
    for field in message.fields_by_tag().rev() {
        if field.is_inline() {
            if let Type::Message(inner) = field.ty {
                let mark = out.mark();
                encode_message(map, inner.get(), out)?;
                out.close(field.tag, mark);
            }
            continue;
        }
        let value = map.and_then(|map| map.get(field.name)).filter(|value| !value.is_null());
        encode_field(value, field, out).map_err(|error| error.within(field.name))?;
    }
    Ok(())
}

fn encode_field(value: Option<&Value>, field: &'static Field, out: &mut BackWriter) -> Result<(), EncodeError> {
    match (field.repeat, value) {
        (Repeat::One, Some(value)) => encode_value(value, field.ty, field.tag, out),
        (Repeat::One, None) if field.pointer || matches!(field.ty, Type::Bytes | Type::Strings) => Ok(()),
        (Repeat::One, None) => encode_value(&Value::Null, field.ty, field.tag, out),
        (_, None) => Ok(()),
        (Repeat::List, Some(value)) => {
            let list = value.as_array().ok_or(EncodeError::new("list"))?;
            for (at, element) in list.iter().enumerate().rev() {
                encode_value(element, field.ty, field.tag, out).map_err(|e| e.within(format_args!("[{at}]")))?;
            }
            Ok(())
        }
        (Repeat::Map, Some(value)) => {
            let map = value.as_object().ok_or(EncodeError::new("map"))?;
            for (key, element) in map.iter().rev() {
                let mark = out.mark();
                encode_value(element, field.ty, 2, out).map_err(|e| e.within(key))?;
                out.bytes_field(1, key.as_bytes());
                out.close(field.tag, mark);
            }
            Ok(())
        }
    }
}

/// One value under `tag`; `null` is the type's zero value.
fn encode_value(value: &Value, ty: Type, tag: u32, out: &mut BackWriter) -> Result<(), EncodeError> {
    match ty {
        Type::String => out.bytes_field(tag, string(value)?.as_bytes()),
        Type::Bytes => {
            let bytes = super::decode_base64(string(value)?).map_err(|_| EncodeError::new("base64 string"))?;
            out.bytes_field(tag, &bytes);
        }
        Type::Bool => out.varint_field(tag, u64::from(bool(value)?)),
        Type::Int32 => out.varint_field(tag, i64::from(int32(value)?) as u64),
        Type::Int64 => out.varint_field(tag, int64(value)? as u64),
        Type::Double => {
            let number = if value.is_null() { 0.0 } else { value.as_f64().ok_or(EncodeError::new("number"))? };
            out.raw(&number.to_le_bytes());
            out.key(tag, 1);
        }
        _ => {
            let mark = out.mark();
            encode_content(value, ty, out)?;
            out.close(tag, mark);
        }
    }
    Ok(())
}

/// The content of a value that protobuf holds in a message.
fn encode_content(value: &Value, ty: Type, out: &mut BackWriter) -> Result<(), EncodeError> {
    match ty {
        Type::Message(message) => encode_message(object(value)?, message.get(), out)?,
        Type::Time | Type::MicroTime => encode_time(value, ty, out)?,
        Type::Quantity => out.bytes_field(1, quantity(value)?.to_string().as_bytes()),
        Type::IntOrString => match value {
            Value::String(text) => encode_int_or_string(1, 0, text, out),
            _ => encode_int_or_string(0, int32(value)?, "", out),
        },
        Type::Raw | Type::Fields | Type::Json => {
            if !value.is_null() {
                out.bytes_field(1, value.to_string().as_bytes());
            }
        }
        Type::Strings => encode_strings(value, 1, out)?,
        _ => encode_schema_or(value, ty, out)?,
    }
    Ok(())
}

fn encode_time(value: &Value, ty: Type, out: &mut BackWriter) -> Result<(), EncodeError> {
    let text = string(value)?;
    if text.is_empty() {
        return Ok(());
    }
    let (seconds, nanos) = time::parse(text).ok_or(EncodeError::new("RFC 3339 time"))?;
    if time::is_zero(seconds, nanos) {
        return Ok(());
    }
    let nanos = if ty == Type::MicroTime { nanos / 1000 * 1000 } else { 0 };
    out.varint_field(2, nanos as u64);
    out.varint_field(1, seconds as u64);
    Ok(())
}

fn encode_int_or_string(kind: u64, int: i32, text: &str, out: &mut BackWriter) {
    out.bytes_field(3, text.as_bytes());
    out.varint_field(2, i64::from(int) as u64);
    out.varint_field(1, kind);
}

fn encode_strings(value: &Value, tag: u32, out: &mut BackWriter) -> Result<(), EncodeError> {
    if value.is_null() {
        return Ok(());
    }
    for element in value.as_array().ok_or(EncodeError::new("list of strings"))?.iter().rev() {
        out.bytes_field(tag, string(element)?.as_bytes());
    }
    Ok(())
}

/// The unions of JSON schema: a schema, or the other alternative.
fn encode_schema_or(value: &Value, ty: Type, out: &mut BackWriter) -> Result<(), EncodeError> {
    let Some(schema) = crate::schema::message("apiextensions/v1.JSONSchemaProps") else { return Ok(()) };
    let schema_tag = if ty == Type::SchemaOrBool { 2 } else { 1 };
    if let Value::Object(map) = value {
        let mark = out.mark();
        encode_message(Some(map), schema.get(), out)?;
        out.close(schema_tag, mark);
    }
    match (ty, value) {
        // An object allows what its schema allows.
        (Type::SchemaOrBool, Value::Object(_)) => out.varint_field(1, 1),
        (Type::SchemaOrBool, _) => out.varint_field(1, u64::from(bool(value)?)),
        (_, Value::Object(_) | Value::Null) => {}
        (Type::SchemaOrStrings, _) => encode_strings(value, 2, out)?,
        (_, Value::Array(list)) => {
            for element in list.iter().rev() {
                let mark = out.mark();
                encode_message(object(element)?, schema.get(), out)?;
                out.close(2, mark);
            }
        }
        _ => return Err(EncodeError::new("schema")),
    }
    Ok(())
}

fn string(value: &Value) -> Result<&str, EncodeError> {
    match value {
        Value::Null => Ok(""),
        _ => value.as_str().ok_or(EncodeError::new("string")),
    }
}

fn bool(value: &Value) -> Result<bool, EncodeError> {
    match value {
        Value::Null => Ok(false),
        _ => value.as_bool().ok_or(EncodeError::new("boolean")),
    }
}

fn int64(value: &Value) -> Result<i64, EncodeError> {
    match value {
        Value::Null => Ok(0),
        // A patch may have made a whole number of a float.
        Value::Number(number) => whole(number).ok_or(EncodeError::new("int64")),
        _ => Err(EncodeError::new("int64")),
    }
}

fn whole(number: &serde_json::Number) -> Option<i64> {
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
    number.as_i64().or(float.map(|float| float as i64))
}

fn int32(value: &Value) -> Result<i32, EncodeError> {
    i32::try_from(int64(value)?).map_err(|_| EncodeError::new("int32"))
}

fn quantity(value: &Value) -> Result<Quantity, EncodeError> {
    let parsed = match value {
        Value::Null => Ok(Quantity::default()),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => Quantity::parse(string(value)?),
    };
    parsed.map_err(|_| EncodeError::new("quantity"))
}

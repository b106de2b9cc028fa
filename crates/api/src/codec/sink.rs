//! The two receivers of a walk: JSON text and `serde_json::Value`.
//!
//! Both print the same document; a test of the codec compares them for every kind.

use serde_json::{Map, Number, Value};

use super::walk::Sink;

/// Appends compact JSON to a buffer.
pub(super) struct JsonText<'o> {
    pub(super) out: &'o mut Vec<u8>,
}

impl JsonText<'_> {
    /// A separator unless this is the first thing after an opening bracket.
    fn separate(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }
}

impl Sink for JsonText<'_> {
    fn begin_object(&mut self) {
        self.out.push(b'{');
    }
    fn key(&mut self, key: &str) {
        self.separate();
        put_string(self.out, key);
        self.out.push(b':');
    }
    fn end_object(&mut self) {
        self.out.push(b'}');
    }
    fn begin_array(&mut self) {
        self.out.push(b'[');
    }
    fn element(&mut self) {
        self.separate();
    }
    fn end_array(&mut self) {
        self.out.push(b']');
    }
    fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }
    fn bool(&mut self, value: bool) {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }
    fn int(&mut self, value: i64) {
        put_integer(self.out, value);
    }
    fn float(&mut self, value: f64) {
        self.out.extend_from_slice(Value::from(value).to_string().as_bytes());
    }
    fn string(&mut self, value: &str) {
        put_string(self.out, value);
    }
    fn json(&mut self, bytes: &[u8]) {
        match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) if std::str::from_utf8(bytes).is_ok() => self.out.extend_from_slice(bytes.trim_ascii()),
            _ => self.null(),
        }
    }
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Escapes what JSON requires, nothing more.
fn put_string(out: &mut Vec<u8>, value: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in value.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&value.as_bytes()[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&value.as_bytes()[plain..]);
    out.push(b'"');
}

/// Builds a `Value`.
#[derive(Default)]
pub(super) struct Tree {
    open: Vec<Open>,
    pub(super) root: Value,
}

enum Open {
    Object(Map<String, Value>, String),
    Array(Vec<Value>),
}

impl Tree {
    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            Some(Open::Object(map, key)) => {
                map.insert(std::mem::take(key), value);
            }
            Some(Open::Array(list)) => list.push(value),
            None => self.root = value,
        }
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some(Open::Object(map, _)) => self.put(Value::Object(map)),
            Some(Open::Array(list)) => self.put(Value::Array(list)),
            None => {}
        }
    }
}

impl Sink for Tree {
    fn begin_object(&mut self) {
        self.open.push(Open::Object(Map::new(), String::new()));
    }
    fn key(&mut self, key: &str) {
        if let Some(Open::Object(_, slot)) = self.open.last_mut() {
            key.clone_into(slot);
        }
    }
    fn end_object(&mut self) {
        self.close();
    }
    fn begin_array(&mut self) {
        self.open.push(Open::Array(Vec::new()));
    }
    fn element(&mut self) {}
    fn end_array(&mut self) {
        self.close();
    }
    fn null(&mut self) {
        self.put(Value::Null);
    }
    fn bool(&mut self, value: bool) {
        self.put(Value::Bool(value));
    }
    fn int(&mut self, value: i64) {
        self.put(Value::from(value));
    }
    fn float(&mut self, value: f64) {
        self.put(Number::from_f64(value).map_or(Value::Null, Value::Number));
    }
    fn string(&mut self, value: &str) {
        self.put(Value::String(value.to_owned()));
    }
    fn json(&mut self, bytes: &[u8]) {
        self.put(serde_json::from_slice(bytes).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_print_as_json() {
        for value in [0, 7, -1, 1234567890, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_integer(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
        let text = "a\"b\\c\n\u{1}é<>";
        let mut out = Vec::new();
        put_string(&mut out, text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}

//! Walks a protobuf message along the schema and tells a [`Sink`] the JSON that Go's encoder would print for it.
//!
//! Input: one or more fragments of a message (protobuf merges concatenated messages: a later scalar wins, lists append,
//! nested messages merge) -> calls on the sink in the order of the JSON form. No intermediate value is built.
//! Invariants: any bytes give either JSON or an error, never a panic; nesting is bounded; what is absent prints as Go
//! prints it (`omitempty`, pointers, `null` lists, `{}` struct values).

use super::wire::{Reader, Wire};
use super::{ProtoError, TypeMeta, time};
use crate::quantity::Quantity;
use crate::schema::{Field, Message, MessageRef, Repeat, Type};

/// Deeper nesting than any API type reaches, and shallow enough for the stack.
const DEPTH_MAX: usize = 100;

/// Receives a JSON document in order.
pub(super) trait Sink {
    fn begin_object(&mut self);
    fn key(&mut self, key: &str);
    fn end_object(&mut self);
    fn begin_array(&mut self);
    /// Comes before each element of an array.
    fn element(&mut self);
    fn end_array(&mut self);
    fn null(&mut self);
    fn bool(&mut self, value: bool);
    fn int(&mut self, value: i64);
    fn float(&mut self, value: f64);
    fn string(&mut self, value: &str);
    /// Bytes that are JSON already (or should be: what does not parse becomes `null`).
    fn json(&mut self, bytes: &[u8]);
}

/// Walks `fragments` as one message; `type_meta` is printed first when given.
pub(super) fn walk<S: Sink>(
    fragments: &[&[u8]],
    message: MessageRef,
    type_meta: Option<TypeMeta<'_>>,
    sink: &mut S,
) -> Result<(), ProtoError> {
    let mut walker = Walker { sink, occurrences: Vec::with_capacity(64), depth: 0 };
    walker.sink.begin_object();
    if let Some(type_meta) = type_meta {
        walker.named("kind", type_meta.kind);
        walker.named("apiVersion", type_meta.api_version);
    }
    walker.fields(fragments, message.get())?;
    walker.sink.end_object();
    Ok(())
}

struct Walker<'a, 's, S> {
    sink: &'s mut S,
    /// A stack: each message under way has its own range at the end, sorted by field position.
    occurrences: Vec<(u16, Wire<'a>)>,
    depth: usize,
}

impl<'a, S: Sink> Walker<'a, '_, S> {
    fn named(&mut self, key: &str, value: &str) {
        self.sink.key(key);
        self.sink.string(value);
    }

    fn message(&mut self, fragments: &[&'a [u8]], message: &'static Message) -> Result<(), ProtoError> {
        self.sink.begin_object();
        self.fields(fragments, message)?;
        self.sink.end_object();
        Ok(())
    }

    /// A whole object within another: its kind is not in the bytes.
    fn embedded(&mut self, fragments: &[&'a [u8]], message: &'static Message) -> Result<(), ProtoError> {
        let package = message.package;
        self.sink.begin_object();
        self.named("kind", message.name);
        match package.group.unwrap_or_default() {
            "" => self.named("apiVersion", package.version),
            group => self.named("apiVersion", &format!("{group}/{}", package.version)),
        }
        self.fields(fragments, message)?;
        self.sink.end_object();
        Ok(())
    }

    /// The fields of a message, without the braces (an inlined message has none).
    fn fields(&mut self, fragments: &[&'a [u8]], message: &'static Message) -> Result<(), ProtoError> {
        if self.depth >= DEPTH_MAX {
            return Err(ProtoError::Depth);
        }
        self.depth += 1;
        let start = self.occurrences.len();
        for fragment in fragments {
            let mut reader = Reader::new(fragment);
            while let Some((tag, value)) = reader.read()? {
                if let Some(position) = message.position_of_tag(tag) {
                    self.occurrences.push((position as u16, value));
                }
            }
        }
        self.occurrences[start..].sort_by_key(|(position, _)| *position);
        let mut at = start;
        for (position, field) in message.fields.iter().enumerate() {
            let first = at;
            while self.occurrences.get(at).is_some_and(|(p, _)| usize::from(*p) == position) {
                at += 1;
            }
            self.field(field, first, at)?;
        }
        self.occurrences.truncate(start);
        self.depth -= 1;
        Ok(())
    }

    /// One field with its occurrences `first..end`.
    fn field(&mut self, field: &'static Field, first: usize, end: usize) -> Result<(), ProtoError> {
        if field.is_inline() {
            let fragments = self.fragments(first, end)?;
            return match field.message() {
                Some(message) => self.fields(&fragments, message.get()),
                None => Ok(()),
            };
        }
        match field.repeat {
            Repeat::List => self.list(field, first, end),
            Repeat::Map => self.map(field, first, end),
            Repeat::One if first == end => self.absent(field),
            Repeat::One => self.present(field, first, end),
        }
    }

    /// What Go prints for a field that the bytes do not mention.
    fn absent(&mut self, field: &'static Field) -> Result<(), ProtoError> {
        let nil_able = field.pointer || matches!(field.ty, Type::Bytes | Type::Strings);
        if nil_able {
            if !field.omit_empty {
                self.sink.key(field.name);
                self.sink.null();
            }
            return Ok(());
        }
        let skip = match field.ty {
            Type::Time | Type::MicroTime => field.omit_zero,
            Type::String | Type::Bool | Type::Int32 | Type::Int64 | Type::Double => field.omit_empty,
            _ => false,
        };
        if skip {
            return Ok(());
        }
        self.sink.key(field.name);
        match field.ty {
            Type::String => self.sink.string(""),
            Type::Bool => self.sink.bool(false),
            Type::Int32 | Type::Int64 | Type::Double => self.sink.int(0),
            ty => self.value(ty, None, &[])?,
        }
        Ok(())
    }

    fn present(&mut self, field: &'static Field, first: usize, end: usize) -> Result<(), ProtoError> {
        let last = self.occurrences[end - 1].1;
        if field.omit_empty && !field.pointer && is_empty_scalar(field.ty, last) {
            return Ok(());
        }
        if end - first == 1 {
            if field.omit_zero && last == Wire::Bytes(&[]) {
                return Ok(());
            }
            self.sink.key(field.name);
            return match last {
                Wire::Bytes(bytes) => self.value(field.ty, Some(last), &[bytes]),
                _ => self.value(field.ty, Some(last), &[]),
            };
        }
        self.sink.key(field.name);
        let fragments = if is_scalar(field.ty) { Vec::new() } else { self.fragments(first, end)? };
        self.value(field.ty, Some(last), &fragments)
    }

    fn list(&mut self, field: &'static Field, first: usize, end: usize) -> Result<(), ProtoError> {
        if first == end {
            if !field.omit_empty {
                self.sink.key(field.name);
                self.sink.null();
            }
            return Ok(());
        }
        self.sink.key(field.name);
        self.sink.begin_array();
        for at in first..end {
            let wire = self.occurrences[at].1;
            match (field.ty, wire) {
                (Type::Int32 | Type::Int64, Wire::Bytes(packed)) => {
                    let mut reader = Reader::new(packed);
                    while !reader.is_empty() {
                        let value = reader.varint()?;
                        self.sink.element();
                        self.value(field.ty, Some(Wire::Varint(value)), &[])?;
                    }
                }
                (Type::Message(message), Wire::Bytes(bytes)) if names_its_kind(field, message) => {
                    self.sink.element();
                    self.embedded(&[bytes], message.get())?;
                }
                (ty, Wire::Bytes(bytes)) => {
                    self.sink.element();
                    self.value(ty, Some(wire), &[bytes])?;
                }
                (ty, _) => {
                    self.sink.element();
                    self.value(ty, Some(wire), &[])?;
                }
            }
        }
        self.sink.end_array();
        Ok(())
    }

    /// Map entries are messages of key (1) and value (2); a later entry of the same key wins; keys print sorted.
    fn map(&mut self, field: &'static Field, first: usize, end: usize) -> Result<(), ProtoError> {
        if first == end {
            if !field.omit_empty {
                self.sink.key(field.name);
                self.sink.null();
            }
            return Ok(());
        }
        let mut entries: Vec<(&'a [u8], Option<Wire<'a>>)> = Vec::with_capacity(end - first);
        for at in first..end {
            entries.push(map_entry(self.occurrences[at].1)?);
        }
        entries.sort_by_key(|(key, _)| *key);
        self.sink.key(field.name);
        self.sink.begin_object();
        for (at, (key, value)) in entries.iter().enumerate() {
            if entries.get(at + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            self.sink.key(&String::from_utf8_lossy(key));
            match value {
                Some(Wire::Bytes(bytes)) => self.value(field.ty, *value, &[bytes])?,
                _ => self.value(field.ty, *value, &[])?,
            }
        }
        self.sink.end_object();
        Ok(())
    }

    /// One value. `wire` is its last occurrence; `fragments` are all of them, for types that are messages on the wire.
    fn value(&mut self, ty: Type, wire: Option<Wire<'a>>, fragments: &[&'a [u8]]) -> Result<(), ProtoError> {
        if !is_scalar(ty) && wire.is_some() && fragments.is_empty() {
            return Err(ProtoError::Mismatch);
        }
        match ty {
            Type::String => self.sink.string(&text(wire)?),
            Type::Bytes => self.sink.string(&super::encode_base64(bytes(wire)?)),
            Type::Bool => self.sink.bool(varint(wire)? != 0),
            Type::Int32 => self.sink.int(i64::from(varint(wire)? as i32)),
            Type::Int64 => self.sink.int(varint(wire)? as i64),
            Type::Double => self.sink.float(double(wire)?),
            Type::Message(message) => self.message(fragments, message.get())?,
            Type::Time => self.time(fragments, time::format_seconds)?,
            Type::MicroTime => self.time(fragments, time::format_micros)?,
            Type::Quantity => self.quantity(fragments)?,
            Type::IntOrString => self.int_or_string(fragments)?,
            Type::Raw | Type::Fields | Type::Json => {
                self.sink.json(last_bytes(fragments, 1)?.unwrap_or_default());
            }
            Type::Strings => self.strings(fragments)?,
            Type::SchemaOrArray | Type::SchemaOrBool | Type::SchemaOrStrings => self.schema_or(ty, fragments)?,
        }
        Ok(())
    }

    fn time(&mut self, fragments: &[&'a [u8]], format: fn(i64, i32) -> Option<String>) -> Result<(), ProtoError> {
        let (mut seconds, mut nanos, mut set) = (0i64, 0i32, false);
        for fragment in fragments {
            let mut reader = Reader::new(fragment);
            while let Some((tag, value)) = reader.read()? {
                set = true;
                match (tag, value) {
                    (1, Wire::Varint(value)) => seconds = value as i64,
                    (2, Wire::Varint(value)) => nanos = value as i32,
                    _ => {}
                }
            }
        }
        match format(seconds, nanos).filter(|_| set) {
            Some(text) => self.sink.string(&text),
            None => self.sink.null(),
        }
        Ok(())
    }

    fn quantity(&mut self, fragments: &[&'a [u8]]) -> Result<(), ProtoError> {
        let text = String::from_utf8_lossy(last_bytes(fragments, 1)?.unwrap_or(b"0"));
        match Quantity::parse(&text) {
            Ok(quantity) => self.sink.string(&quantity.to_string()),
            Err(_) => return Err(ProtoError::Quantity(text.into_owned())),
        }
        Ok(())
    }

    fn int_or_string(&mut self, fragments: &[&'a [u8]]) -> Result<(), ProtoError> {
        let (mut kind, mut int, mut string) = (0, 0i32, &b""[..]);
        for fragment in fragments {
            let mut reader = Reader::new(fragment);
            while let Some((tag, value)) = reader.read()? {
                match (tag, value) {
                    (1, Wire::Varint(value)) => kind = value,
                    (2, Wire::Varint(value)) => int = value as i32,
                    (3, Wire::Bytes(value)) => string = value,
                    _ => {}
                }
            }
        }
        match kind {
            0 => self.sink.int(i64::from(int)),
            _ => self.sink.string(&String::from_utf8_lossy(string)),
        }
        Ok(())
    }

    fn strings(&mut self, fragments: &[&'a [u8]]) -> Result<(), ProtoError> {
        let mut any = false;
        for fragment in fragments {
            let mut reader = Reader::new(fragment);
            while let Some((tag, value)) = reader.read()? {
                if let (1, Wire::Bytes(value)) = (tag, value) {
                    if !any {
                        self.sink.begin_array();
                    }
                    any = true;
                    self.sink.element();
                    self.sink.string(&String::from_utf8_lossy(value));
                }
            }
        }
        if any {
            self.sink.end_array()
        } else {
            self.sink.null()
        }
        Ok(())
    }

    /// The unions of JSON schema: a schema, or the other alternative.
    fn schema_or(&mut self, ty: Type, fragments: &[&'a [u8]]) -> Result<(), ProtoError> {
        let Some(schema) = crate::schema::message("apiextensions/v1.JSONSchemaProps") else { return Ok(()) };
        let schema_tag = if ty == Type::SchemaOrBool { 2 } else { 1 };
        let (mut schemas, mut others, mut allows) = (Vec::new(), Vec::new(), false);
        for fragment in fragments {
            let mut reader = Reader::new(fragment);
            while let Some((tag, value)) = reader.read()? {
                match value {
                    Wire::Bytes(bytes) if tag == schema_tag => schemas.push(bytes),
                    Wire::Bytes(bytes) => others.push(bytes),
                    Wire::Varint(value) => allows = value != 0,
                    _ => {}
                }
            }
        }
        if !schemas.is_empty() {
            return self.message(&schemas, schema.get());
        }
        if ty == Type::SchemaOrBool {
            self.sink.bool(allows);
            return Ok(());
        }
        if others.is_empty() {
            self.sink.null();
            return Ok(());
        }
        self.sink.begin_array();
        for other in others {
            self.sink.element();
            match ty {
                Type::SchemaOrArray => self.message(&[other], schema.get())?,
                _ => self.sink.string(&String::from_utf8_lossy(other)),
            }
        }
        self.sink.end_array();
        Ok(())
    }

    fn fragments(&self, first: usize, end: usize) -> Result<Vec<&'a [u8]>, ProtoError> {
        self.occurrences[first..end].iter().map(|(_, wire)| bytes(Some(*wire))).collect()
    }
}

fn is_scalar(ty: Type) -> bool {
    matches!(ty, Type::String | Type::Bytes | Type::Bool | Type::Int32 | Type::Int64 | Type::Double)
}

/// What `omitempty` leaves out although the bytes mention it.
fn is_empty_scalar(ty: Type, wire: Wire<'_>) -> bool {
    match ty {
        Type::String | Type::Bytes | Type::Strings => wire == Wire::Bytes(&[]),
        Type::Bool | Type::Int32 | Type::Int64 => wire == Wire::Varint(0),
        Type::Double => wire == Wire::Fixed64(0),
        _ => false,
    }
}

/// Objects that stand in another object's list print their kind (the claims of a StatefulSet); those of a list of their
/// kind do not.
fn names_its_kind(field: &Field, message: MessageRef) -> bool {
    let message = message.get();
    message.type_meta && message.is_kind && message.package.group.is_some() && field.name != "items"
}

fn map_entry(wire: Wire<'_>) -> Result<(&[u8], Option<Wire<'_>>), ProtoError> {
    let mut reader = Reader::new(bytes(Some(wire))?);
    let (mut key, mut value) = (&b""[..], None);
    while let Some((tag, wire)) = reader.read()? {
        match tag {
            1 => key = bytes(Some(wire))?,
            2 => value = Some(wire),
            _ => {}
        }
    }
    Ok((key, value))
}

/// The last occurrence of a bytes field in a small wrapper message.
fn last_bytes<'a>(fragments: &[&'a [u8]], wanted: u32) -> Result<Option<&'a [u8]>, ProtoError> {
    let mut found = None;
    for fragment in fragments {
        let mut reader = Reader::new(fragment);
        while let Some((tag, value)) = reader.read()? {
            if tag == wanted {
                found = Some(bytes(Some(value))?);
            }
        }
    }
    Ok(found)
}

fn bytes(wire: Option<Wire<'_>>) -> Result<&[u8], ProtoError> {
    match wire {
        Some(Wire::Bytes(bytes)) => Ok(bytes),
        None => Ok(&[]),
        Some(_) => Err(ProtoError::Mismatch),
    }
}

fn text(wire: Option<Wire<'_>>) -> Result<std::borrow::Cow<'_, str>, ProtoError> {
    Ok(String::from_utf8_lossy(bytes(wire)?))
}

fn varint(wire: Option<Wire<'_>>) -> Result<u64, ProtoError> {
    match wire {
        Some(Wire::Varint(value)) => Ok(value),
        None => Ok(0),
        Some(_) => Err(ProtoError::Mismatch),
    }
}

fn double(wire: Option<Wire<'_>>) -> Result<f64, ProtoError> {
    match wire {
        Some(Wire::Fixed64(bits)) => Ok(f64::from_bits(bits)),
        None => Ok(0.0),
        Some(_) => Err(ProtoError::Mismatch),
    }
}

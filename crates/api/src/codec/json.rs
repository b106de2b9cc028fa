//! Strict JSON decoding along the schema: bytes -> a normal `Value` plus what strict field validation complains of.
//!
//! One pass. Unknown and duplicate fields are reported with upstream's words and paths and left out (a later duplicate
//! wins); a wrong type is an error with the message of Go's decoder. The value comes out normal: `null` fields and empty
//! lists and maps are absent, quantities canonical, times in UTC. Names are case-sensitive. Nesting is bounded by the parser (128).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::time;
use crate::quantity::Quantity;
use crate::schema::{Field, Message, MessageRef, Repeat, Type};

/// Upstream stops collecting complaints here, too.
const PROBLEMS_MAX: usize = 100;

/// A decoded object.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// Such as `unknown field "spec.foo"`, `duplicate field "spec.x"`: errors under strict field validation, warnings
    /// under `Warn`, nothing under `Ignore`.
    pub problems: Vec<String>,
}

/// Why bytes are not an object of the expected type; the text is what Go's decoder says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// The error message that upstream makes of the problems under strict validation.
pub fn strict_decoding_message(problems: &[String]) -> String {
    format!("strict decoding error: {}", problems.join(", "))
}

/// Decodes one JSON object as `message`. Works for every validation mode: the caller decides what `problems` mean.
pub fn decode_json_strict(bytes: &[u8], message: MessageRef) -> Result<Decoded, DecodeError> {
    let mut context = Context::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let node = Node { context: &mut context, expect: Expect::Root(message) };
    let result = node.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match result {
        Ok(value) => Ok(Decoded { value, problems: context.problems }),
        Err(error) => Err(context.error.unwrap_or_else(|| DecodeError(error.to_string()))),
    }
}

#[derive(Default)]
struct Context {
    problems: Vec<String>,
    error: Option<DecodeError>,
    /// Path with list positions and map keys, as strict complaints print it.
    path: String,
    /// Path of field names only, embedded structs included, as type errors print it.
    go_path: String,
    /// The Go struct that holds the current field.
    go_struct: &'static str,
}

impl Context {
    fn problem(&mut self, what: &str, field: &str) {
        let separator = if self.path.is_empty() { "" } else { "." };
        let problem = format!("{what} {:?}", format!("{}{separator}{field}", self.path));
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn fail<E: serde::de::Error>(&mut self, message: String) -> E {
        self.error = Some(DecodeError(message));
        E::custom("")
    }

    fn mismatch<E: serde::de::Error>(&mut self, found: &str, expect: Expect) -> E {
        if (expect.repeat(), expect.ty()) == (Repeat::One, Type::Quantity) {
            return self.fail(crate::quantity::FORMAT_WRONG.to_owned());
        }
        let ty = expect.go_type();
        let message = if self.go_path.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {ty}")
        } else {
            let holder = self.go_struct;
            format!("json: cannot unmarshal {found} into Go struct field {holder}.{} of type {ty}", self.go_path)
        };
        self.fail(message)
    }
}

/// What the schema expects at a place.
#[derive(Clone, Copy)]
enum Expect {
    Root(MessageRef),
    /// The whole field: a list, a map, or one value.
    Field(&'static Message, &'static Field),
    /// An element of a list or a value of a map.
    Element(&'static Message, &'static Field),
    /// A JSON schema inside a union.
    Schema(MessageRef),
    /// A string of a wrapped list.
    Text,
    /// Any JSON.
    Free,
}

impl Expect {
    fn repeat(self) -> Repeat {
        match self {
            Expect::Field(_, field) => field.repeat,
            _ => Repeat::One,
        }
    }

    fn ty(self) -> Type {
        match self {
            Expect::Root(message) | Expect::Schema(message) => Type::Message(message),
            Expect::Field(_, field) | Expect::Element(_, field) => field.ty,
            Expect::Text => Type::String,
            Expect::Free => Type::Json,
        }
    }

    /// The type as Go prints it, such as `[]v1.Container`.
    fn go_type(self) -> String {
        let (home, go_name) = match self {
            Expect::Field(message, field) | Expect::Element(message, field) => {
                (message.package.short.rsplit('/').next().unwrap_or_default(), field.go_name)
            }
            _ => ("v1", None),
        };
        let element = match (go_name, self.ty()) {
            (Some(name), _) if name.contains('.') => name.to_owned(),
            (Some(name), _) => format!("{home}.{name}"),
            (None, Type::Message(message)) => {
                format!("{}.{}", message.package.short.rsplit('/').next().unwrap_or_default(), message.name)
            }
            (None, ty) => scalar_go_type(ty).to_owned(),
        };
        match self.repeat() {
            Repeat::One => element,
            Repeat::List => format!("[]{element}"),
            Repeat::Map if self.ty() == Type::Quantity => "v1.ResourceList".to_owned(),
            Repeat::Map => format!("map[string]{element}"),
        }
    }
}

fn scalar_go_type(ty: Type) -> &'static str {
    match ty {
        Type::String | Type::Time | Type::MicroTime => "string",
        Type::Bool => "bool",
        // What the decoders of these types read into.
        Type::Int32 | Type::IntOrString => "int32",
        Type::Int64 => "int64",
        Type::Double => "float64",
        Type::Bytes => "[]uint8",
        Type::Quantity => "resource.Quantity",
        Type::Strings => "[]string",
        _ => "runtime.RawExtension",
    }
}

/// Deserializes one place.
struct Node<'c> {
    context: &'c mut Context,
    expect: Expect,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match (self.expect.repeat(), self.expect.ty()) {
            (Repeat::One, Type::Bool | Type::Json | Type::Raw | Type::Fields | Type::SchemaOrBool) => {
                Ok(Value::Bool(value))
            }
            _ => Err(self.context.mismatch("bool", self.expect)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.integer(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => self.number(value.to_string(), Value::from(value)),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.number(Value::from(value).to_string(), Value::from(value))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        if self.expect.repeat() != Repeat::One {
            return Err(self.context.mismatch("string", self.expect));
        }
        match self.expect.ty() {
            Type::String | Type::IntOrString | Type::Json | Type::Raw | Type::Fields => Ok(Value::from(text)),
            Type::Bytes => match super::decode_base64(text) {
                Ok(_) => Ok(Value::from(text)),
                Err(at) => Err(self.context.fail(format!("illegal base64 data at input byte {at}"))),
            },
            Type::Time | Type::MicroTime => self.time(text),
            Type::Quantity => self.quantity(text),
            _ => Err(self.context.mismatch("string", self.expect)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        let element = match (self.expect, self.expect.repeat(), self.expect.ty()) {
            (Expect::Field(message, field), Repeat::List, _) => Expect::Element(message, field),
            (_, Repeat::One, Type::Json | Type::Raw | Type::Fields) => Expect::Free,
            (_, Repeat::One, Type::Strings | Type::SchemaOrStrings) => Expect::Text,
            (_, Repeat::One, Type::SchemaOrArray) => schema_of_schemas(),
            _ => return Err(self.context.mismatch("array", self.expect)),
        };
        elements(self.context, element, seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        match (self.expect, self.expect.repeat(), self.expect.ty()) {
            (Expect::Field(message, field), Repeat::Map, _) => {
                entries(self.context, Expect::Element(message, field), true, map)
            }
            (_, Repeat::One, Type::Message(message)) => fields(self.context, message.get(), map),
            (_, Repeat::One, Type::Json | Type::Raw | Type::Fields) => entries(self.context, Expect::Free, false, map),
            (_, Repeat::One, Type::SchemaOrArray | Type::SchemaOrBool | Type::SchemaOrStrings) => {
                match schema_of_schemas() {
                    Expect::Schema(schema) => fields(self.context, schema.get(), map),
                    _ => Err(self.context.mismatch("object", self.expect)),
                }
            }
            _ => Err(self.context.mismatch("object", self.expect)),
        }
    }
}

impl Node<'_> {
    fn integer<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        let fits = match self.expect.ty() {
            Type::Int32 | Type::IntOrString => i32::try_from(value).is_ok(),
            Type::Int64 => true,
            _ => false,
        };
        if fits && self.expect.repeat() == Repeat::One {
            return Ok(Value::from(value));
        }
        self.number(value.to_string(), Value::from(value))
    }

    /// A number that is no fitting integer, or stands where no integer is expected.
    fn number<E: serde::de::Error>(self, literal: String, value: Value) -> Result<Value, E> {
        if self.expect.repeat() != Repeat::One {
            return Err(self.context.mismatch("number", self.expect));
        }
        match self.expect.ty() {
            Type::Double | Type::Json | Type::Raw | Type::Fields => Ok(value),
            Type::Quantity => self.quantity(&literal),
            Type::Int32 | Type::Int64 | Type::IntOrString => {
                Err(self.context.mismatch(&format!("number {literal}"), self.expect))
            }
            _ => Err(self.context.mismatch("number", self.expect)),
        }
    }

    fn quantity<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        match Quantity::parse(text.trim()) {
            Ok(quantity) => Ok(Value::from(quantity.to_string())),
            Err(error) => Err(self.context.fail(error.to_string())),
        }
    }

    fn time<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        let micro = self.expect.ty() == Type::MicroTime;
        match time::parse(text) {
            Some((seconds, nanos)) if time::is_zero(seconds, nanos) => Ok(Value::Null),
            Some((seconds, nanos)) => {
                let format = if micro { time::format_micros } else { time::format_seconds };
                Ok(format(seconds, nanos).map_or(Value::Null, Value::from))
            }
            None => {
                let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
                Err(self
                    .context
                    .fail(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")))
            }
        }
    }
}

fn schema_of_schemas() -> Expect {
    crate::schema::message("apiextensions/v1.JSONSchemaProps").map_or(Expect::Free, Expect::Schema)
}

/// A list; a `null` element is the zero value of its type.
fn elements<'de, A: SeqAccess<'de>>(context: &mut Context, element: Expect, mut seq: A) -> Result<Value, A::Error> {
    let mut list = Vec::new();
    let length = context.path.len();
    loop {
        fmt::Write::write_fmt(&mut context.path, format_args!("[{}]", list.len())).map_err(A::Error::custom)?;
        let Some(value) = seq.next_element_seed(Node { context: &mut *context, expect: element })? else { break };
        context.path.truncate(length);
        list.push(if value.is_null() { zero(element) } else { value });
    }
    context.path.truncate(length);
    Ok(Value::Array(list))
}

/// A map or free-form object. Free-form content keeps its `null`s and is not checked for duplicates.
fn entries<'de, A: MapAccess<'de>>(
    context: &mut Context,
    element: Expect,
    checked: bool,
    mut access: A,
) -> Result<Value, A::Error> {
    let mut map = Map::new();
    let length = context.path.len();
    while let Some(key) = access.next_key::<String>()? {
        if checked {
            if map.contains_key(&key) {
                context.problem("duplicate field", &key);
            }
            push_path(&mut context.path, &key);
        }
        let value = access.next_value_seed(Node { context: &mut *context, expect: element })?;
        context.path.truncate(length);
        map.insert(key, if value.is_null() { zero(element) } else { value });
    }
    Ok(Value::Object(map))
}

/// The fields of a message.
fn fields<'de, A: MapAccess<'de>>(
    context: &mut Context,
    message: &'static Message,
    mut access: A,
) -> Result<Value, A::Error> {
    let mut map = Map::new();
    let mut seen: Vec<&'static str> = Vec::new();
    let (path, go_path, go_struct) = (context.path.len(), context.go_path.len(), context.go_struct);
    while let Some(key) = access.next_key::<std::borrow::Cow<'de, str>>()? {
        if message.type_meta && matches!(&*key, "kind" | "apiVersion") {
            if map.contains_key(&*key) {
                context.problem("duplicate field", &key);
            }
            let value = access.next_value_seed(Node { context: &mut *context, expect: Expect::Text })?;
            map.insert(key.into_owned(), value);
            continue;
        }
        let Some(entry) = message.json_entry(&key) else {
            context.problem("unknown field", &key);
            access.next_value::<serde::de::IgnoredAny>()?;
            continue;
        };
        let field = entry.field;
        if seen.contains(&field.name) {
            context.problem("duplicate field", field.name);
        }
        seen.push(field.name);
        push_path(&mut context.path, field.name);
        for part in entry.via.iter().chain([&field.name]) {
            push_path(&mut context.go_path, part);
        }
        context.go_struct = message.name;
        let value = access.next_value_seed(Node { context: &mut *context, expect: Expect::Field(message, field) })?;
        context.path.truncate(path);
        context.go_path.truncate(go_path);
        context.go_struct = go_struct;
        if value.is_null() || (field.omit_empty && is_empty_collection(&value, field)) {
            map.remove(field.name);
        } else {
            map.insert(field.name.to_owned(), value);
        }
    }
    Ok(Value::Object(map))
}

/// An empty list or map is the same as none, as on the wire.
fn is_empty_collection(value: &Value, field: &Field) -> bool {
    match field.repeat {
        Repeat::List => value.as_array().is_some_and(Vec::is_empty),
        Repeat::Map => value.as_object().is_some_and(Map::is_empty),
        Repeat::One => false,
    }
}

fn push_path(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// What a `null` element decodes to.
fn zero(expect: Expect) -> Value {
    match expect.ty() {
        Type::Message(_) if !matches!(expect, Expect::Free) => Value::Object(Map::new()),
        Type::String | Type::Bytes => Value::from(""),
        Type::Bool => Value::Bool(false),
        Type::Int32 | Type::Int64 | Type::IntOrString | Type::Double => Value::from(0),
        Type::Quantity => Value::from("0"),
        _ => Value::Null,
    }
}

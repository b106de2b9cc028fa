//! The OpenAPI v2 document in the protobuf form of gnostic (`openapi.v2.Document`), which client-go reads.
//!
//! JSON document as [`super::v2_document`] builds it -> bytes. Knows the parts that those documents have; vendor
//! extensions travel as YAML text, and JSON is YAML.

use api::codec::wire;
use serde_json::{Map, Value};

/// Encodes a document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, info(&document["info"]));
    let mut paths = Message::default();
    for (path, item) in entries(&document["paths"]) {
        paths.message(2, named(path, path_item(item)));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, definition) in entries(&document["definitions"]) {
        definitions.message(1, named(name, schema(definition)));
    }
    out.message(9, definitions);
    for requirement in list(&document["security"]) {
        let mut message = Message::default();
        for (name, scopes) in entries(requirement) {
            let mut array = Message::default();
            array.texts(1, scopes);
            message.message(1, named(name, array));
        }
        out.message(12, message);
    }
    let mut security = Message::default();
    for (name, item) in entries(&document["securityDefinitions"]) {
        let mut key = Message::default();
        key.text(1, &item["type"]);
        key.text(2, &item["name"]);
        key.text(3, &item["in"]);
        let mut message = Message::default();
        message.message(2, key);
        security.message(1, named(name, message));
    }
    out.message(13, security);
    out.0
}

fn info(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &value["title"]);
    out.text(2, &value["version"]);
    out
}

fn path_item(value: &Value) -> Message {
    let mut out = Message::default();
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(described) = value.get(method) {
            out.message(tag, operation(described));
        }
    }
    for item in list(&value["parameters"]) {
        out.message(9, parameter(item));
    }
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, &value["tags"]);
    out.text(5, &value["operationId"]);
    out.texts(6, &value["produces"]);
    out.texts(7, &value["consumes"]);
    for item in list(&value["parameters"]) {
        out.message(8, parameter(item));
    }
    let mut responses = Message::default();
    for (code, answer) in entries(&value["responses"]) {
        let mut response = Message::default();
        response.text(1, &answer["description"]);
        if let Some(described) = answer.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(described));
            response.message(2, item);
        }
        let mut wrapped = Message::default();
        wrapped.message(1, response);
        responses.message(1, named(code, wrapped));
    }
    out.message(9, responses);
    out.extensions(13, value);
    out
}

/// A `ParametersItem` with a `Parameter` inside.
fn parameter(value: &Value) -> Message {
    let mut parameter = Message::default();
    if value["in"] == "body" {
        let mut body = Message::default();
        body.text(2, &value["name"]);
        body.text(3, &value["in"]);
        body.flag(4, &value["required"]);
        body.message(5, schema(&value["schema"]));
        parameter.message(1, body);
    } else {
        // Query and path parameters differ in their field numbers from `type` on.
        let path = value["in"] == "path";
        let (choice, ty, unique) = if path { (4, 5, 19) } else { (3, 6, 20) };
        let mut inner = Message::default();
        inner.flag(1, &value["required"]);
        inner.text(2, &value["in"]);
        inner.text(4, &value["name"]);
        inner.text(ty, &value["type"]);
        inner.flag(unique, &value["uniqueItems"]);
        let mut non_body = Message::default();
        non_body.message(choice, inner);
        parameter.message(2, non_body);
    }
    let mut item = Message::default();
    item.message(1, parameter);
    item
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.texts(19, &value["required"]);
    if let Some(additional) = value.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, schema(additional));
        out.message(21, item);
    }
    if let Value::String(_) = value["type"] {
        let mut item = Message::default();
        item.text(1, &value["type"]);
        out.message(22, item);
    }
    if let Some(items) = value.get("items") {
        let mut item = Message::default();
        item.message(1, schema(items));
        out.message(23, item);
    }
    if let Some(properties) = value.get("properties") {
        let mut message = Message::default();
        for (name, property) in entries(properties) {
            message.message(1, named(name, schema(property)));
        }
        out.message(25, message);
    }
    out.extensions(31, value);
    out
}

fn named(name: &str, value: Message) -> Message {
    let mut out = Message::default();
    wire::put_bytes(&mut out.0, 1, name.as_bytes());
    out.message(2, value);
    out
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A message under way, fields in the order of writing.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(&mut self, tag: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            wire::put_bytes(&mut self.0, tag, text.as_bytes());
        }
    }

    fn texts(&mut self, tag: u32, value: &Value) {
        list(value).for_each(|element| self.text(tag, element));
    }

    fn flag(&mut self, tag: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            wire::put_varint(&mut self.0, u64::from(tag) << 3);
            wire::put_varint(&mut self.0, 1);
        }
    }

    fn message(&mut self, tag: u32, message: Message) {
        wire::put_bytes(&mut self.0, tag, &message.0);
    }

    fn extensions(&mut self, tag: u32, value: &Value) {
        for (name, extension) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Message::default();
            wire::put_bytes(&mut any.0, 2, extension.to_string().as_bytes());
            self.message(tag, named(name, any));
        }
    }
}

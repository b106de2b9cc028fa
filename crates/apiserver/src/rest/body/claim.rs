//! What a body says that it is: `apiVersion` and `kind`, before anything else of it is read.
//!
//! Invariant: what is left out counts as expected; of a field that comes twice the last one counts (who decodes the whole
//! complains of it).

use std::fmt;

use api::kinds::{self, split_api_version};
use api::schema;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{Expected, Failure};

/// Upstream names the place in its sources where its table of kinds is made.
const SCHEME: &str = "scheme \"pkg/runtime/scheme.go:111\"";
/// Options are read with a table that holds nothing else.
const OPTIONS: &str = "DeleteOptions";
/// The Go type that upstream reads the two fields into.
const GO_TYPE: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// See the module.
#[derive(Debug, Default)]
pub struct Claim {
    api_version: String,
    kind: String,
    /// The document is `null`: an object without fields.
    pub is_null: bool,
}

impl Claim {
    pub fn new(api_version: &str, kind: &str) -> Self {
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), ..Self::default() }
    }

    /// `bytes` are one JSON document.
    pub fn of_json(bytes: &[u8]) -> Result<Self, Failure> {
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let found = match first {
            Some(b'{') => {
                let mut deserializer = serde_json::Deserializer::from_slice(bytes);
                let read =
                    deserializer.deserialize_map(Fields).map_err(|error| Failure::no_type(&error.to_string()))?;
                return read.map_err(|error| Failure::no_type(&error));
            }
            Some(b'n') => return Ok(Self { is_null: true, ..Self::default() }),
            Some(b'[') => "array",
            Some(b'"') => "string",
            Some(b't' | b'f') => "bool",
            _ => "number",
        };
        Err(Failure::no_type(&format!("json: cannot unmarshal {found} into Go value of type {GO_TYPE}")))
    }

    pub fn check(&self, expected: Expected<'_>) -> Result<(), Failure> {
        let kind = if self.kind.is_empty() { expected.kind } else { &self.kind };
        let api_version = if self.api_version.is_empty() { expected.api_version } else { &self.api_version };
        if kind == expected.kind && api_version == expected.api_version {
            return Ok(());
        }
        if api_version.matches('/').count() > 1 {
            return Err(Failure::Unrecognized(format!("unexpected GroupVersion string: {api_version}")));
        }
        let (group, version) = split_api_version(api_version);
        if !is_known(group, version, kind) || expected.kind == OPTIONS {
            let detail = format!("no kind {kind:?} is registered for version {api_version:?} in {SCHEME}");
            return Err(self.unfit(expected, detail));
        }
        let expected_group = split_api_version(expected.api_version).0;
        if kind == expected.kind && group == expected_group {
            return Err(Failure::WrongVersion(api_version.to_owned()));
        }
        let internal =
            if expected_group.is_empty() { "core" } else { expected_group.split('.').next().unwrap_or_default() };
        let detail = format!("converting ({version}.{kind}) to ({internal}.{}): unknown conversion", expected.kind);
        Err(self.unfit(expected, detail))
    }

    /// The failure of a body that claims this.
    pub fn unfit(&self, expected: Expected<'_>, detail: String) -> Failure {
        let or = |own: &str, other: &str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
        let api_version = or(&self.api_version, expected.api_version);
        Failure::Unfit {
            kind: or(&self.kind, expected.kind),
            version: split_api_version(&api_version).1.to_owned(),
            detail,
        }
    }
}

fn is_known(group: &str, version: &str, kind: &str) -> bool {
    kinds::by_kind(group, version, kind).is_some() || schema::by_kind(group, version, kind).is_some()
}

/// Reads the two fields of an object and skips the others.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Result<Claim, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut claim = Claim::default();
        let mut wrong = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let field = match &*key {
                "apiVersion" => "apiVersion",
                "kind" => "kind",
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            match map.next_value::<Value>()? {
                Value::String(text) if field == "kind" => claim.kind = text,
                Value::String(text) => claim.api_version = text,
                Value::Null => {}
                other => wrong = wrong.or(Some(mismatch(field, &other))),
            }
        }
        Ok(wrong.map_or(Ok(claim), Err))
    }
}

fn mismatch(field: &str, found: &Value) -> String {
    let found = match found {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Bool(_) => "bool",
        _ => "number",
    };
    format!("json: cannot unmarshal {found} into Go struct field .{field} of type string")
}

//! Field errors: what validation found wrong, where, and in upstream's exact words.
//!
//! Input: a path and what is wrong there. Output: a `FieldError` whose `body()` is the text of a Status cause and whose
//! `Display` is the line a user of kubectl reads. The order of a list is the order in which rules ran. It does not build
//! the Status object itself beyond its `details.causes` and message.

use std::fmt;

use serde_json::{Value, json};

/// A place in an object, such as `spec.containers[0].name`. The empty path is the object itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    /// A path of one field of the object.
    pub fn root(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The field `name` of the value at this path.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::root(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The item `index` of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The entry `key` of the map at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TooFew,
    TooShort,
    Internal,
}

impl ErrorKind {
    /// The cause type as the API sends it.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::TooShort => "FieldValueTooShort",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::TooShort => "Too short",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::TooShort | Self::Internal)
    }
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    pub field: String,
    pub kind: ErrorKind,
    pub detail: String,
    /// The value found; `None` where upstream does not show one.
    pub bad_value: Option<Shown>,
}

/// A value as an error shows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    Json(Value),
    /// A struct of upstream's internal form, ready: its fields stand in their own order and are called as in Go.
    Struct(String),
}

impl Shown {
    /// `fields` in upstream's order, each written as JSON.
    pub fn of_struct(fields: &[(&str, impl fmt::Display)]) -> Self {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Self::Struct(format!("{{{}}}", fields.join(",")))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(Value::String(text)) => f.write_str(&quote(text)),
            Self::Json(value) => write!(f, "{value}"),
            Self::Struct(text) => f.write_str(text),
        }
    }
}

impl FieldError {
    /// The error without its field: the message of a Status cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if let Some(value) = self.bad_value.as_ref().filter(|_| self.kind.shows_value()) {
            text.push_str(&format!(": {value}"));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// The entry of `status.details.causes`.
    pub fn cause(&self) -> Value {
        json!({"reason": self.kind.cause(), "message": self.body(), "field": self.field})
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// The collected errors of one object, in the order found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub fn extend(&mut self, other: Errors) {
        self.0.extend(other.0);
    }

    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    pub fn required(&mut self, field: Path, detail: impl Into<String>) {
        self.add(field, ErrorKind::Required, detail, None);
    }

    pub fn invalid(&mut self, field: Path, value: impl Into<Value>, detail: impl Into<String>) {
        self.add(field, ErrorKind::Invalid, detail, Some(value.into()));
    }

    /// `fields` are those of upstream's internal struct, in its order.
    pub fn invalid_struct(&mut self, field: Path, fields: &[(&str, impl fmt::Display)], detail: impl Into<String>) {
        let bad_value = Some(Shown::of_struct(fields));
        self.push(FieldError { field: field.0, kind: ErrorKind::Invalid, detail: detail.into(), bad_value });
    }

    /// As [`Self::invalid_struct`], for one that is there twice.
    pub fn duplicate_struct(&mut self, field: Path, fields: &[(&str, impl fmt::Display)]) {
        let bad_value = Some(Shown::of_struct(fields));
        self.push(FieldError { field: field.0, kind: ErrorKind::Duplicate, detail: String::new(), bad_value });
    }

    /// A text that must be there: `Required` if it is empty, else one `Invalid` for each message.
    pub fn required_each(&mut self, field: &Path, value: &str, messages: Vec<String>) {
        if value.is_empty() {
            self.required(field.clone(), "");
        } else {
            self.invalid_each(field, value, messages);
        }
    }

    /// One `Invalid` for each message.
    pub fn invalid_each(&mut self, field: &Path, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(field.clone(), value, message);
        }
    }

    pub fn forbidden(&mut self, field: Path, detail: impl Into<String>) {
        self.add(field, ErrorKind::Forbidden, detail, None);
    }

    pub fn duplicate(&mut self, field: Path, value: impl Into<Value>) {
        self.add(field, ErrorKind::Duplicate, "", Some(value.into()));
    }

    pub fn not_found(&mut self, field: Path, value: impl Into<Value>) {
        self.not_found_among(field, value, "");
    }

    /// `detail` says among what.
    pub fn not_found_among(&mut self, field: Path, value: impl Into<Value>, detail: impl Into<String>) {
        self.add(field, ErrorKind::NotFound, detail, Some(value.into()));
    }

    /// `supported` is listed in the order given; upstream's lists are sorted.
    pub fn not_supported(&mut self, field: Path, value: impl Into<Value>, supported: &[&str]) {
        self.add(field, ErrorKind::NotSupported, supported_detail(supported), Some(value.into()));
    }

    /// As [`Self::invalid_struct`], for one that is none of `supported`.
    pub fn not_supported_struct(&mut self, field: Path, fields: &[(&str, impl fmt::Display)], supported: &[&str]) {
        let (kind, detail) = (ErrorKind::NotSupported, supported_detail(supported));
        self.push(FieldError { field: field.0, kind, detail, bad_value: Some(Shown::of_struct(fields)) });
    }

    pub fn too_long(&mut self, field: Path, bytes_max: usize) {
        let unit = if bytes_max == 1 { "byte" } else { "bytes" };
        self.add(field, ErrorKind::TooLong, format!("may not be more than {bytes_max} {unit}"), None);
    }

    pub fn too_many(&mut self, field: Path, actual: usize, items_max: usize) {
        let unit = if items_max == 1 { "item" } else { "items" };
        self.add(field, ErrorKind::TooMany, format!("must have at most {items_max} {unit}"), Some(json!(actual)));
    }

    pub fn internal(&mut self, field: Path, detail: impl Into<String>) {
        self.add(field, ErrorKind::Internal, detail, None);
    }

    fn add(&mut self, field: Path, kind: ErrorKind, detail: impl Into<String>, bad_value: Option<Value>) {
        let bad_value = bad_value.map(Shown::Json);
        self.0.push(FieldError { field: field.0, kind, detail: detail.into(), bad_value });
    }
}

fn supported_detail(supported: &[&str]) -> String {
    let quoted = supported.iter().map(|s| quote(s)).collect::<Vec<_>>().join(", ");
    if supported.is_empty() { String::new() } else { format!("supported values: {quoted}") }
}

impl IntoIterator for Errors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Errors> for Vec<FieldError> {
    fn from(errors: Errors) -> Self {
        errors.0
    }
}

/// The text after `is invalid: ` in a Status message: one error plain, several in brackets, equal ones once.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut lines: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let line = error.to_string();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// The message of a 422 Invalid Status: `Pod "x" is invalid: ...`. The kind carries its group: `Deployment.apps "x" ...`.
pub fn invalid_message(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> String {
    let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    match errors {
        [] => format!("{kind} {} is invalid", quote(name)),
        some => format!("{kind} {} is invalid: {}", quote(name), aggregate(some)),
    }
}

/// `text` in double quotes with Go's escapes for the common cases.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fill: impl FnOnce(&mut Errors), expect: &str) {
        let mut errors = Errors::new();
        fill(&mut errors);
        assert_eq!(aggregate(&errors.into_vec()), expect);
    }

    #[test]
    fn errors_read_as_upstream_writes_them() {
        let name = Path::root("spec").child("containers").index(0).child("name");
        check(|e| e.required(name.clone(), ""), "spec.containers[0].name: Required value");
        check(|e| e.invalid(name.clone(), "x", "bad"), "spec.containers[0].name: Invalid value: \"x\": bad");
        check(|e| e.invalid(name.clone(), -1, "bad"), "spec.containers[0].name: Invalid value: -1: bad");
        check(
            |e| e.not_supported(Path::root("a"), "x", &["A", "B"]),
            "a: Unsupported value: \"x\": supported values: \"A\", \"B\"",
        );
        check(|e| e.forbidden(Path::root("a"), "no"), "a: Forbidden: no");
        check(|e| e.too_long(Path::root("a"), 1), "a: Too long: may not be more than 1 byte");
        check(|e| e.too_many(Path::root("a"), 3, 2), "a: Too many: 3: must have at most 2 items");
        check(|e| e.duplicate(Path::root("a").key("k"), "q\"x"), "a[k]: Duplicate value: \"q\\\"x\"");
    }

    #[test]
    fn several_errors_are_bracketed_and_equal_ones_said_once() {
        check(
            |e| {
                e.required(Path::root("a"), "");
                e.required(Path::root("b"), "");
                e.required(Path::root("a"), "");
            },
            "[a: Required value, b: Required value]",
        );
    }

    #[test]
    fn the_message_names_kind_and_group() {
        let mut e = Errors::new();
        e.required(Path::root("a"), "");
        let list = e.into_vec();
        assert_eq!(
            invalid_message("apps", "Deployment", "d", &list),
            "Deployment.apps \"d\" is invalid: a: Required value"
        );
    }
}

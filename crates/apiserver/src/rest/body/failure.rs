//! Why a body is not what it should be, and the errors that are made of it.
//!
//! One reason reads in three ways: as a body of an object, as DeleteOptions, and as what a patch has made.

use std::fmt::Write as _;

use api::kinds::split_api_version;
use serde_json::{Value, json};

use super::Expected;
use crate::error::ApiError;
use crate::negotiate::Media;

/// As much of a body is shown in an error.
const SHOWN_BYTES_MAX: usize = 30;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It is not known what it is at all.
    Unrecognized(String),
    /// It is something, but not what is expected. Kind and version are as the body has them, or as expected.
    Unfit { kind: String, version: String, detail: String },
    /// The right kind of another version.
    WrongVersion(String),
    /// Custom resources have no protobuf form.
    NoProtobuf,
}

impl Failure {
    /// The bytes are no object with a type, for the reason that Go's decoder gives.
    pub fn no_type(error: &str) -> Self {
        Self::Unrecognized(format!("couldn't get version/kind; json parse error: {error}"))
    }

    /// For the body of an object.
    pub fn of_object(self, bytes: &[u8], expected: Expected<'_>) -> ApiError {
        let wanted = expected.kind;
        match self {
            Self::Unrecognized(detail) => ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {wanted}): {detail} ({})",
                summary(bytes)
            )),
            Self::Unfit { kind, version, detail } => ApiError::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {wanted}: {detail}"
            )),
            Self::NoProtobuf => ApiError::unsupported_media_type(&Media::ALL[..2]),
            other @ Self::WrongVersion(_) => ApiError::bad_request(other.detail(expected)),
        }
    }

    /// For options.
    pub fn of_options(self, expected: Expected<'_>) -> ApiError {
        ApiError::bad_request(self.detail(expected))
    }

    /// For what a patch has made; `shown` is the result or the patch.
    pub fn of_patch(self, shown: &str, expected: Expected<'_>) -> ApiError {
        let detail = self.detail(expected);
        let message = format!("Invalid value: {}: {detail}", semantics::field::quote(shown));
        let cause: Value = json!({"reason": "FieldValueInvalid", "message": message, "field": "patch"});
        ApiError::invalid("", "", "", vec![cause])
    }

    fn detail(self, expected: Expected<'_>) -> String {
        match self {
            Self::Unrecognized(detail) | Self::Unfit { detail, .. } => detail,
            Self::WrongVersion(found) => format!(
                "the API version in the data ({found}) does not match the expected API version ({})",
                expected.api_version
            ),
            Self::NoProtobuf => format!("no protobuf form of {}", split_api_version(expected.api_version).0),
        }
    }
}

/// The beginning of a body, as text if it looks like JSON.
fn summary(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let mut text = match bytes.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{byte:02x}");
            text
        }),
    };
    if bytes.len() > SHOWN_BYTES_MAX {
        text.push_str(" ...");
    }
    text
}

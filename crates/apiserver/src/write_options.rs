//! The options of a write: what its query says besides the object.
//!
//! Input: query parameters and which options they are. Output: [`WriteOptions`], or a 422 that names all that is wrong, with
//! upstream's texts. Not here: DeleteOptions in a body (see `rest::delete`).

use semantics::field::{Errors, Path};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::request::Query;

/// What to do with unknown and duplicate fields of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Which options a query holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionsKind {
    Create,
    Update,
    Patch,
    /// PatchOptions of a server-side apply.
    Apply,
    Delete,
}

impl OptionsKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch | Self::Apply => "PatchOptions",
            Self::Delete => "DeleteOptions",
        }
    }
}

/// Checked options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub validation: FieldValidation,
}

impl WriteOptions {
    pub fn parse(query: &Query, kind: OptionsKind) -> Result<Self, ApiError> {
        let mut errors = Errors::new();
        let manager = query.get("fieldManager").unwrap_or_default();
        match kind {
            OptionsKind::Apply if manager.is_empty() => {
                errors.required(Path::root("fieldManager"), "is required for apply patch");
            }
            OptionsKind::Patch if query.get("force").is_some() => {
                errors.forbidden(Path::root("force"), "may not be specified for non-apply patch");
            }
            _ => {}
        }
        if kind != OptionsKind::Delete {
            semantics::object_meta::validate_manager(manager, &Path::root("fieldManager"), &mut errors);
        }
        let runs: Vec<&str> = query.all("dryRun").collect();
        check_dry_run(&runs, &mut errors);
        let validation = match query.get("fieldValidation").unwrap_or_default() {
            _ if kind == OptionsKind::Delete => FieldValidation::Ignore,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            // The server's default.
            "" | "Warn" => FieldValidation::Warn,
            other => {
                errors.not_supported(Path::root("fieldValidation"), other, &["", "Ignore", "Strict", "Warn"]);
                FieldValidation::Warn
            }
        };
        refuse(kind, errors)?;
        Ok(Self { dry_run: !runs.is_empty(), validation })
    }
}

/// `All` is all there is to say.
pub fn check_dry_run(values: &[&str], errors: &mut Errors) {
    if values.iter().any(|value| *value != "All") {
        errors.not_supported(Path::root("dryRun"), json!(values), &["All"]);
    }
}

/// 422 for these options, if something is wrong with them.
pub fn refuse(kind: OptionsKind, errors: Errors) -> Result<(), ApiError> {
    let causes: Vec<Value> = errors.into_vec().iter().map(semantics::FieldError::cause).collect();
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", kind.name(), "", causes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, kind: OptionsKind, expect: &str) {
        let got = match WriteOptions::parse(&Query::parse(query), kind) {
            Ok(options) => format!("{} {:?}", options.dry_run, options.validation),
            Err(error) => format!("{} {}", error.code, error.message),
        };
        assert_eq!(got, expect, "{query}");
    }

    #[test]
    fn options_are_read_and_refused_by_name() {
        check("", OptionsKind::Create, "false Warn");
        check("dryRun=All&fieldValidation=Strict&fieldManager=m", OptionsKind::Apply, "true Strict");
        check("force=true&fieldManager=m", OptionsKind::Apply, "false Warn");
        let lines = [
            (
                "dryRun=Foo",
                OptionsKind::Update,
                "UpdateOptions",
                "dryRun: Unsupported value: [\"Foo\"]: supported values: \"All\"",
            ),
            (
                "fieldValidation=Foo",
                OptionsKind::Create,
                "CreateOptions",
                "fieldValidation: Unsupported value: \"Foo\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
            ("", OptionsKind::Apply, "PatchOptions", "fieldManager: Required value: is required for apply patch"),
            (
                "force=true",
                OptionsKind::Patch,
                "PatchOptions",
                "force: Forbidden: may not be specified for non-apply patch",
            ),
            (
                "fieldManager=a%01b",
                OptionsKind::Patch,
                "PatchOptions",
                "fieldManager: Invalid value: \"a\\x01b\": invalid character U+0001 (at position 1)",
            ),
        ];
        for (query, kind, name, detail) in lines {
            check(query, kind, &format!("422 {name}.meta.k8s.io \"\" is invalid: {detail}"));
        }
    }
}

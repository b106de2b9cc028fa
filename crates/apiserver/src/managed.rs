//! Managed fields: who set what, for every write.
//!
//! Input: the object about to be written and the stored one. Output: `metadata.managedFields` filled in, or the merged object
//! of a server-side apply.
//! The rules are `semantics::apply`; this file brings the manager's name, the version and the time.

use api::kinds::Kind;
use http::HeaderMap;
use jiff::Timestamp;
use semantics::Subresource;
use semantics::apply::{ApplyError, Configuration, Writer};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::request::Query;
use crate::rest::Call;
use crate::rest::body::Expected;

fn writer<'a>(call: &'a Call, manager: &'a str, sub: Subresource) -> Writer<'a> {
    Writer {
        manager,
        api_version: &call.resource.api_version,
        subresource: &call.info.subresource,
        now: call.registry().now(),
        message: call.resource.message,
        reset: call.resource.strategy.reset_fields(sub),
    }
}

/// Who writes: what the query says, or the program's name from its user agent.
pub fn manager_of(headers: &HeaderMap, query: &Query) -> String {
    let agent = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    semantics::apply::manager_name(query.get("fieldManager").unwrap_or_default(), agent)
}

/// Records the caller as the owner of a question that is answered and not stored.
pub fn track_review(object: &mut Value, kind: &Kind, manager: &str, now: Timestamp) {
    let writer = Writer {
        manager,
        api_version: kind.api_version,
        subresource: "",
        now,
        message: Some(kind.message),
        reset: Vec::new(),
    };
    semantics::apply::track(&writer, object, None);
}

/// As [`track_review`], for a question that is asked at a subresource, with its own kind.
pub fn track_asked(call: &Call, object: &mut Value, asked: Expected<'_>) {
    let manager = call.field_manager();
    let (api_version, message) = (asked.api_version, asked.message);
    let writer = Writer { api_version, message, reset: Vec::new(), ..writer(call, &manager, Subresource::Main) };
    semantics::apply::track(&writer, object, None);
}

/// Records the caller as the owner of what it changed. `old` is absent at creation.
pub fn track(call: &Call, object: &mut Value, old: Option<&Value>, sub: Subresource) {
    let manager = call.field_manager();
    semantics::apply::track(&writer(call, &manager, sub), object, old);
}

/// The object that results from applying `config` to the current one. Errors: see [`apply_error`].
pub fn apply(
    call: &Call,
    current: Option<&Value>,
    config: Configuration<'_>,
    sub: Subresource,
    force: bool,
) -> Result<Value, ApiError> {
    let manager = call.field_manager();
    semantics::apply::apply(&writer(call, &manager, sub), current, config, force).map_err(apply_error)
}

/// As [`writer`], for the Scale of the resource.
fn scale_writer<'a>(call: &'a Call, manager: &'a str) -> Writer<'a> {
    Writer {
        api_version: "autoscaling/v1",
        message: api::schema::by_kind("autoscaling", "v1", "Scale"),
        reset: Vec::new(),
        ..writer(call, manager, Subresource::Main)
    }
}

/// As [`track`], for a Scale.
pub fn track_scale(call: &Call, scale: &mut Value, live: &Value) {
    let manager = call.field_manager();
    semantics::apply::track(&scale_writer(call, &manager), scale, Some(live));
}

/// As [`apply`], for a Scale.
pub fn apply_scale(call: &Call, live: &Value, config: Configuration<'_>, force: bool) -> Result<Value, ApiError> {
    let manager = call.field_manager();
    semantics::apply::apply(&scale_writer(call, &manager), Some(live), config, force).map_err(apply_error)
}

/// 409 with one cause per conflict; 400; 500 for what does not conform to the schema.
pub fn apply_error(error: ApplyError) -> ApiError {
    match error {
        ApplyError::Malformed(text) => ApiError::bad_request(text),
        ApplyError::Untyped(_) => ApiError::new(500, "", error.to_string()),
        ApplyError::Conflicts { message, causes } => {
            let causes: Vec<Value> = causes
                .into_iter()
                .map(|(message, field)| json!({"reason": "FieldManagerConflict", "message": message, "field": field}))
                .collect();
            let mut error = ApiError::new(409, "Conflict", message);
            error.details = Some(json!({"causes": causes}));
            error
        }
    }
}

//! API errors: what a client reads as a Status of `status: Failure`.
//!
//! Input: what went wrong. Output: HTTP code, reason, message and details with upstream's exact texts.
//! Invariant: code and reason always belong together as in `k8s.io/apimachinery/pkg/api/errors`.
//! Not here: encoding (see `respond`), success statuses.

use serde_json::{Value, json};

/// A failed request. `Display` is the Status message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// StatusReason, such as `NotFound`; empty for none.
    pub reason: &'static str,
    pub message: String,
    /// StatusDetails (`name`, `group`, `kind`, `uid`, `causes`, `retryAfterSeconds`).
    pub details: Option<Value>,
    /// `metadata.continue` of the Status: only for an expired list that may go on inconsistently.
    pub resume: Option<Box<ListResume>>,
}

/// What a client needs to go on with a list whose snapshot has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListResume {
    pub token: String,
    pub remaining: Option<i64>,
}

/// The resource an error speaks of: `pods` or `deployments.apps`.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl ApiError {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, resume: None }
    }

    fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        let mut details = serde_json::Map::new();
        for (key, value) in [("group", group), ("kind", resource), ("name", name)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), Value::from(value));
            }
        }
        self.details = Some(Value::Object(details));
        self
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Self::new(404, "NotFound", message).about(group, resource, name)
    }

    /// No such path.
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with_empty_details()
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(group, resource));
        Self::new(409, "AlreadyExists", message).about(group, resource, name)
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::new(409, "Conflict", message).about(group, resource, name)
    }

    /// The object changed between the client's read and its write.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{what} is forbidden: {why}"),
            (false, false) => format!("{what} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(group, resource, name)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        let text = message.to_string();
        let mut error = Self::new(500, "InternalError", format!("Internal error occurred: {text}"));
        error.details = Some(json!({"causes": [{"message": text}]}));
        error
    }

    /// Upstream's own errors of HTTP carry details, and nothing in them.
    fn with_empty_details(mut self) -> Self {
        self.details = Some(json!({}));
        self
    }

    /// The object says another namespace than the path.
    pub fn wrong_namespace() -> Self {
        Self::bad_request("the namespace of the provided object does not match the namespace sent on the request")
    }

    /// The method is unknown to this path.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            .with_empty_details()
    }

    pub fn not_acceptable(supported: &[&str]) -> Self {
        let list = supported.join(", ");
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {list}"))
    }

    /// Understood, but not possible for this object as it is.
    pub fn unprocessable() -> Self {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request").with_empty_details()
    }

    /// No form of the Accept header is one that this path can answer with at all.
    pub fn no_representation(available: &[&str]) -> Self {
        let list = available.join(", ");
        Self::new(406, "NotAcceptable", format!("406: Not Acceptable\n\nAvailable representations: {list}"))
            .with_empty_details()
    }

    /// A patch of a type that there is not.
    pub fn unsupported_patch_type() -> Self {
        Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type").with_empty_details()
    }

    pub fn unsupported_media_type(supported: &[&str]) -> Self {
        let list = supported.join(", ");
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {list}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// The revision has been compacted, or its events are no longer remembered.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn too_old_resource_version(asked: i64, oldest: i64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    pub fn too_large_resource_version(asked: i64, current: i64) -> Self {
        let mut error =
            Self::new(504, "Timeout", format!("Timeout: Too large resource version: {asked}, current: {current}"));
        error.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1
        }));
        error
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let message = format!("Timeout: {}", message.into());
        let mut error = Self::new(504, "Timeout", message);
        error.details = Some(json!({"retryAfterSeconds": retry_after_seconds}));
        error
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details = Some(json!({"retryAfterSeconds": retry_after_seconds}));
        error
    }

    /// Validation found `causes` (entries of StatusDetails.causes: `reason`, `message`, `field`).
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Value>) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|c| {
                let field = c["field"].as_str().unwrap_or_default();
                let message = c["message"].as_str().unwrap_or_default();
                if field.is_empty() || field == "<nil>" { message.to_owned() } else { format!("{field}: {message}") }
            })
            .collect();
        let joined = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {joined}", qualified(group, kind));
        let mut error = Self::new(422, "Invalid", message).about(group, kind, name);
        if let Some(Value::Object(details)) = &mut error.details {
            details.insert("causes".to_owned(), Value::Array(causes));
        }
        error
    }

    /// Seconds for a `Retry-After` header, if the client should come back by itself.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.details.as_ref()?.get("retryAfterSeconds")?.as_u64()
    }

    /// The Status object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code
        });
        if !self.reason.is_empty() {
            status["reason"] = Value::from(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        if let Some(resume) = &self.resume {
            status["metadata"]["continue"] = Value::from(resume.token.as_str());
            if let Some(remaining) = resume.remaining {
                status["metadata"]["remainingItemCount"] = Value::from(remaining);
            }
        }
        status
    }
}

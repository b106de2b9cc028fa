//! The API's error (and success) object: `meta/v1 Status` as a typed value with upstream's reasons and messages.
//!
//! One constructor per reason; [`Status::to_value`] is the JSON form, `code` the HTTP status. Names of resources in
//! messages carry their group (`deployments.apps "x" not found`).

use serde_json::{Map, Value, json};

/// The message part of every update conflict.
pub const OBJECT_MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// A `Status` object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Empty for success.
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Details>,
}

/// `status.details`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// The resource name for most reasons, the kind for `Invalid`.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

/// One cause in `status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    /// Such as `FieldValueInvalid`, `FieldManagerConflict`.
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// A resource with its group, as messages print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'a> {
    pub group: &'a str,
    pub name: &'a str,
}

impl std::fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

impl<'a> From<&'a crate::kinds::Kind> for Resource<'a> {
    fn from(kind: &'a crate::kinds::Kind) -> Self {
        Resource { group: kind.group, name: kind.plural }
    }
}

impl Status {
    fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Status {
        let details = self.details.get_or_insert_default();
        (details.group, details.kind, details.name) = (group.to_owned(), kind.to_owned(), name.to_owned());
        self
    }

    fn on(self, resource: Resource<'_>, name: &str) -> Status {
        self.about(resource.group, resource.name, name)
    }

    fn retry_after(mut self, seconds: u32) -> Status {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// `{"status":"Success"}` with details of what was done, as a delete answers.
    pub fn success(resource: Resource<'_>, name: &str, uid: &str) -> Status {
        let mut status = Status { code: 200, ..Status::default() }.on(resource, name);
        status.details.get_or_insert_default().uid = uid.to_owned();
        status
    }

    pub fn not_found(resource: Resource<'_>, name: &str) -> Status {
        Status::plain(404, "NotFound", format!("{resource} {name:?} not found")).on(resource, name)
    }

    /// A path that is no resource at all.
    pub fn page_not_found() -> Status {
        Status::plain(404, "NotFound", "the server could not find the requested resource").retry_after(0)
    }

    pub fn already_exists(resource: Resource<'_>, name: &str) -> Status {
        Status::plain(409, "AlreadyExists", format!("{resource} {name:?} already exists")).on(resource, name)
    }

    /// After every try at `generateName` collided.
    pub fn generate_name_conflict(resource: Resource<'_>, name: &str) -> Status {
        let tail = "already exists, the server was not able to generate a unique name for the object";
        Status::plain(409, "AlreadyExists", format!("{resource} {name:?} {tail}")).on(resource, name).retry_after(1)
    }

    /// The general form; [`Status::modified`] is the usual one.
    pub fn conflict(resource: Resource<'_>, name: &str, why: &str) -> Status {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Status::plain(409, "Conflict", message).on(resource, name)
    }

    /// A stale resource version in an update.
    pub fn modified(resource: Resource<'_>, name: &str) -> Status {
        Status::conflict(resource, name, OBJECT_MODIFIED)
    }

    /// Server-side apply would take fields from other managers.
    pub fn apply_conflict(causes: Vec<Cause>, message: String) -> Status {
        let mut status = Status::plain(409, "Conflict", message);
        status.details = Some(Details { causes, ..Details::default() });
        status
    }

    /// Validation failed. Each cause's message is an error body such as `Invalid value: "x": must be ...`.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
        let mut errors: Vec<String> = Vec::new();
        for cause in &causes {
            let error = format!("{}: {}", cause.field, cause.message);
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        let qualified = Resource { group, name: kind };
        let message = match &errors[..] {
            [] => format!("{qualified} {name:?} is invalid"),
            [error] => format!("{qualified} {name:?} is invalid: {error}"),
            _ => format!("{qualified} {name:?} is invalid: [{}]", errors.join(", ")),
        };
        let mut status = Status::plain(422, "Invalid", message).about(group, kind, name);
        status.details.get_or_insert_default().causes = causes;
        status
    }

    /// A resource version or continue token that is no longer there.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::plain(410, "Expired", message)
    }

    pub fn gone(message: impl Into<String>) -> Status {
        Status::plain(410, "Gone", message)
    }

    /// A resource version in the future: the client should try again.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Status {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
        let mut status = Status::plain(504, "Timeout", message).retry_after(1);
        let cause = Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        };
        status.details.get_or_insert_default().causes.push(cause);
        status
    }

    pub fn forbidden(resource: Resource<'_>, name: &str, why: &str) -> Status {
        let message = match (resource.name, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Status::plain(403, "Forbidden", message).on(resource, name)
    }

    pub fn unauthorized() -> Status {
        Status::plain(401, "Unauthorized", "Unauthorized")
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::plain(400, "BadRequest", message)
    }

    pub fn method_not_allowed(resource: Resource<'_>, action: &str) -> Status {
        let message = format!("{action} is not supported on resources of kind \"{resource}\"");
        Status::plain(405, "MethodNotAllowed", message).on(resource, "")
    }

    /// Nothing that the client accepts can be served.
    pub fn not_acceptable(accepted: &[&str]) -> Status {
        let accepted = accepted.join(", ");
        Status::plain(406, "NotAcceptable", format!("only the following media types are accepted: {accepted}"))
    }

    /// The same for a wanted representation such as `Table.v1.meta.k8s.io`.
    pub fn not_acceptable_conversion(target: &str, accepted: &[&str]) -> Status {
        let accepted = accepted.join(", ");
        let head = "only the following media types are accepted when converting to";
        Status::plain(406, "NotAcceptable", format!("{head} {target}: {accepted}"))
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Status {
        let head = "the body of the request was in an unknown format - accepted media types include:";
        Status::plain(415, "UnsupportedMediaType", format!("{head} {}", accepted.join(", ")))
    }

    pub fn request_entity_too_large(message: &str) -> Status {
        Status::plain(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    /// An overloaded server turns a request away.
    pub fn too_many_requests(retry_after_seconds: u32) -> Status {
        let message = "The server has received too many requests and has asked us to try again later.";
        Status::plain(429, "TooManyRequests", format!("Too many requests: {message}")).retry_after(retry_after_seconds)
    }

    /// An action that a budget does not allow now (eviction).
    pub fn not_now(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        Status::plain(429, "TooManyRequests", message).retry_after(retry_after_seconds)
    }

    pub fn timeout(message: &str, retry_after_seconds: u32) -> Status {
        Status::plain(504, "Timeout", format!("Timeout: {message}")).retry_after(retry_after_seconds)
    }

    /// A transient error; the client should try again.
    pub fn server_timeout(resource: Resource<'_>, operation: &str, retry_after_seconds: u32) -> Status {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Status::plain(500, "ServerTimeout", message).on(resource, operation).retry_after(retry_after_seconds)
    }

    pub fn internal_error(error: impl std::fmt::Display) -> Status {
        let mut status = Status::plain(500, "InternalError", format!("Internal error occurred: {error}"));
        let cause = Cause { message: error.to_string(), ..Cause::default() };
        status.details = Some(Details { causes: vec![cause], ..Details::default() });
        status
    }

    pub fn service_unavailable(message: impl Into<String>) -> Status {
        Status::plain(503, "ServiceUnavailable", message)
    }

    pub fn is_success(&self) -> bool {
        self.code < 400
    }

    /// The JSON object, as upstream prints it.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": if self.is_success() { "Success" } else { "Failure" },
        });
        put(&mut value, "message", &self.message);
        put(&mut value, "reason", self.reason);
        if let Some(details) = &self.details {
            value["details"] = details.to_value();
        }
        if !self.is_success() {
            value["code"] = Value::from(self.code);
        }
        value
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut value = Value::Object(Map::new());
        put(&mut value, "name", &self.name);
        put(&mut value, "group", &self.group);
        put(&mut value, "kind", &self.kind);
        put(&mut value, "uid", &self.uid);
        let causes = self.causes.iter().map(|cause| {
            let mut value = Value::Object(Map::new());
            put(&mut value, "reason", &cause.reason);
            put(&mut value, "message", &cause.message);
            put(&mut value, "field", &cause.field);
            value
        });
        if !self.causes.is_empty() {
            value["causes"] = causes.collect();
        }
        if self.retry_after_seconds > 0 {
            value["retryAfterSeconds"] = Value::from(self.retry_after_seconds);
        }
        value
    }
}

fn put(value: &mut Value, key: &str, text: &str) {
    if !text.is_empty() {
        value[key] = Value::from(text);
    }
}

impl From<&Status> for Value {
    fn from(status: &Status) -> Value {
        status.to_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Resource<'_> = Resource { group: "", name: "pods" };
    const DEPLOYMENTS: Resource<'_> = Resource { group: "apps", name: "deployments" };

    fn check(status: &Status, expect: &Value) {
        assert_eq!(&status.to_value(), expect);
    }

    #[test]
    fn not_found_and_conflict() {
        check(
            &Status::not_found(PODS, "x"),
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message":
                "pods \"x\" not found", "reason": "NotFound", "details": {"name": "x", "kind": "pods"}, "code": 404}),
        );
        assert_eq!(
            Status::modified(DEPLOYMENTS, "x").message,
            "Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; please apply your \
             changes to the latest version and try again"
        );
    }

    #[test]
    fn invalid_lists_its_causes() {
        let cause = |field: &str| Cause {
            reason: "FieldValueRequired".to_owned(),
            message: "Required value".to_owned(),
            field: field.to_owned(),
        };
        let one = Status::invalid("apps", "Deployment", "x", vec![cause("spec.selector")]);
        assert_eq!(one.message, "Deployment.apps \"x\" is invalid: spec.selector: Required value");
        let two = Status::invalid("", "Pod", "x", vec![cause("a"), cause("b")]);
        assert_eq!(two.message, "Pod \"x\" is invalid: [a: Required value, b: Required value]");
        assert_eq!(two.to_value()["details"]["causes"][1]["field"], "b");
    }

    #[test]
    fn success_has_no_code() {
        assert!(Status::success(PODS, "x", "u").to_value().get("code").is_none());
    }
}

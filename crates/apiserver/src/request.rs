//! Who is asked for what: paths and query parameters as values.
//!
//! Input: method, path and query. Output: [`RequestInfo`] (upstream's RequestInfo), query parameters, list options.
//! Invariant: pure; a path that is no resource path is a non-resource request, never an error, except the deprecated
//! `/watch/` prefix without a resource.
//! Not here: whether the resource exists.

use crate::chain::{Attributes, Identity};
use crate::error::ApiError;

/// What a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource, without the leading slash (proxy paths).
    pub rest: String,
}

impl RequestInfo {
    pub fn attributes(&self, identity: Identity, query: &Query) -> Attributes {
        let selects = matches!(self.verb.as_str(), "list" | "watch" | "deletecollection");
        let selector =
            |name: &str| if selects { query.get(name).unwrap_or_default().to_owned() } else { String::new() };
        Attributes {
            identity,
            verb: self.verb.clone(),
            is_resource: self.is_resource,
            path: self.path.clone(),
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            field_selector: selector("fieldSelector"),
            label_selector: selector("labelSelector"),
        }
    }
}

/// Subresources of a namespace; anything else after a namespace's name is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

pub fn parse_request(method: &http::Method, path: &str, query: &Query) -> Result<RequestInfo, ApiError> {
    let mut info =
        RequestInfo { path: path.to_owned(), verb: method.as_str().to_ascii_lowercase(), ..RequestInfo::default() };
    let parts: Vec<&str> = match path.trim_matches('/') {
        "" => return Ok(info),
        trimmed => trimmed.split('/').collect(),
    };
    let parts = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => {
            info.version = (*version).to_owned();
            rest
        }
        ["apis", group, version, rest @ ..] if !rest.is_empty() => {
            info.group = (*group).to_owned();
            info.version = (*version).to_owned();
            rest
        }
        _ => return Ok(info),
    };
    info.is_resource = true;
    fill_resource(&mut info, method, parts, query)?;
    Ok(info)
}

fn fill_resource(info: &mut RequestInfo, method: &http::Method, parts: &[&str], query: &Query) -> Result<(), ApiError> {
    let mut parts = parts;
    let mut by_prefix = false;
    if matches!(parts[0], "watch" | "proxy") {
        if parts.len() < 2 {
            return Err(ApiError::bad_request(format!(
                "unable to determine kind and namespace from url, {}",
                info.path
            )));
        }
        info.verb = parts[0].to_owned();
        parts = &parts[1..];
        by_prefix = true;
    } else {
        info.verb = plain_verb(method).to_owned();
    }
    if parts[0] == "namespaces" && parts.len() > 1 {
        info.namespace = parts[1].to_owned();
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
            parts = &parts[2..];
        }
    }
    info.resource = parts[0].to_owned();
    if let Some(name) = parts.get(1) {
        info.name = decode_percent(name, false);
    }
    if let Some(subresource) = parts.get(2).filter(|_| !by_prefix) {
        info.subresource = (*subresource).to_owned();
        info.rest = rest_of_path(&info.path, parts[3..].len());
    }
    if info.name.is_empty() && info.verb == "get" {
        info.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
        if let Some(name) = selected_name(query.get("fieldSelector").unwrap_or_default()) {
            info.name = name;
        }
    }
    if info.name.is_empty() && info.verb == "delete" {
        info.verb = "deletecollection".to_owned();
    }
    Ok(())
}

fn plain_verb(method: &http::Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The last `count` segments of a path, with a trailing slash if the path has one.
fn rest_of_path(path: &str, count: usize) -> String {
    if count == 0 {
        return String::new();
    }
    let trimmed = path.trim_end_matches('/');
    let mut at = trimmed.len();
    for _ in 0..count {
        at = trimmed[..at].rfind('/').unwrap_or(0);
    }
    path[at..].trim_start_matches('/').to_owned()
}

/// The name that a field selector requires, if it requires one.
fn selected_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        let plain = !value.is_empty() && !value.contains(['/', '%']) && value != "." && value != "..";
        plain.then(|| value.to_owned())
    })
}

/// Query parameters in order, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_percent(key, true), decode_percent(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Upstream's reading of a boolean parameter: present and neither `false` nor `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// A whole number. Errors with upstream's text when it is none.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                semantics::field::quote(text)
            ))
        })
    }

    /// `dryRun=All`. Any other value is an error.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        let mut dry = false;
        for value in self.all("dryRun") {
            match value {
                "All" => dry = true,
                other => return Err(invalid_option("dryRun", other, "All")),
            }
        }
        Ok(dry)
    }
}

fn invalid_option(field: &str, value: &str, supported: &str) -> ApiError {
    let message = format!("Unsupported value: \"{value}\": supported values: \"{supported}\"");
    let cause = serde_json::json!({"reason": "FieldValueNotSupported", "message": message, "field": field});
    ApiError::invalid("meta.k8s.io", "CreateOptions", "", vec![cause])
}

/// Decodes `%41` (and `+` as a blank in queries). A broken escape stays as it is.
pub fn decode_percent(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', _, _) if plus => {
                out.push(b' ');
                at += 1;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What to do with unknown and duplicate fields of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The server's default is `Warn`.
pub fn parse_field_validation(query: &Query) -> Result<FieldValidation, ApiError> {
    match query.get("fieldValidation").unwrap_or_default() {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        other => Err(invalid_option("fieldValidation", other, "Ignore\", \"Strict\", \"Warn")),
    }
}

/// How exact the resource version of a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// Not said: upstream's rules for each case.
    Unset,
    Exact,
    NotOlderThan,
}

/// ListOptions of a list or a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub limit: usize,
    pub resume: String,
    /// `None`: the most recent; `Some(0)`: any.
    pub resource_version: Option<i64>,
    pub version_match: VersionMatch,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

pub fn parse_list_options(query: &Query, watch: bool) -> Result<ListOptions, ApiError> {
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let version_match = match query.get("resourceVersionMatch").unwrap_or_default() {
        "" => VersionMatch::Unset,
        "Exact" => VersionMatch::Exact,
        "NotOlderThan" => VersionMatch::NotOlderThan,
        other => {
            return Err(list_error(
                "resourceVersionMatch",
                &format!("Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\""),
                "FieldValueNotSupported",
            ));
        }
    };
    let send_initial_events =
        query.get("sendInitialEvents").filter(|v| !v.is_empty()).map(|_| query.flag("sendInitialEvents"));
    let options = ListOptions {
        label_selector: text("labelSelector"),
        field_selector: text("fieldSelector"),
        limit: query.number("limit")?.map_or(0, |n| usize::try_from(n).unwrap_or(0)),
        resume: text("continue"),
        resource_version: parse_resource_version(&text("resourceVersion"))?,
        version_match,
        timeout_seconds: query.number("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events,
    };
    check_list_options(&options, watch)?;
    Ok(options)
}

/// Upstream's ValidateListOptions.
fn check_list_options(options: &ListOptions, watch: bool) -> Result<(), ApiError> {
    let forbidden =
        |field: &str, why: &str| Err(list_error(field, &format!("Forbidden: {why}"), "FieldValueForbidden"));
    if watch {
        return match (options.send_initial_events, options.version_match) {
            (None, VersionMatch::Unset) | (Some(_), VersionMatch::NotOlderThan) => Ok(()),
            (None, _) => forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (Some(_), VersionMatch::Unset) => forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (Some(_), VersionMatch::Exact) => forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        };
    }
    if options.send_initial_events.is_some() {
        return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    match options.version_match {
        VersionMatch::Unset => Ok(()),
        _ if options.resource_version.is_none() => {
            forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        _ if !options.resume.is_empty() => {
            forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
        }
        VersionMatch::Exact if options.resource_version == Some(0) => {
            forbidden("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        _ => Ok(()),
    }
}

fn list_error(field: &str, message: &str, reason: &str) -> ApiError {
    let cause = serde_json::json!({"reason": reason, "message": message, "field": field});
    ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// Resource versions are opaque to clients and whole numbers to us.
pub fn parse_resource_version(text: &str) -> Result<Option<i64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(number) if number >= 0 => Ok(Some(number)),
        _ => {
            let quoted = semantics::field::quote(text);
            let detail = format!("strconv.ParseUint: parsing {quoted}: invalid syntax");
            let cause = serde_json::json!({
                "reason": "FieldValueInvalid",
                "message": format!("Invalid value: {quoted}: {detail}"),
                "field": "resourceVersion"
            });
            Err(ApiError::invalid("", "", "", vec![cause]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, target: &str, expect: &str) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = method.parse().expect("method");
        let i = parse_request(&method, path, &Query::parse(query)).expect("parses");
        let got = format!(
            "{} g={} v={} ns={} r={} s={} n={} rest={}",
            i.verb, i.group, i.version, i.namespace, i.resource, i.subresource, i.name, i.rest
        );
        assert_eq!(got, expect, "{method} {target}");
    }

    #[test]
    fn paths_become_attributes() {
        check("GET", "/api/v1/pods", "list g= v=v1 ns= r=pods s= n= rest=");
        check("GET", "/api/v1/pods?watch=1", "watch g= v=v1 ns= r=pods s= n= rest=");
        check("GET", "/api/v1/pods?watch=false", "list g= v=v1 ns= r=pods s= n= rest=");
        check("GET", "/api/v1/namespaces/a", "get g= v=v1 ns=a r=namespaces s= n=a rest=");
        check("PUT", "/api/v1/namespaces/a/finalize", "update g= v=v1 ns=a r=namespaces s=finalize n=a rest=");
        check("POST", "/api/v1/namespaces/a/pods", "create g= v=v1 ns=a r=pods s= n= rest=");
        check(
            "PATCH",
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            "patch g=apps v=v1 ns=a r=deployments s=scale n=d rest=",
        );
        check("DELETE", "/api/v1/nodes", "deletecollection g= v=v1 ns= r=nodes s= n= rest=");
        check("GET", "/api/v1/watch/pods", "watch g= v=v1 ns= r=pods s= n= rest=");
        check(
            "GET",
            "/api/v1/namespaces/a/services/s:80/proxy/x/y/",
            "get g= v=v1 ns=a r=services s=proxy n=s:80 rest=x/y/",
        );
        check(
            "GET",
            "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp",
            "list g= v=v1 ns=a r=pods s= n=p rest=",
        );
        check("GET", "/apis/apps/v1", "get g= v= ns= r= s= n= rest=");
        check("GET", "/healthz", "get g= v= ns= r= s= n= rest=");
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(decode_percent("a%2Fb%zz%4", false), "a/b%zz%4");
        assert_eq!(decode_percent("a+b", true), "a b");
    }

    #[test]
    fn list_options_follow_upstreams_rules() {
        let err = |q: &str, watch| parse_list_options(&Query::parse(q), watch).map(|_| ()).map_err(|e| e.code);
        assert_eq!(err("resourceVersion=abc", false), Err(422));
        assert_eq!(err("resourceVersionMatch=Exact", false), Err(422));
        assert_eq!(err("resourceVersionMatch=Exact&resourceVersion=0", false), Err(422));
        assert_eq!(err("sendInitialEvents=true", true), Err(422));
        assert_eq!(err("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true), Ok(()));
        assert_eq!(err("limit=x", false), Err(400));
    }
}

//! Who is asked for what: paths and query parameters as values.
//!
//! Input: method, path and query. Output: [`RequestInfo`] (upstream's RequestInfo), query parameters, list options.
//! Invariant: pure; a path that is no resource path is a non-resource request, never an error, except the deprecated
//! `/watch/` prefix without a resource.
//! Not here: whether the resource exists.

use std::num::IntErrorKind;

use semantics::field::{Errors, Path};

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
        text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
            let detail = match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            ApiError::bad_request(format!("strconv.ParseInt: parsing {}: {detail}", semantics::field::quote(text)))
        })
    }
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
    let send_initial_events =
        query.get("sendInitialEvents").filter(|v| !v.is_empty()).map(|_| query.flag("sendInitialEvents"));
    let limit = query.number("limit")?.map_or(0, |n| usize::try_from(n).unwrap_or(0));
    let timeout_seconds = query.number("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let matching = text("resourceVersionMatch");
    let version = text("resourceVersion");
    let mut errors = Errors::new();
    if watch {
        check_watch(query, &matching, send_initial_events.is_some(), &mut errors);
    } else {
        check_list(query, &matching, &version, &mut errors);
    }
    if !errors.is_empty() {
        let causes = errors.into_vec().iter().map(semantics::FieldError::cause).collect();
        return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", causes));
    }
    let resource_version = parse_resource_version(&version).map_err(|detail| match watch {
        true => ApiError::new(500, "", detail),
        false => ApiError::bad_request(format!("invalid resource version: {detail}")),
    })?;
    Ok(ListOptions {
        label_selector: text("labelSelector"),
        field_selector: text("fieldSelector"),
        // What may be of any moment comes from memory, whole.
        limit: if resource_version == Some(0) && !watch { 0 } else { limit },
        resume: text("continue"),
        resource_version,
        version_match: match matching.as_str() {
            "Exact" => VersionMatch::Exact,
            "NotOlderThan" => VersionMatch::NotOlderThan,
            _ => VersionMatch::Unset,
        },
        timeout_seconds,
        bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events,
    })
}

/// Upstream's ValidateListOptions for a watch.
fn check_watch(query: &Query, matching: &str, sends_initial: bool, errors: &mut Errors) {
    let field = Path::root("resourceVersionMatch");
    if sends_initial && matching != "NotOlderThan" {
        errors.forbidden(field.clone(), "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if !sends_initial && !matching.is_empty() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.forbidden(field.clone(), why);
    }
    if !matches!(matching, "" | "NotOlderThan") {
        errors.not_supported(field.clone(), matching, &["NotOlderThan"]);
    }
    if query.get("continue").is_some_and(|token| !token.is_empty()) {
        errors.forbidden(field, "resourceVersionMatch is forbidden when continue is provided");
    }
}

/// Upstream's ValidateListOptions for a list.
fn check_list(query: &Query, matching: &str, version: &str, errors: &mut Errors) {
    let field = Path::root("resourceVersionMatch");
    if query.get("sendInitialEvents").is_some_and(|value| !value.is_empty()) {
        errors.forbidden(Path::root("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    if matching.is_empty() {
        return;
    }
    if version.is_empty() {
        errors.forbidden(field.clone(), "resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if query.get("continue").is_some_and(|token| !token.is_empty()) {
        errors.forbidden(field.clone(), "resourceVersionMatch is forbidden when continue is provided");
    }
    if !matches!(matching, "Exact" | "NotOlderThan") {
        errors.not_supported(field.clone(), matching, &["Exact", "NotOlderThan", ""]);
    }
    if matching == "Exact" && version == "0" {
        errors.forbidden(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
}

/// Resource versions are opaque to clients and whole numbers to us. Errors: upstream's text for what is none.
pub fn parse_resource_version(text: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let quoted = semantics::field::quote(text);
    match text.parse::<i64>() {
        Ok(number) if number >= 0 => Ok(Some(number)),
        _ => Err(format!(
            "resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: invalid syntax"
        )),
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
        assert_eq!(err("resourceVersion=abc", false), Err(400));
        assert_eq!(err("resourceVersion=abc", true), Err(500));
        assert_eq!(err("continue=x", true), Err(422));
        assert_eq!(err("resourceVersionMatch=Exact", false), Err(422));
        assert_eq!(err("resourceVersionMatch=Exact&resourceVersion=0", false), Err(422));
        assert_eq!(err("sendInitialEvents=true", true), Err(422));
        assert_eq!(err("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true), Ok(()));
        assert_eq!(err("limit=x", false), Err(400));
    }
}

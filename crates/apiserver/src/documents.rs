//! Serves discovery and OpenAPI: request head -> document, through ETags.
//!
//! A [`PathHandler`] over [`crate::discovery`] and [`crate::openapi`]. Documents depend on nothing but the kinds table, so
//! each is built at its first request and kept as bytes; there are as many as paths, representations included, so the cache
//! is bounded. A matching `If-None-Match` is answered 304 without a body.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use api::kinds::{self, split_api_version};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::Value;

use crate::body::{Body, empty, full, response};
use crate::chain::PathHandler;
use crate::discovery::{self, Form, etag};
use crate::encode::value_bytes;
use crate::error::ApiError;
use crate::negotiate::{Offers, Representation, negotiate_output};
use crate::openapi;
use crate::request::Query;
use crate::rest;
use crate::server::error_response;

/// Serves `/api`, `/apis` and below down to group-versions, `/openapi/v2` and `/openapi/v3`.
pub struct Documents {
    server_address: String,
    release: String,
    cache: Mutex<HashMap<String, Document>>,
}

#[derive(Clone)]
struct Document {
    bytes: Bytes,
    content_type: String,
    etag: String,
}

impl Documents {
    /// `server_address` is `host:port` as clients reach the server; `release` is its version, such as `v1.37.2+holdfast`.
    pub fn new(server_address: impl Into<String>, release: impl Into<String>) -> Self {
        Documents { server_address: server_address.into(), release: release.into(), cache: Mutex::default() }
    }

    /// `Ok(None)`: not one of ours; `Err`: ours, and the answer is this.
    fn answer(&self, parts: &Parts) -> Option<Response<Body>> {
        let path = parts.uri.path().trim_matches('/');
        let ours = matches!(path, "api" | "apis" | "openapi/v2" | "openapi/v3")
            || ["api/", "apis/", "openapi/v3/"].iter().any(|prefix| path.starts_with(prefix));
        if !ours {
            return None;
        }
        let read = parts.method == Method::GET || (parts.method == Method::HEAD && path.starts_with("openapi/"));
        if !read {
            return Some(error_response(&ApiError::method_not_allowed(), Representation::JSON));
        }
        let accept = header_text(parts, &header::ACCEPT);
        if let Some(path) = path.strip_prefix("openapi/v3/")
            && let Some(redirect) = self.redirect(path, parts.uri.query().unwrap_or_default())
        {
            return Some(redirect);
        }
        if path.starts_with("openapi/") {
            return self.document(path, Form::Legacy, accept).map(|document| respond_cacheable(parts, path, &document));
        }
        let form = if matches!(path, "api" | "apis") { discovery::negotiate(accept) } else { Form::Legacy };
        if form == Form::Legacy {
            return self.legacy(parts, path);
        }
        self.document(path, form, accept).map(|document| respond_cacheable(parts, path, &document))
    }

    /// Unaggregated discovery: in every form of objects, and never cached.
    fn legacy(&self, parts: &Parts, path: &str) -> Option<Response<Body>> {
        let Some(value) = self.build(path, Form::Legacy) else {
            let known = is_below_known_group(path);
            return known.then(|| error_response(&ApiError::no_such_resource(), Representation::JSON));
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let answer = negotiate_output(&parts.headers, &query, Offers::PLAIN).and_then(|wants| {
            let bytes = value_bytes(&value, wants.media, wants.pretty)?;
            Ok(rest::respond(StatusCode::OK, wants.media, bytes))
        });
        Some(answer.unwrap_or_else(|error| error_response(&error, Representation::JSON)))
    }

    /// A document asked for by the hash of another build has moved.
    fn redirect(&self, path: &str, query: &str) -> Option<Response<Body>> {
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("hash="))?;
        let hash = openapi::v3_hash(path, &self.release);
        if asked == hash {
            return None;
        }
        let mut response = response(StatusCode::MOVED_PERMANENTLY, empty());
        let location = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")).ok()?;
        response.headers_mut().insert(header::LOCATION, location);
        Some(response)
    }

    fn document(&self, path: &str, form: Form, accept: &str) -> Option<Document> {
        let protobuf = path == "openapi/v2" && accept.split(',').next().is_some_and(is_gnostic);
        let key = format!("{path} {form:?} {protobuf}");
        if let Some(document) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Some(document.clone());
        }
        let value = self.build(path, form)?;
        let (bytes, content_type) = if protobuf {
            (openapi::v2_protobuf(&value), openapi::V2_PROTOBUF.to_owned())
        } else {
            (value.to_string().into_bytes(), form.content_type())
        };
        let etag = etag(&bytes);
        let document = Document { bytes: bytes.into(), content_type, etag };
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(key, document.clone());
        Some(document)
    }

    fn build(&self, path: &str, form: Form) -> Option<Value> {
        let kinds = kinds::all();
        match (path, form) {
            ("api", Form::Legacy) => Some(discovery::api_versions(&self.server_address)),
            ("apis", Form::Legacy) => Some(discovery::group_list(kinds)),
            ("api" | "apis", form) => Some(discovery::aggregated(kinds, path == "api", form)),
            ("openapi/v2", _) => Some(openapi::v2_document(kinds, &self.release)),
            ("openapi/v3", _) => Some(openapi::v3_index(kinds, &self.release)),
            _ => {
                if let Some(path) = path.strip_prefix("openapi/v3/") {
                    return openapi::v3_document(kinds, path, &self.release);
                }
                if let Some(version) = path.strip_prefix("api/") {
                    return discovery::resource_list(kinds, "", version);
                }
                match path.strip_prefix("apis/")? {
                    group if !group.contains('/') => discovery::group(kinds, group),
                    api_version => {
                        let (group, version) = split_api_version(api_version);
                        discovery::resource_list(kinds, group, version)
                    }
                }
            }
        }
    }
}

impl PathHandler for Documents {
    fn paths(&self) -> Vec<String> {
        let versions = kinds::all().iter().map(|kind| match kind.group {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/{}", kind.version),
        });
        let groups = kinds::all().iter().filter(|kind| !kind.group.is_empty());
        let fixed = ["/api", "/apis", "/openapi/v2", "/openapi/v3"].map(str::to_owned);
        let all: BTreeSet<String> =
            versions.chain(groups.map(|kind| format!("/apis/{}", kind.group))).chain(fixed).collect();
        all.into_iter().collect()
    }

    fn serve<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Option<Response<Body>>> {
        Box::pin(async { self.answer(parts) })
    }
}

/// Whether something is served below the group that the path names, though not this version of it.
fn is_below_known_group(path: &str) -> bool {
    let known = |group: &str| kinds::all().iter().any(|kind| kind.group == group);
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", ..] => true,
        ["apis", group, _, ..] => known(group),
        _ => false,
    }
}

fn is_gnostic(clause: &str) -> bool {
    clause.trim().starts_with("application/com.github.proto-openapi.spec.v2")
}

fn header_text<'p>(parts: &'p Parts, name: &header::HeaderName) -> &'p str {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn respond_cacheable(parts: &Parts, path: &str, document: &Document) -> Response<Body> {
    let quoted = format!("\"{}\"", document.etag);
    let known = header_text(parts, &header::IF_NONE_MATCH).split(',').any(|tag| tag.trim() == quoted);
    let mut response =
        if known { response(StatusCode::NOT_MODIFIED, empty()) } else { Response::new(full(document.bytes.clone())) };
    // With a hash in the query the answer never changes.
    let forever = path.starts_with("openapi/v3/") && parts.uri.query().is_some_and(|query| query.contains("hash="));
    let caching = if forever { "public, immutable" } else { "public" };
    let headers = response.headers_mut();
    let mut put = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    put(header::ETAG, &quoted);
    put(header::VARY, "Accept");
    put(header::CACHE_CONTROL, caching);
    put(header::CONTENT_TYPE, &document.content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn get(path: &str, headers: &[(&str, &str)]) -> Option<Response<Body>> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Documents::new("127.0.0.1:6443", "v1.37.2").answer(&parts)
    }

    fn check(path: &str, headers: &[(&str, &str)], expect: (u16, &str)) -> Response<Body> {
        let response = get(path, headers).unwrap();
        let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap());
        assert_eq!((response.status().as_u16(), content_type.unwrap_or_default()), expect, "{path}");
        response
    }

    #[test]
    fn paths_and_representations() {
        let json = "application/json";
        for path in
            ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/openapi/v2", "/openapi/v3/apis/apps/v1"]
        {
            check(path, &[], (200, json));
        }
        let wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let got = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        check("/apis", &[("accept", wanted)], (200, got));
        // Asked for by its older name, too, which clients cannot parse in an answer: `@` is no part of a media type.
        for asked in [openapi::V2_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"] {
            check("/openapi/v2", &[("accept", asked)], (200, openapi::V2_PROTOBUF));
        }
        check("/apis/apps/v1", &[("accept", "application/yaml")], (200, "application/yaml"));
        check(
            "/apis/apps/v1",
            &[("accept", "application/vnd.kubernetes.protobuf")],
            (200, "application/vnd.kubernetes.protobuf"),
        );
        check("/apis/apps/v1", &[("accept", "text/plain")], (406, json));
        check("/apis/apps/v9", &[], (404, json));
        for path in ["/healthz", "/apis/none", "/apis/none/v1", "/openapi/v3/apis/none/v1", "/openapi"] {
            assert!(get(path, &[]).is_none(), "{path}");
        }
    }

    #[test]
    fn etags_and_hashes() {
        let first = check("/openapi/v2", &[], (200, "application/json"));
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        check("/openapi/v2", &[("if-none-match", &tag)], (304, "application/json"));
        assert!(check("/api/v1", &[], (200, "application/json")).headers().get("etag").is_none());
        let stale = get("/openapi/v3/api/v1?hash=OLD", &[]).unwrap();
        assert_eq!(stale.status(), 301);
        let location = stale.headers()["location"].to_str().unwrap().to_owned();
        let fresh = check(&location, &[], (200, "application/json"));
        assert_eq!(fresh.headers()["cache-control"], "public, immutable");
    }
}

//! List: entries of a consistent moment, whole or in chunks.
//!
//! ```text
//! options -> at (now | a past revision | a continued list) -> snapshot or store range -> selection -> chunks
//! ```
//!
//! Invariants: the revision in the answer is exact for the entries; a continued list shows the moment of its first chunk, or
//! 410 with a token that goes on inconsistently; "now" is read from the caches, which have caught up with all servers before
//! (see `rest`).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use store::{KvError, RangeRequest, key_after};

use super::Call;
use super::select::Selection;
use crate::body::{self, Body, BoxError};
use crate::cache::Entry;
use crate::encode::{Encoder, ListMeta};
use crate::error::{ApiError, ListResume};
use crate::negotiate::Representation;
use crate::registry::write::kv_error;
use crate::request::{ListOptions, VersionMatch, parse_list_options};
use crate::stored::parse_entry;

/// How long a read waits for a revision that has not come yet.
const FRESH_PATIENCE: Duration = Duration::from_secs(3);
/// Keys of one read of a past revision.
const PAGE: usize = 1_000;

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// What a list has found.
pub struct Listed {
    pub entries: Vec<Arc<Entry>>,
    pub meta: ListMeta,
}

pub async fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let representation = call.output(false)?;
    let options = parse_list_options(&call.query, false)?;
    let Listed { entries, meta } = select_entries(call, &options).await?;
    reply(call, StatusCode::OK, representation, entries, &meta)
}

/// A list as a response whose body is made while it is sent.
pub fn reply(
    call: &Call,
    code: StatusCode,
    representation: Representation,
    entries: Vec<Arc<Entry>>,
    meta: &ListMeta,
) -> Result<Response<Body>, ApiError> {
    let mut chunks = call.encoder(representation)?.list(entries, meta)?;
    // The first chunk is made before the head goes out, so that what cannot be encoded is a 500 and no broken body.
    let first = chunks.next().transpose()?.unwrap_or_default();
    let rest = chunks.map(|chunk| chunk.map_err(|error| Box::new(error) as BoxError));
    let body = body::stream(stream::iter(std::iter::once(Ok(first)).chain(rest)));
    let mut response = body::response(code, body);
    let content_type = HeaderValue::from_static(representation.media.content_type());
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// The moment that a list shows, and where it begins.
enum At {
    Now { from: Option<Bytes> },
    Past { revision: i64, from: Option<Bytes> },
}

pub async fn select_entries(call: &Call, options: &ListOptions) -> Result<Listed, ApiError> {
    let selection = Selection::parse(call, options)?;
    let prefix = list_prefix(call, &selection);
    let Some(prefix) = prefix else {
        let revision = call.registry().feed.applied();
        return Ok(Listed { entries: Vec::new(), meta: ListMeta { revision, ..ListMeta::default() } });
    };
    match plan_at(call, options).await? {
        At::Now { from } => Ok(list_now(call, options, &selection, &prefix, from.as_ref())),
        At::Past { revision, from } => list_past(call, options, &selection, &prefix, (revision, from)).await,
    }
}

/// What the keys start with; `None` when nothing can match.
fn list_prefix(call: &Call, selection: &Selection) -> Option<Vec<u8>> {
    let namespace = call.namespace();
    let wanted = selection.namespace.as_deref().filter(|_| call.resource.namespaced);
    match wanted {
        Some(wanted) if !namespace.is_empty() && namespace != wanted => None,
        Some(wanted) => Some(call.resource.source.namespace_prefix(wanted)),
        None => Some(call.resource.source.namespace_prefix(namespace)),
    }
}

async fn plan_at(call: &Call, options: &ListOptions) -> Result<At, ApiError> {
    if !options.resume.is_empty() {
        if options.resource_version.is_some_and(|version| version != 0) {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let (revision, from) = decode_continue(&options.resume, &call.resource.source.namespace_prefix(""))?;
        let from = Some(from);
        return Ok(if revision < 0 { At::Now { from } } else { At::Past { revision, from } });
    }
    let asked = options.resource_version.unwrap_or(0);
    if asked > 0 {
        fresh_enough(call, asked).await?;
    }
    let exact = match options.version_match {
        VersionMatch::Exact => true,
        VersionMatch::NotOlderThan => false,
        VersionMatch::Unset => asked > 0 && options.limit > 0,
    };
    if exact && asked > 0 {
        return Ok(At::Past { revision: asked, from: None });
    }
    Ok(At::Now { from: None })
}

/// Waits a little for a revision of the future.
pub async fn fresh_enough(call: &Call, revision: i64) -> Result<(), ApiError> {
    let feed = &call.registry().feed;
    feed.wait_applied(revision, FRESH_PATIENCE)
        .await
        .map_err(|_| ApiError::too_large_resource_version(revision, feed.applied()))
}

fn list_now(call: &Call, options: &ListOptions, selection: &Selection, prefix: &[u8], from: Option<&Bytes>) -> Listed {
    // In this order: the snapshot holds everything up to `applied`, and nothing after its own revision.
    let applied = call.registry().feed.applied();
    let snapshot = call.resource.cache.snapshot();
    let revision = applied.max(snapshot.revision);
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut entries = Vec::new();
    let mut resume = None;
    if let Some(name) = selection.name.as_ref().filter(|_| !call.namespace().is_empty() || !call.resource.namespaced) {
        let found = snapshot.get(&call.key(name)).filter(|entry| selection.matches(entry));
        entries.extend(found.cloned());
        return Listed { entries, meta: ListMeta { revision, ..ListMeta::default() } };
    }
    for entry in snapshot.range(prefix, from.map(AsRef::as_ref)) {
        if !selection.matches(entry) {
            continue;
        }
        if entries.len() == limit {
            resume = entries.last().map(|last: &Arc<Entry>| key_after(&last.key));
            break;
        }
        entries.push(entry.clone());
    }
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    if let Some(next) = resume {
        meta.resume = encode_continue(revision, &next, &call.resource.source.prefix);
        if selection.is_everything() {
            let rest = snapshot.range(prefix, Some(&next)).count();
            meta.remaining = i64::try_from(rest).ok();
        }
    }
    Listed { entries, meta }
}

async fn list_past(
    call: &Call,
    options: &ListOptions,
    selection: &Selection,
    prefix: &[u8],
    (revision, from): (i64, Option<Bytes>),
) -> Result<Listed, ApiError> {
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let end = store::prefix_end(prefix);
    let mut from_key = match &from {
        Some(from) if from.as_ref() > prefix => from.clone(),
        _ => Bytes::copy_from_slice(prefix),
    };
    let mut listed = Listed { entries: Vec::new(), meta: ListMeta { revision, ..ListMeta::default() } };
    loop {
        let request = RangeRequest {
            key: from_key.clone(),
            end: end.clone(),
            revision,
            limit: limit.saturating_add(1).min(PAGE),
            ..RangeRequest::default()
        };
        let page = match call.registry().kv.range(request).await {
            Ok(page) => page,
            Err(KvError::Compacted { .. }) => return Err(compacted(call, from.as_ref())),
            Err(error) => return Err(kv_error(&error)),
        };
        let (total, mut seen) = (page.count, 0);
        for kv in &page.kvs {
            if listed.entries.len() == limit {
                let last = listed.entries.last().map(|entry| key_after(&entry.key)).unwrap_or_default();
                listed.meta.resume = encode_continue(revision, &last, &call.resource.source.prefix);
                if selection.is_everything() {
                    listed.meta.remaining = Some(total - seen);
                }
                return Ok(listed);
            }
            seen += 1;
            match parse_entry(&call.resource.source, kv) {
                Ok(entry) if selection.matches(&entry) => listed.entries.push(Arc::new(entry)),
                Ok(_) => {}
                Err(error) => return Err(ApiError::internal(error)),
            }
        }
        match page.kvs.last() {
            Some(last) if page.more => from_key = key_after(&last.key),
            _ => return Ok(listed),
        }
    }
}

/// 410: for a continued list with a token to go on with what is there now.
fn compacted(call: &Call, from: Option<&Bytes>) -> ApiError {
    let Some(from) = from else {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    };
    let mut error = ApiError::expired(CONTINUE_EXPIRED);
    let token = encode_continue(-1, from, &call.resource.source.prefix);
    error.resume = Some(Box::new(ListResume { token, remaining: None }));
    error
}

/// The content of a continue token; a public format that never changes.
#[derive(Serialize, Deserialize)]
struct ContinueToken {
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

fn encode_continue(revision: i64, key: &[u8], prefix: &[u8]) -> String {
    let start = String::from_utf8_lossy(key.strip_prefix(prefix).unwrap_or(key)).into_owned();
    let token = ContinueToken { v: "meta.k8s.io/v1".to_owned(), rv: revision, start };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn decode_continue(token: &str, prefix: &[u8]) -> Result<(i64, Bytes), ApiError> {
    let bad =
        |detail: String| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {detail}"));
    let bytes = URL_SAFE_NO_PAD.decode(token.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let parsed: ContinueToken = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if parsed.v != "meta.k8s.io/v1" {
        return Err(bad(format!("server does not recognize this encoded version {}", parsed.v)));
    }
    if parsed.rv == 0 {
        return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned()));
    }
    if parsed.start.is_empty() {
        return Err(bad("encoded start key empty (version meta.k8s.io/v1)".to_owned()));
    }
    if parsed.start.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(bad(parsed.start));
    }
    let mut key = prefix.to_vec();
    key.extend_from_slice(parsed.start.as_bytes());
    Ok((parsed.rv, Bytes::from(key)))
}

/// For watches that begin with a list: the encoder of the call.
pub fn encoder(call: &Call, stream: bool) -> Result<Encoder, ApiError> {
    call.encoder(call.output(stream)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_are_upstreams() {
        let token = encode_continue(42, b"/registry/pods/default/a\0", b"/registry/pods/");
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(&token).expect("base64")).expect("utf-8");
        assert_eq!(text, r#"{"v":"meta.k8s.io/v1","rv":42,"start":"default/a\u0000"}"#);
        let (revision, key) = decode_continue(&token, b"/registry/pods/").expect("valid");
        assert_eq!((revision, key.as_ref()), (42, b"/registry/pods/default/a\0".as_ref()));
    }

    #[test]
    fn a_token_cannot_leave_its_resource() {
        let token = encode_continue(42, b"../secrets/default/a", b"/registry/pods/");
        assert_eq!(decode_continue(&token, b"/registry/pods/").map_err(|e| e.code), Err(400));
        assert_eq!(decode_continue("%%%", b"/registry/pods/").map_err(|e| e.code), Err(400));
    }
}

//! Answers of a proxied server, with its links led back through the proxy.
//!
//! ```text
//! Response -> Location, or a text/html body: inflate -> html -> deflate
//!                                                        +-- Links: which URLs, and what becomes of them
//! ```
//!
//! Rules are upstream's: only URLs with an absolute path that name no other host change; a response with a `Location` keeps its
//! body; other types, unknown codings and parts of a page pass as they are. Invariant: nothing is held back but one tag and one
//! piece of the body, so that a page may be of any length. Not here: URLs in scripts and style sheets.

mod coding;
mod html;

use bytes::Bytes;
use futures::stream::{Stream, try_unfold};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;

use crate::body::{Body, BoxError, stream};
use coding::{Coding, Page};
use html::Rewriter;

/// Where links of a proxied server lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Path of the proxy, without a slash at its end.
    proxy: String,
    /// `host:port` and `host` by which the proxied server may call itself.
    own: Vec<String>,
}

impl Links {
    pub fn new(proxy: &str, own: Vec<String>) -> Self {
        // Slashes that say nothing would make every link longer.
        Self { proxy: format!("/{}", proxy.trim_matches('/')), own }
    }

    /// For URLs that stand in an attribute of a tag, quoted or not.
    fn in_html(self) -> Self {
        let escape = |c: char| match c {
            '&' | '"' | '\'' | '<' | '>' | '`' | '=' => format!("&#{};", u32::from(c)),
            other => other.to_string(),
        };
        Self { proxy: self.proxy.chars().map(escape).collect(), own: self.own }
    }

    /// What a URL must become; `None`: it is right as it is.
    fn rewrite(&self, url: &[u8]) -> Option<Vec<u8>> {
        let (authority, path) = split(url)?;
        if path.first() != Some(&b'/') || authority.is_some_and(|host| !self.is_own(host)) {
            return None;
        }
        let behind = path.strip_prefix(self.proxy.as_bytes());
        if behind.is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?' | b'#'))) {
            return authority.map(|_| path.to_vec());
        }
        Some([self.proxy.as_bytes(), path].concat())
    }

    fn is_own(&self, authority: &[u8]) -> bool {
        self.own.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(authority))
    }
}

/// The authority without user, if there is one, and the path with all that follows. `None` for `mailto:` and its like.
fn split(url: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let scheme = url.iter().take_while(|byte| is_scheme(byte)).count();
    let (has_scheme, rest) = match url[scheme..].split_first() {
        Some((b':', rest)) if scheme > 0 => (true, rest),
        _ => (false, url),
    };
    let Some(rest) = rest.strip_prefix(b"//") else { return (!has_scheme).then_some((None, rest)) };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let user = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    Some((Some(&authority[user..]), path))
}

/// The response with its links led through the proxy.
pub fn lead(mut response: Response<Body>, links: Links) -> Response<Body> {
    if let Some(location) = response.headers().get(LOCATION) {
        if let Some(Ok(location)) = links.rewrite(location.as_bytes()).map(|url| HeaderValue::from_bytes(&url)) {
            response.headers_mut().insert(LOCATION, location);
        }
        return response;
    }
    if !is_html(response.headers()) || response.status() == StatusCode::PARTIAL_CONTENT {
        return response;
    }
    let Some(coding) = Coding::of(response.headers().get(CONTENT_ENCODING)) else { return response };
    response.headers_mut().remove(CONTENT_LENGTH);
    response.map(|body| stream(pieces(body, Page::new(coding, Rewriter::new(links.in_html())))))
}

fn is_html(headers: &HeaderMap) -> bool {
    let content = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// More of a body than this is not worked on at a time: a compressed piece may be a thousand times as long.
const PIECE_BYTES_MAX: usize = 8 << 10;

struct Work {
    body: Body,
    /// Of the last frame, not worked on yet.
    left: Bytes,
    page: Page,
}

fn pieces(body: Body, page: Page) -> impl Stream<Item = Result<Bytes, BoxError>> {
    try_unfold(Some(Work { body, left: Bytes::new(), page }), |work| async move {
        let Some(mut work) = work else { return Ok(None) };
        loop {
            let Some(piece) = next_piece(&mut work).await? else {
                return Ok(Some((Bytes::from(work.page.finish()?), None)));
            };
            let out = work.page.push(&piece)?;
            if !out.is_empty() {
                return Ok(Some((Bytes::from(out), Some(work))));
            }
        }
    })
}

async fn next_piece(work: &mut Work) -> Result<Option<Bytes>, BoxError> {
    while work.left.is_empty() {
        let Some(frame) = work.body.frame().await else { return Ok(None) };
        // Trailers speak of the body as it was.
        work.left = frame?.into_data().unwrap_or_default();
    }
    Ok(Some(work.left.split_to(work.left.len().min(PIECE_BYTES_MAX))))
}

#[cfg(test)]
mod tests;

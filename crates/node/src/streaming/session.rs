//! A client's exec or attach session, whatever protocol it came over.
//!
//! In: an upgrade request. Out: a [`Session`]: stdin and resize to read, stdout, stderr and the status to write.
//!
//! Served: WebSocket v5 (with half-close), v4, unversioned, and their base64 forms; SPDY/3.1 v4 to v1.
//!
//! Invariant: the streams are those of the request's options, no others. A SPDY client has 30 s to open them.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::spdy::{self, Closed};
use super::{Refusal, text_body, websocket};
use crate::access::{ResponseBody, StreamOptions};

const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// SPDY's own negotiation header.
pub const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

/// How the end of a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFormat {
    /// A metav1.Status as JSON (v4, v5).
    Json,
    /// The message of a failure, nothing for success (before v4).
    Text,
}

/// What the client and we agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    WebSocket { codec: websocket::Codec, half_close: bool, status: StatusFormat },
    Spdy { resize: bool, status: StatusFormat },
}

/// The write side of one stream.
#[derive(Clone)]
pub enum Output {
    Spdy(spdy::Output),
    Channel(websocket::ChannelWriter),
}

impl Output {
    pub async fn write(&self, data: Bytes) -> Result<(), Closed> {
        match self {
            Self::Spdy(output) => output.write(data).await,
            Self::Channel(writer) => writer.write(data).await,
        }
    }

    /// Tells the client that nothing follows, where the protocol can.
    pub async fn finish(&self) -> Result<(), Closed> {
        match self {
            Self::Spdy(output) => output.finish().await,
            Self::Channel(_) => Ok(()),
        }
    }
}

/// See the module.
pub struct Session {
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub resize: Option<mpsc::Receiver<Bytes>>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    pub error: Output,
    pub status: StatusFormat,
    /// The client has gone, or the session was closed.
    pub ended: CancellationToken,
    closer: Closer,
}

enum Closer {
    Spdy(spdy::Connection),
    Channel(websocket::ChannelWriter),
}

impl Session {
    /// Says goodbye after everything written, and waits until it is out.
    pub async fn close(self) {
        match self.closer {
            Closer::Spdy(connection) => connection.close().await,
            Closer::Channel(writer) => {
                if writer.close().await.is_ok() {
                    self.ended.cancelled().await;
                }
            }
        }
    }
}

/// A negotiated upgrade: the answer to send, and what to make of the connection afterwards.
pub struct Negotiated {
    pub response: Response<ResponseBody>,
    pub protocol: Protocol,
    upgrade: OnUpgrade,
}

/// Agrees on a protocol, or says why not.
pub fn negotiate(request: &mut Request<Incoming>) -> Result<Negotiated, Refusal> {
    let (protocol, response) = if websocket::is_requested(request.headers()) {
        let (protocol, name) = choose_websocket(&websocket::offered_protocols(request.headers()))?;
        let response = websocket::accept::<Bytes>(request.headers(), name)
            .ok_or_else(|| Refusal::bad_request("the WebSocket handshake has no key"))?;
        (protocol, response.map(text_body))
    } else {
        let (protocol, name) = choose_spdy(request.headers())?;
        (protocol, spdy_response(name))
    };
    Ok(Negotiated { response, protocol, upgrade: hyper::upgrade::on(request) })
}

/// The answer that accepts a SPDY upgrade.
pub fn spdy_response(protocol: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(text_body(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(PROTOCOL_HEADER, HeaderValue::from_static(protocol));
    response
}

fn choose_websocket(offered: &[&str]) -> Result<(Protocol, &'static str), Refusal> {
    use websocket::Codec::{Base64, Binary};
    let known = [
        ("v5.channel.k8s.io", Binary, true, StatusFormat::Json),
        ("v4.channel.k8s.io", Binary, false, StatusFormat::Json),
        ("v4.base64.channel.k8s.io", Base64, false, StatusFormat::Json),
        ("channel.k8s.io", Binary, false, StatusFormat::Text),
        ("base64.channel.k8s.io", Base64, false, StatusFormat::Text),
    ];
    if offered.is_empty() {
        return Ok((Protocol::WebSocket { codec: Binary, half_close: false, status: StatusFormat::Text }, ""));
    }
    let found = offered.iter().find_map(|name| known.iter().find(|(known, ..)| known == name));
    let (name, codec, half_close, status) = found.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, ..)| *name).collect();
        Refusal::bad_request(format!("requested protocol(s) are not supported: {offered:?}; supports {names:?}"))
    })?;
    Ok((Protocol::WebSocket { codec: *codec, half_close: *half_close, status: *status }, name))
}

fn choose_spdy(headers: &HeaderMap) -> Result<(Protocol, &'static str), Refusal> {
    require_spdy_upgrade(headers)?;
    let known = [
        ("v4.channel.k8s.io", true, StatusFormat::Json),
        ("v3.channel.k8s.io", true, StatusFormat::Text),
        ("v2.channel.k8s.io", false, StatusFormat::Text),
        ("channel.k8s.io", false, StatusFormat::Text),
    ];
    let offered = spdy_protocols(headers);
    if offered.is_empty() {
        return Ok((Protocol::Spdy { resize: false, status: StatusFormat::Text }, "channel.k8s.io"));
    }
    let found = offered.iter().find_map(|name| known.iter().find(|(known, ..)| known == name));
    let (name, resize, status) = found.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, ..)| *name).collect();
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {names:?}"
        );
        Refusal { code: StatusCode::FORBIDDEN, message }
    })?;
    Ok((Protocol::Spdy { resize: *resize, status: *status }, name))
}

/// 400 unless the request upgrades to SPDY/3.1.
pub fn require_spdy_upgrade(headers: &HeaderMap) -> Result<(), Refusal> {
    let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case(b"SPDY/3.1") {
        return Ok(());
    }
    Err(Refusal::bad_request("unable to upgrade: missing upgrade headers in request"))
}

/// The protocols offered in SPDY's header, which may come several times or as a list.
pub fn spdy_protocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(PROTOCOL_HEADER).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

impl Negotiated {
    /// Waits for the upgrade and the client's streams. `None`: the client went, or did not open them in time.
    pub async fn session(upgrade: OnUpgrade, protocol: Protocol, options: &StreamOptions) -> Option<Session> {
        let transport: TokioIo<Upgraded> = TokioIo::new(upgrade.await.ok()?);
        match protocol {
            Protocol::WebSocket { codec, half_close, status } => {
                Some(websocket_session(transport, codec, half_close, status, options).await)
            }
            Protocol::Spdy { resize, status } => {
                let connection = spdy::Connection::start(transport, spdy::Role::Server);
                let streams = spdy_session(connection, resize, status, options);
                tokio::time::timeout(STREAM_CREATION_TIMEOUT, streams).await.ok()?
            }
        }
    }

    /// The response, the protocol and the pending upgrade.
    pub fn into_parts(self) -> (Response<ResponseBody>, Protocol, OnUpgrade) {
        (self.response, self.protocol, self.upgrade)
    }
}

async fn websocket_session(
    transport: TokioIo<Upgraded>,
    codec: websocket::Codec,
    half_close: bool,
    status: StatusFormat,
    options: &StreamOptions,
) -> Session {
    // stdin, stdout, stderr, error, resize.
    let readable = [options.stdin, false, false, false, true];
    let mut channels = websocket::start(transport, codec, half_close, &readable).await;
    let output = |channel: u8| Output::Channel(channels.output.channel(channel));
    let session = Session {
        stdin: channels.inputs.first_mut().and_then(Option::take),
        resize: channels.inputs.last_mut().and_then(Option::take),
        stdout: options.stdout.then(|| output(1)),
        stderr: options.stderr.then(|| output(2)),
        error: output(3),
        status,
        ended: channels.ended.clone(),
        closer: Closer::Channel(channels.output.clone()),
    };
    // An empty message on the first writable channel tells the client that the connection stands.
    let first = session.stdout.as_ref().or(session.stderr.as_ref()).unwrap_or(&session.error);
    if first.write(Bytes::new()).await.is_err() {
        session.ended.cancel();
    }
    session
}

async fn spdy_session(
    mut connection: spdy::Connection,
    resize: bool,
    status: StatusFormat,
    options: &StreamOptions,
) -> Option<Session> {
    let wanted = [true, options.stdin, options.stdout, options.stderr, options.tty && resize];
    let mut missing = wanted.iter().filter(|wanted| **wanted).count();
    let (mut error, mut stdin, mut stdout, mut stderr, mut resize) = (None, None, None, None, None);
    while missing > 0 {
        let stream = connection.accept().await?;
        let place = match stream.headers.get("streamType") {
            Some("error") => &mut error,
            Some("stdin") => &mut stdin,
            Some("stdout") => &mut stdout,
            Some("stderr") => &mut stderr,
            Some("resize") => &mut resize,
            other => {
                tracing::debug!(kind = other, "unexpected stream type");
                continue;
            }
        };
        *place = Some(stream);
        missing -= 1;
    }
    let output = |stream: Option<spdy::Stream>| stream.map(|stream| Output::Spdy(stream.output));
    Some(Session {
        stdin: stdin.map(|stream| stream.input),
        resize: resize.map(|stream| stream.input),
        stdout: output(stdout),
        stderr: output(stderr),
        error: output(error)?,
        status,
        ended: connection.ended(),
        closer: Closer::Spdy(connection),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn websocket_protocols() {
        let check = |offered: &[&str], expect: Option<&str>| {
            assert_eq!(choose_websocket(offered).ok().map(|(_, name)| name), expect, "{offered:?}");
        };
        check(&["v5.channel.k8s.io", "v4.channel.k8s.io"], Some("v5.channel.k8s.io"));
        check(&["v9.channel.k8s.io", "base64.channel.k8s.io"], Some("base64.channel.k8s.io"));
        check(&[], Some(""));
        check(&["chat"], None);
    }

    #[test]
    fn spdy_negotiation() {
        let upgrade = ("upgrade", "SPDY/3.1");
        let ask = |pairs: &[(&'static str, &'static str)]| {
            choose_spdy(&headers(pairs)).map(|(_, name)| name).map_err(|refusal| refusal.code.as_u16())
        };
        assert_eq!(ask(&[upgrade, (PROTOCOL_HEADER, "v4.channel.k8s.io, v3.channel.k8s.io")]), Ok("v4.channel.k8s.io"));
        assert_eq!(ask(&[upgrade, (PROTOCOL_HEADER, "v2.channel.k8s.io")]), Ok("v2.channel.k8s.io"));
        assert_eq!(ask(&[upgrade]), Ok("channel.k8s.io"));
        assert_eq!(ask(&[upgrade, (PROTOCOL_HEADER, "v9")]), Err(403));
        assert_eq!(ask(&[(PROTOCOL_HEADER, "v4.channel.k8s.io")]), Err(400));
    }
}

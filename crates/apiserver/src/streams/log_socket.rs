//! Logs over a WebSocket: the server itself answers the upgrade and wraps the kubelet's byte stream in frames.
//!
//! Protocols: `binary.k8s.io` (the default) and `base64.binary.k8s.io`. One direction only: what the client sends is read and
//! dropped, so that closing works.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::relay;
use crate::body::{Body, empty};
use crate::chain::{NodeConnector, Target};
use crate::error::ApiError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Binary,
    Base64,
}

pub async fn serve(
    connector: Arc<dyn NodeConnector>,
    target: Target,
    mut request: Request<Body>,
    client_headers: &HeaderMap,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, ApiError> {
    let key = client_headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| ApiError::bad_request("the WebSocket key is missing"))?;
    let accept = derive_accept_key(key.as_bytes());
    let (protocol, name) = choose_protocol(client_headers)?;
    for name in ["sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions"] {
        request.headers_mut().remove(name);
    }
    let log = relay::checked(relay::plain(connector, target, request).await?).await?;
    tokio::spawn(pump(log.into_body(), upgrade, protocol));
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(name) = name {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(response)
}

/// The first protocol of the client's that is known; none at all means binary.
fn choose_protocol(headers: &HeaderMap) -> Result<(Protocol, Option<&'static str>), ApiError> {
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .peekable();
    if offered.peek().is_none() {
        return Ok((Protocol::Binary, None));
    }
    offered
        .find_map(|name| match name {
            "binary.k8s.io" => Some((Protocol::Binary, Some("binary.k8s.io"))),
            "base64.binary.k8s.io" => Some((Protocol::Base64, Some("base64.binary.k8s.io"))),
            "" => Some((Protocol::Binary, None)),
            _ => None,
        })
        .ok_or_else(|| ApiError::bad_request("none of the WebSocket protocols is known"))
}

/// Sends the log until it ends or the client goes.
async fn pump(mut log: Body, upgrade: OnUpgrade, protocol: Protocol) {
    let stream = match upgrade.await {
        Ok(stream) => TokioIo::new(stream),
        Err(error) => {
            tracing::debug!(%error, "a log's upgrade was not completed");
            return;
        }
    };
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let (mut sink, mut source) = socket.split();
    loop {
        tokio::select! {
            frame = log.frame() => {
                let Some(Ok(frame)) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                let message = match protocol {
                    Protocol::Binary => Message::Binary(data),
                    Protocol::Base64 => Message::Text(STANDARD.encode(&data).into()),
                };
                if let Err(error) = sink.send(message).await {
                    tracing::debug!(%error, "a log's client went");
                    return;
                }
            }
            message = source.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
    }
    if let Err(error) = sink.send(Message::Close(None)).await {
        tracing::debug!(%error, "a log's client went before the end was said");
    }
}

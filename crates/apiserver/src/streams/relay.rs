//! Relaying a request to another HTTP server, and upgraded connections byte for byte.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::body::{Body, boxed, empty};
use crate::chain::{NodeConnector, Target};
use crate::error::ApiError;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Headers that are the server's own business: the client's credentials, and how the body came.
pub fn stays_here(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization"
            | "host"
            | "keep-alive"
            | "trailer"
            | "transfer-encoding"
            | "x-remote-user"
            | "x-remote-uid"
            | "x-remote-group"
    ) || name.as_str().starts_with("impersonate-")
        || name.as_str().starts_with("x-remote-extra-")
}

/// Adds an address to the chain of those that the request came by.
pub fn add_forwarded_for(headers: &mut HeaderMap, address: IpAddr) {
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let chain: Vec<String> = before.map(str::to_owned).chain([address.to_canonical().to_string()]).collect();
    if let Ok(value) = HeaderValue::from_str(&chain.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Takes out what speaks of the client's connection only; that it takes trailers may be known.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        connection.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    let takes_trailers = has_token(headers, header::TE, "trailers");
    let always = [
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("proxy-connection"),
    ];
    for name in named.into_iter().chain(always) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, header::CONNECTION, "upgrade") && headers.contains_key(header::UPGRADE)
}

pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && has_token(headers, header::UPGRADE, "websocket")
}

/// Sends a request over a connection of its own. The response's body is streamed.
pub async fn plain(
    connector: Arc<dyn NodeConnector>,
    target: Target,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    remove_hop_by_hop(request.headers_mut());
    let response = send(connector, &target, request).await?;
    let mut response = response.map(boxed);
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, HeaderName::from_static("keep-alive")] {
        response.headers_mut().remove(name);
    }
    Ok(response)
}

/// Sends an upgrade request; once both sides have switched, copies bytes both ways until one side ends.
pub async fn upgraded(
    connector: Arc<dyn NodeConnector>,
    target: Target,
    request: Request<Body>,
    client: OnUpgrade,
) -> Result<Response<Body>, ApiError> {
    let mut response = send(connector, &target, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return checked(response.map(boxed)).await;
    }
    let backend = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "an upgrade was not completed");
                return;
            }
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
            tracing::debug!(%error, "an upgraded connection broke");
        }
    });
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, empty()))
}

async fn send(
    connector: Arc<dyn NodeConnector>,
    target: &Target,
    request: Request<Body>,
) -> Result<Response<hyper::body::Incoming>, ApiError> {
    let unreachable = |error: &dyn std::fmt::Display| {
        let (host, port) = match target {
            Target::Kubelet { host, port, .. } | Target::Network { host, port, .. } => (host, port),
        };
        match target {
            Target::Kubelet { .. } => ApiError::internal(format!("dial tcp {host}:{port}: {error}")),
            Target::Network { .. } => {
                ApiError::service_unavailable(format!("error trying to reach service: dial tcp {host}:{port}: {error}"))
            }
        }
    };
    let connection = connector.connect(target).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connection)).await.map_err(|error| unreachable(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a relayed connection ended");
        }
    });
    sender.send_request(request).await.map_err(|error| unreachable(&error))
}

/// Error texts of a kubelet are short; more than this is not shown.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// A kubelet's answer: errors become Statuses as upstream makes them.
pub async fn checked(response: Response<Body>) -> Result<Response<Body>, ApiError> {
    let code = response.status();
    if code.is_success() {
        let mut response = response;
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().entry(header::CONTENT_TYPE).or_insert(plain);
        return Ok(response);
    }
    let text = match crate::rest::body::read(response.into_body(), ERROR_BYTES_MAX).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(text),
        StatusCode::NOT_FOUND => {
            let message = format!("the server could not find the requested resource ({text})");
            ApiError::new(404, "NotFound", message)
        }
        other => ApiError::new(other.as_u16(), "", text),
    })
}

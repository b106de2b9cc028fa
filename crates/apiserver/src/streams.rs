//! Streams to where a Pod runs: log, exec, attach, port-forward, and the proxy subresources.
//!
//! ```text
//! Call -> Destination (which kubelet or address, which path) -> relay (HTTP/1.1, upgrades byte for byte)
//!                                                                 +-- links (what a proxied page points to)
//! ```
//!
//! Invariants: connections are opened through the configured `NodeConnector` only; nothing of a stream is buffered beyond what
//! a copy needs; the client's credentials never leave the server.
//! Not here: SPDY and WebSocket framing of exec and the like: the kubelet speaks them, the server only relays.

pub mod dial;
pub mod links;
pub mod log_socket;
pub mod relay;
pub mod target;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};

use crate::body::{Body, empty};
use crate::chain::Operation;
use crate::error::ApiError;
use crate::rest::Call;
use crate::rest::admit::Admit;
use links::Links;
use target::Destination;

pub async fn handle(call: Call, body: Body) -> Result<Response<Body>, ApiError> {
    let connector = call
        .core
        .config
        .connector
        .clone()
        .ok_or_else(|| ApiError::service_unavailable("this server has no way to reach nodes"))?;
    if call.info.subresource != "log" {
        let mut request = call.admission_request(Admit {
            operation: Operation::Connect,
            name: call.info.name.clone(),
            object: None,
            old_object: None,
            options: serde_json::Value::Null,
            dry_run: false,
        });
        call.mutate(&mut request).await?;
        call.validate(&request).await?;
    }
    let destination = target::destination(&call)?;
    if call.info.subresource == "proxy" && wants_slash(&call) {
        return Ok(redirect_to_slash(&call));
    }
    let upgrade = call.upgrade.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    let is_log = call.info.subresource == "log";
    if is_log && relay::is_websocket(&call.headers) {
        let upgrade = upgrade.ok_or_else(no_upgrade)?;
        let inner = outgoing(&call, &destination, Method::GET, empty())?;
        return log_socket::serve(connector, destination.target, inner, &call.headers, upgrade).await;
    }
    let method = if is_log { Method::GET } else { call.method.clone() };
    let request = outgoing(&call, &destination, method, body)?;
    if relay::is_upgrade(&call.headers) {
        return relay::upgraded(connector, destination.target, request, upgrade.ok_or_else(no_upgrade)?).await;
    }
    let mut own = destination.own_authorities();
    own.extend(call.origin.host.as_ref().and_then(|host| host.to_str().ok()).map(str::to_owned));
    let response = relay::plain(connector, destination.target, request).await?;
    match call.info.subresource.as_str() {
        "log" => relay::checked(response).await,
        "proxy" => Ok(links::lead(without_cors(response), Links::new(proxy_path(&call), own))),
        _ => Ok(response),
    }
}

/// Who may read this server's answers from other origins is not a proxied server's to say.
fn without_cors(mut response: Response<Body>) -> Response<Body> {
    use http::header;
    for name in [
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
    ] {
        response.headers_mut().remove(name);
    }
    response
}

/// The path of the call without what it asks of the proxied server.
fn proxy_path(call: &Call) -> &str {
    call.info.path.strip_suffix(&call.info.rest).unwrap_or(&call.info.path)
}

pub fn no_upgrade() -> ApiError {
    ApiError::bad_request("this connection cannot be upgraded")
}

/// A proxied root without a trailing slash: relative links of the page behind would break.
fn wants_slash(call: &Call) -> bool {
    call.info.rest.is_empty()
        && !call.info.path.ends_with('/')
        && matches!(call.method, Method::GET | Method::HEAD)
        && !relay::is_upgrade(&call.headers)
}

fn redirect_to_slash(call: &Call) -> Response<Body> {
    let query = if call.raw_query.is_empty() { String::new() } else { format!("?{}", call.raw_query) };
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", call.info.path)) {
        response.headers_mut().insert(http::header::LOCATION, location);
    }
    response
}

/// The request as it goes to the destination. But for logs, which the server asks for itself, the server there is called as the
/// client called this one, and told where the client sits.
fn outgoing(call: &Call, to: &Destination, method: Method, body: Body) -> Result<Request<Body>, ApiError> {
    let path = if to.query.is_empty() { to.path.clone() } else { format!("{}?{}", to.path, to.query) };
    let path: PathAndQuery =
        path.parse().map_err(|error: http::uri::InvalidUri| ApiError::bad_request(error.to_string()))?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    for (name, value) in &call.headers {
        if !relay::stays_here(name) {
            headers.append(name, value.clone());
        }
    }
    let is_log = call.info.subresource == "log";
    let host = match call.origin.host.clone().filter(|_| !is_log) {
        Some(host) => host,
        None => HeaderValue::from_str(&to.host).map_err(|error| ApiError::bad_request(error.to_string()))?,
    };
    headers.insert(http::header::HOST, host);
    if let Some(address) = call.origin.address.filter(|_| !is_log) {
        relay::add_forwarded_for(headers, address);
    }
    if call.info.subresource == "proxy"
        && !relay::is_upgrade(&call.headers)
        && let Ok(value) = HeaderValue::from_str(&call.info.path)
    {
        headers.insert("x-forwarded-uri", value);
    }
    Ok(request)
}

//! The streaming routes of the kubelet: containerLogs, exec, attach, portForward.
//!
//! In: requests of the API server (already authenticated and authorized), and the kubelet through [`PodAccess`]. Out: responses,
//! or an upgraded connection whose streams lead into a container.
//!
//! ```text
//!   client == WebSocket (v5, v4, base64) or SPDY/3.1 ==> session == SPDY/3.1 ==> the runtime's streaming server (exec, attach)
//!          == SPDY/3.1, also inside WebSocket       ==> port_forward ==> TCP inside the pod's network namespace
//!          <- chunked text                           <- logs <- the runtime's log files, followed with inotify
//! ```
//!
//! Invariants: half-closing stdin reaches the process; every byte of stdout and stderr comes before the status; when the
//! client goes, the runtime's side is closed. Every buffer between the two is bounded.
//!
//! Reading order: this file, [`session`], [`remote_command`], [`runtime_stream`], [`port_forward`], [`logs`]; the protocols
//! are [`spdy`] and [`websocket`].

pub mod logs;
pub mod pod_network;
pub mod port_forward;
pub mod remote_command;
pub mod runtime_stream;
pub mod session;
pub mod spdy;
pub mod websocket;

use std::sync::Arc;

use base::Clock;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::access::{LookupError, PodAccess, ResponseBody, RouteOutcome, StreamRoutes};

/// See the module. Holds no state: one value serves all requests.
pub struct Streaming {
    clock: Arc<dyn Clock>,
}

impl Streaming {
    /// `clock` is for logs of the last so many seconds.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }
}

impl StreamRoutes for Streaming {
    fn handle(&self, request: Request<Incoming>, access: Arc<dyn PodAccess>) -> BoxFuture<'static, RouteOutcome> {
        let now = self.clock.now();
        Box::pin(async move {
            let Some(target) = parse_target(request.uri().path()) else { return RouteOutcome::NotMine(request) };
            let response = match target.route {
                Route::Logs => logs::serve(&request, &target, access, now).await,
                Route::Exec | Route::Attach => remote_command::serve(request, &target, access).await,
                Route::PortForward => port_forward::serve(request, &target, access).await,
            };
            RouteOutcome::Handled(response.unwrap_or_else(|error| error.into_response()))
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Logs,
    Exec,
    Attach,
    PortForward,
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub route: Route,
    pub namespace: String,
    pub pod: String,
    /// Of the pod, when the path has it; then the pod must still be that one.
    pub uid: Option<String>,
    /// Empty for port-forward.
    pub container: String,
}

/// `/containerLogs/NS/POD/CONTAINER`, `/exec|attach/NS/POD[/UID]/CONTAINER`, `/portForward/NS/POD[/UID]`.
pub fn parse_target(path: &str) -> Option<Target> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let route = match parts.next()? {
        "containerLogs" => Route::Logs,
        "exec" => Route::Exec,
        "attach" => Route::Attach,
        "portForward" => Route::PortForward,
        _ => return None,
    };
    let parts: Vec<String> = parts.map(str::to_owned).collect();
    if parts.iter().any(String::is_empty) {
        return None;
    }
    let (namespace, pod, uid, container) = match (route, parts.as_slice()) {
        (Route::PortForward, [namespace, pod]) => (namespace, pod, None, String::new()),
        (Route::PortForward, [namespace, pod, uid]) => (namespace, pod, Some(uid.clone()), String::new()),
        (Route::PortForward, _) => return None,
        (_, [namespace, pod, container]) => (namespace, pod, None, container.clone()),
        (Route::Exec | Route::Attach, [namespace, pod, uid, container]) => {
            (namespace, pod, Some(uid.clone()), container.clone())
        }
        _ => return None,
    };
    Some(Target { route, namespace: namespace.clone(), pod: pod.clone(), uid, container })
}

/// An answer before any upgrade: a code and a line of text, as upstream's kubelet gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: StatusCode,
    pub message: String,
}

impl Refusal {
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: StatusCode::BAD_REQUEST, message: message.into() }
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self { code: StatusCode::INTERNAL_SERVER_ERROR, message: message.to_string() }
    }

    fn into_response(self) -> Response<ResponseBody> {
        let mut response = Response::new(text_body(format!("{}\n", self.message)));
        *response.status_mut() = self.code;
        let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
        response
    }
}

impl From<LookupError> for Refusal {
    fn from(error: LookupError) -> Self {
        let code = match &error {
            LookupError::PodNotFound(_) | LookupError::ContainerNotFound { .. } => StatusCode::NOT_FOUND,
            LookupError::ContainerWaiting { .. } | LookupError::NoPrevious { .. } => StatusCode::BAD_REQUEST,
            LookupError::Runtime(status) if status.code() == tonic::Code::NotFound => StatusCode::NOT_FOUND,
            LookupError::Runtime(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { code, message: error.to_string() }
    }
}

pub(crate) fn text_body(text: impl Into<Bytes>) -> ResponseBody {
    BoxBody::new(Full::new(text.into()).map_err(|never| match never {}))
}

/// The values of `name` in a query string, decoded.
pub(crate) fn query_values(query: Option<&str>, name: &str) -> Vec<String> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_form(key) == name).then(|| decode_form(value))
    });
    pairs.collect()
}

/// The first value of `name`; empty values count as none.
pub(crate) fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    query_values(query, name).into_iter().find(|value| !value.is_empty())
}

/// `true`, `1` and the like. Kubelets take `input=1`, the API's own parameters are `stdin=true`.
pub(crate) fn query_flag(query: Option<&str>, names: &[&str]) -> bool {
    names
        .iter()
        .filter_map(|name| query_value(query, name))
        .any(|value| matches!(value.as_str(), "1" | "true" | "True" | "t" | "T" | "TRUE"))
}

/// `application/x-www-form-urlencoded`; a malformed escape stays as it is.
fn decode_form(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, escaped) {
            (b'%', Some(value)) => {
                out.push(value);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', _) => {
                out.push(b' ');
                rest = tail;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;

//! Paths and queries; and the support for tests that go over real sockets: a kubelet's server with these routes, and a
//! runtime's streaming server.

use std::path::PathBuf;
use std::sync::Mutex;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::spdy::headers::Headers;
use super::*;
use crate::access::{ContainerTarget, StreamOptions};

#[test]
fn paths() {
    let check = |path: &str, expect: Option<(Route, &str, &str, Option<&str>, &str)>| {
        let got = parse_target(path);
        let got = got
            .as_ref()
            .map(|t| (t.route, t.namespace.as_str(), t.pod.as_str(), t.uid.as_deref(), t.container.as_str()));
        assert_eq!(got, expect, "{path}");
    };
    check("/containerLogs/ns/p/c", Some((Route::Logs, "ns", "p", None, "c")));
    check("/exec/ns/p/c", Some((Route::Exec, "ns", "p", None, "c")));
    check("/exec/ns/p/uid/c", Some((Route::Exec, "ns", "p", Some("uid"), "c")));
    check("/attach/ns/p/c", Some((Route::Attach, "ns", "p", None, "c")));
    check("/portForward/ns/p", Some((Route::PortForward, "ns", "p", None, "")));
    check("/portForward/ns/p/uid", Some((Route::PortForward, "ns", "p", Some("uid"), "")));
    check("/exec/ns/p", None);
    check("/exec/ns//c", None);
    check("/containerLogs/ns/p/uid/c", None);
    check("/pods", None);
}

#[test]
fn queries() {
    let query = Some("command=sh&command=-c&command=echo+a%26b%zz&tty=1&stdin=&x");
    assert_eq!(query_values(query, "command"), ["sh", "-c", "echo a&b%zz"]);
    assert!(query_flag(query, &["tty"]) && !query_flag(query, &["input", "stdin"]) && !query_flag(query, &["x"]));
    assert_eq!(query_value(query, "none"), None);
}

/// A kubelet with one pod `ns/p` of one container `c`.
pub(super) struct Kubelet {
    pub(super) running: Mutex<bool>,
    pub(super) log_path: PathBuf,
    pub(super) runtime: String,
    pub(super) asked: Mutex<Vec<StreamOptions>>,
    pub(super) notify: Notify,
}

impl Kubelet {
    pub(super) fn new(log_path: PathBuf, runtime: String) -> Arc<Self> {
        Arc::new(Self { running: Mutex::new(true), log_path, runtime, asked: Mutex::default(), notify: Notify::new() })
    }

    pub(super) fn stop(&self) {
        *self.running.lock().unwrap() = false;
        self.notify.notify_waiters();
    }

    fn find(&self, pod: &str, container: &str) -> Result<ContainerTarget, LookupError> {
        if pod != "p" {
            return Err(LookupError::PodNotFound(pod.to_owned()));
        }
        if container != "c" {
            return Err(LookupError::ContainerNotFound { pod: pod.to_owned(), container: container.to_owned() });
        }
        Ok(ContainerTarget {
            pod_uid: "uid".to_owned(),
            container_id: "id".to_owned(),
            running: *self.running.lock().unwrap(),
            tty: false,
            stdin: true,
            log_path: self.log_path.clone(),
        })
    }
}

impl PodAccess for Kubelet {
    fn container<'a>(
        &'a self,
        _: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<ContainerTarget, LookupError>> {
        Box::pin(async move { self.find(pod, container) })
    }

    fn previous_container<'a>(
        &'a self,
        _: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<ContainerTarget, LookupError>> {
        Box::pin(async move { Err(LookupError::NoPrevious { pod: pod.to_owned(), container: container.to_owned() }) })
    }

    fn exec_url<'a>(&'a self, _: &'a str, options: &'a StreamOptions) -> BoxFuture<'a, Result<String, LookupError>> {
        self.asked.lock().unwrap().push(options.clone());
        Box::pin(async move { Ok(format!("{}/exec/token", self.runtime)) })
    }

    fn attach_url<'a>(&'a self, _: &'a str, options: &'a StreamOptions) -> BoxFuture<'a, Result<String, LookupError>> {
        self.asked.lock().unwrap().push(options.clone());
        Box::pin(async move { Ok(format!("{}/attach/token", self.runtime)) })
    }

    fn network_namespace<'a>(
        &'a self,
        _: &'a str,
        pod: &'a str,
    ) -> BoxFuture<'a, Result<Option<PathBuf>, LookupError>> {
        Box::pin(async move { if pod == "p" { Ok(None) } else { Err(LookupError::PodNotFound(pod.to_owned())) } })
    }

    fn changed<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.notify.notified())
    }
}

/// Serves the routes on a loopback port, which is returned.
pub(super) async fn serve(kubelet: Arc<Kubelet>) -> u16 {
    let streaming = Arc::new(Streaming::new(Arc::new(base::SystemClock::new())));
    listen(move |request| {
        let (streaming, kubelet) = (Arc::clone(&streaming), Arc::clone(&kubelet));
        async move {
            match streaming.handle(request, kubelet).await {
                RouteOutcome::Handled(response) => response,
                RouteOutcome::NotMine(_) => {
                    Refusal { code: StatusCode::NOT_FOUND, message: "not mine".to_owned() }.into_response()
                }
            }
        }
    })
    .await
}

/// A HTTP server on a loopback port.
pub(super) async fn listen<F, R>(handler: F) -> u16
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let response = handler(request);
                async move { Ok::<_, std::convert::Infallible>(response.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    port
}

/// Sends one request with these headers; the response may be an upgrade.
pub(super) async fn send(port: u16, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::get(path).header("host", "kubelet");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(http_body_util::Empty::<Bytes>::new()).unwrap()).await.unwrap()
}

pub(super) async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// A SPDY client on `path`.
pub(super) async fn spdy_client(port: u16, path: &str, protocol: &str) -> spdy::Connection {
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), (session::PROTOCOL_HEADER, protocol)];
    let response = send(port, path, &upgrade).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()[session::PROTOCOL_HEADER], protocol);
    spdy::Connection::start(TokioIo::new(hyper::upgrade::on(response).await.unwrap()), spdy::Role::Client)
}

/// A WebSocket client on `path`.
pub(super) async fn websocket_client(
    port: u16,
    path: &str,
    protocol: &str,
) -> tokio_tungstenite::WebSocketStream<TokioIo<hyper::upgrade::Upgraded>> {
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocol),
    ];
    let response = send(port, path, &upgrade).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    tokio_tungstenite::WebSocketStream::from_raw_socket(upgraded, role, None).await
}

pub(super) async fn open(connection: &mut spdy::Connection, kind: &str) -> spdy::Stream {
    connection.open(Headers::new([("streamType", kind)])).await.unwrap()
}

pub(super) async fn read_all(mut input: tokio::sync::mpsc::Receiver<Bytes>) -> String {
    let mut out = Vec::new();
    while let Some(chunk) = input.recv().await {
        out.extend_from_slice(&chunk);
    }
    String::from_utf8(out).unwrap()
}

//! HTTP/2 over TLS to one API server: a fixed set of connections, requests and line streams on them.
//!
//! Every request is bounded by [`REQUEST_SECONDS`]; a stream's open is, too, its life is the caller's. A connection that ends is not
//! made again: its requests fail and are counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::kubeconfig::{ClientCertificate, Target};

/// The longest that one request may take.
pub const REQUEST_SECONDS: u64 = 60;
/// The longest that a connection may take to be there.
const CONNECT_SECONDS: u64 = 10;
/// A list of 10,000 Pods is 24 MB: windows this large keep flow control out of the figures, as those of client-go do.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 256 << 20;
/// The longest line (watch event) that is taken.
const LINE_BYTES_MAX: usize = 8 << 20;

pub const JSON: &str = "application/json";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("connect to {address}: {cause}")]
    Connect { address: String, cause: String },
    #[error("credentials: {0}")]
    Credentials(String),
    #[error("{what}: not within {seconds} s")]
    Timeout { what: &'static str, seconds: u64 },
    #[error("{method} {path}: {cause}")]
    Http { method: Method, path: String, cause: String },
    #[error("{method} {path}: {status}: {body}")]
    Status { method: Method, path: String, status: StatusCode, body: String },
    #[error("the stream ended before {0}")]
    StreamEnd(&'static str),
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    LongLine,
    #[error("{0} lasted too long")]
    TooLong(&'static str),
}

/// Connections to one server.
pub struct Pool {
    senders: Vec<SendRequest<Full<Bytes>>>,
    base: String,
    bearer: Option<HeaderValue>,
}

impl Pool {
    /// Opens all connections, or says why the first that failed did.
    pub async fn connect(target: &Target, connections: usize) -> Result<Pool, CallError> {
        let connector = TlsConnector::from(Arc::new(tls_config(target)?));
        let mut senders = Vec::with_capacity(connections);
        for _ in 0..connections {
            let opening = timeout(Duration::from_secs(CONNECT_SECONDS), open_connection(target, &connector));
            let sender =
                opening.await.map_err(|_| CallError::Timeout { what: "connect", seconds: CONNECT_SECONDS })??;
            senders.push(sender);
        }
        let bearer = target.token.as_ref().map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose();
        let bearer = bearer.map_err(|_| CallError::Credentials("the token is no header value".to_owned()))?;
        Ok(Pool { senders, base: format!("https://{}", authority_of(target)), bearer })
    }

    /// One request on connection `i` (in turn), its whole answer.
    pub async fn call(&self, i: usize, method: Method, path: &str, body: String) -> Result<Answer, CallError> {
        let whole = async {
            let response = self.send(i, method.clone(), path, JSON, body).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|e| http_error(&method, path, e))?.to_bytes();
            Ok(Answer { method: method.clone(), path: path.to_owned(), status, body })
        };
        within_request_time(whole).await
    }

    /// A GET whose answer is read and dropped: its length.
    pub async fn read_through(&self, i: usize, path: &str, accept: &'static str) -> Result<u64, CallError> {
        let whole = async {
            let mut response = self.send(i, Method::GET, path, accept, String::new()).await?;
            let mut bytes = 0;
            let mut start = BytesMut::new();
            while let Some(frame) = response.body_mut().frame().await {
                let frame = frame.map_err(|e| http_error(&Method::GET, path, e))?;
                let Some(data) = frame.data_ref() else { continue };
                if !response.status().is_success() && start.len() < 1000 {
                    start.extend_from_slice(data);
                }
                bytes += data.len() as u64;
            }
            let status = response.status();
            Answer { method: Method::GET, path: path.to_owned(), status, body: start.freeze() }
                .expect(StatusCode::OK)?;
            Ok(bytes)
        };
        within_request_time(whole).await
    }

    /// Opens a stream of lines (a watch) on connection `i` (in turn).
    pub async fn open_lines(&self, i: usize, path: &str) -> Result<Lines, CallError> {
        let opening = async {
            let response = self.send(i, Method::GET, path, JSON, String::new()).await?;
            let status = response.status();
            if status == StatusCode::OK {
                return Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), scanned: 0 });
            }
            let body = response.into_body().collect().await.map_err(|e| http_error(&Method::GET, path, e))?.to_bytes();
            Err(status_error(Method::GET, path, status, &body))
        };
        within_request_time(opening).await
    }

    async fn send(
        &self,
        i: usize,
        method: Method,
        path: &str,
        accept: &'static str,
        body: String,
    ) -> Result<Response<Incoming>, CallError> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.base))
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, JSON);
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| http_error(&method, path, e))?;
        let mut sender = self.senders[i % self.senders.len()].clone();
        sender.send_request(request).await.map_err(|e| http_error(&method, path, e))
    }
}

/// A whole answer.
pub struct Answer {
    method: Method,
    path: String,
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    /// The body of an answer with this status; any other is an error that shows it.
    pub fn expect(self, status: StatusCode) -> Result<Bytes, CallError> {
        if self.status == status {
            return Ok(self.body);
        }
        Err(status_error(self.method, &self.path, self.status, &self.body))
    }
}

/// Lines of a body that may never end.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// No line ends before this place in `buffer`.
    scanned: usize,
}

impl Lines {
    /// The next line without its end; `waiting_for` says in the error what did not come.
    pub async fn next(&mut self, waiting_for: &'static str) -> Result<Bytes, CallError> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let mut line = self.buffer.split_to(self.scanned + at + 1);
                line.truncate(line.len() - 1);
                self.scanned = 0;
                return Ok(line.freeze());
            }
            self.scanned = self.buffer.len();
            if self.scanned > LINE_BYTES_MAX {
                return Err(CallError::LongLine);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(_)) | None => return Err(CallError::StreamEnd(waiting_for)),
            }
        }
    }
}

async fn within_request_time<T>(work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    let bounded = timeout(Duration::from_secs(REQUEST_SECONDS), work).await;
    bounded.unwrap_or(Err(CallError::Timeout { what: "request", seconds: REQUEST_SECONDS }))
}

async fn open_connection(target: &Target, connector: &TlsConnector) -> Result<SendRequest<Full<Bytes>>, CallError> {
    let failed =
        |cause: &dyn std::fmt::Display| CallError::Connect { address: authority_of(target), cause: cause.to_string() };
    let name = ServerName::try_from(target.host.clone()).map_err(|e| failed(&e))?;
    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|e| failed(&e))?;
    tcp.set_nodelay(true).map_err(|e| failed(&e))?;
    let tls = connector.connect(name, tcp).await.map_err(|e| failed(&e))?;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(failed(&"the server does not speak HTTP/2"));
    }
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(tls))
        .await
        .map_err(|e| failed(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("load: a connection ended: {error}");
        }
    });
    Ok(sender)
}

fn tls_config(target: &Target) -> Result<rustls::ClientConfig, CallError> {
    let bad = |e: &dyn std::fmt::Display| CallError::Credentials(e.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&target.authority) {
        roots.add(authority.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?
        .with_root_certificates(roots);
    let mut config = match &target.certificate {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { chain, key }) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad(&e))?;
            builder.with_client_auth_cert(chain.map_err(|e| bad(&e))?, key).map_err(|e| bad(&e))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn authority_of(target: &Target) -> String {
    if target.host.contains(':') {
        return format!("[{}]:{}", target.host, target.port);
    }
    format!("{}:{}", target.host, target.port)
}

fn http_error(method: &Method, path: &str, cause: impl std::fmt::Display) -> CallError {
    CallError::Http { method: method.clone(), path: path.to_owned(), cause: cause.to_string() }
}

/// The start of the body is kept: a Status says why.
fn status_error(method: Method, path: &str, status: StatusCode, body: &[u8]) -> CallError {
    let body = String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned();
    CallError::Status { method, path: path.to_owned(), status, body }
}

#[cfg(test)]
mod tests;

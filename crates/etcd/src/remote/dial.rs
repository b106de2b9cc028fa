//! One connection to one server of an outside etcd: TCP, TLS, HTTP/2.
//!
//! Invariant: a channel is one connection. When that has ended, requests fail with [`Ended`] before they are sent; nothing
//! is dialed behind the caller's back.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tls::pem::{PemError, parse_chain, parse_key, parse_roots};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::Address;

const WITHIN: Duration = Duration::from_secs(3);
/// etcd ends connections that ask more often than every 5 s; both together are the time that a frozen server costs.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(5);
/// What may be under way on one stream, and on all: lists are large.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// PEM texts of the connection's TLS.
#[derive(Debug, Clone)]
pub struct TlsTexts {
    /// The authority of the servers' certificates.
    pub ca: String,
    /// The own certificate chain and its key, where the servers ask for one.
    pub client: Option<(String, String)>,
}

/// The connection has ended; what is asked of it has not been sent.
#[derive(Debug, thiserror::Error)]
#[error("the connection has ended{}", .0.get().map(|why| format!(": {why}")).unwrap_or_default())]
pub(super) struct Ended(Cause);

/// What a connection broke with. A server that wants another certificate says so only after the handshake.
type Cause = Arc<OnceLock<String>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("it does not answer within {} s", WITHIN.as_secs())]
    Silent,
    #[error("{0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("its host is no name for TLS")]
    Name,
    #[error("it does not speak HTTP/2: {0}")]
    Http(String),
}

/// The client's side of TLS.
pub(super) fn connector(texts: &TlsTexts) -> Result<TlsConnector, PemError> {
    let unusable = |error: rustls::Error| PemError::new(&error);
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(parse_roots(&texts.ca)?);
    let mut config = match &texts.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(parse_chain(chain)?, parse_key(key)?).map_err(unusable)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects, at most for [`WITHIN`].
pub(super) async fn dial(address: &Address, tls: Option<&TlsConnector>) -> Result<Channel, DialError> {
    timeout(WITHIN, connect(address, tls)).await.unwrap_or(Err(DialError::Silent))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Keeps what reading it fails with.
struct Noted<S> {
    stream: S,
    cause: Cause,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if let Err(error) = &read {
            self.cause.get_or_init(|| error.to_string());
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn connect(address: &Address, tls: Option<&TlsConnector>) -> Result<Channel, DialError> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(DialError::Connect)?;
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let name = ServerName::try_from(address.host.clone()).map_err(|_| DialError::Name)?;
            Box::new(tls.connect(name, stream).await.map_err(DialError::Tls)?)
        }
    };
    let http = |error: &dyn std::error::Error| DialError::Http(super::failure::chain(error));
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| http(&error))?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER);
    let cause = Cause::default();
    let mut once = Some(TokioIo::new(Noted { stream, cause: cause.clone() }));
    let connector = tower::service_fn(move |_: Uri| ready(once.take().ok_or_else(|| Ended(cause.clone()))));
    endpoint.connect_with_connector(connector).await.map_err(|error| http(&error))
}

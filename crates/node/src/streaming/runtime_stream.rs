//! Our side towards the container runtime's streaming server: SPDY/3.1 over plain HTTP on this machine.
//!
//! In: the URL that a CRI Exec or Attach call gave. Out: [`RuntimeStreams`], the process's streams.
//!
//! SPDY and not WebSocket: the runtime's WebSocket has no way to end stdin.

use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::session::PROTOCOL_HEADER;
use super::spdy::{self, Connection, Role, Stream, headers::Headers};
use crate::access::StreamOptions;

const PROTOCOL: &str = "v4.channel.k8s.io";

/// Why the runtime's streams cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeStreamError {
    #[error("the runtime gave no usable streaming address: {url:?}")]
    Address { url: String },
    #[error("cannot reach the runtime's streaming server")]
    Connect(#[source] std::io::Error),
    #[error("the runtime's streaming server does not speak HTTP")]
    Http(#[from] hyper::Error),
    #[error("the runtime refused the stream: {code}: {message}")]
    Refused { code: StatusCode, message: String },
    #[error("the runtime closed the stream at once")]
    Closed(#[from] spdy::Closed),
}

/// The streams of one process; those the options leave out are absent.
pub struct RuntimeStreams {
    pub error: Stream,
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub resize: Option<Stream>,
    /// Dropping it closes everything.
    pub connection: Connection,
}

/// Connects to `url` and opens the streams that `options` ask for.
pub async fn open(url: &str, options: &StreamOptions) -> Result<RuntimeStreams, RuntimeStreamError> {
    let mut connection = connect(url).await?;
    let error = open_stream(&mut connection, "error").await?;
    let mut optional = Vec::with_capacity(4);
    let wanted =
        [("stdin", options.stdin), ("stdout", options.stdout), ("stderr", options.stderr), ("resize", options.tty)];
    for (name, wanted) in wanted {
        optional.push(if wanted { Some(open_stream(&mut connection, name).await?) } else { None });
    }
    let mut optional = optional.into_iter();
    let mut next = || optional.next().flatten();
    let (stdin, stdout, stderr, resize) = (next(), next(), next(), next());
    Ok(RuntimeStreams { error, stdin, stdout, stderr, resize, connection })
}

async fn open_stream(connection: &mut Connection, name: &str) -> Result<Stream, spdy::Closed> {
    connection.open(Headers::new([("streamType", name)])).await
}

async fn connect(url: &str) -> Result<Connection, RuntimeStreamError> {
    let bad = || RuntimeStreamError::Address { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_invalid| bad())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(bad)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let transport = TcpStream::connect(address).await.map_err(RuntimeStreamError::Connect)?;
    // Keystrokes are small and should not wait for company.
    transport.set_nodelay(true).map_err(RuntimeStreamError::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(transport)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the runtime's streaming connection broke");
        }
    });
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header(PROTOCOL_HEADER, PROTOCOL)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|_invalid| bad())?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = response.status();
        let body = http_body_util::Limited::new(response.into_body(), 64 * 1024).collect().await;
        let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let message = String::from_utf8_lossy(&bytes).trim().to_owned();
        return Err(RuntimeStreamError::Refused { code, message });
    }
    let upgraded = hyper::upgrade::on(response).await?;
    Ok(Connection::start(TokioIo::new(upgraded), Role::Client))
}

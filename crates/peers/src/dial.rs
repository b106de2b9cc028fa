//! Opening a connection to another member: resolve, connect, TLS if its URL says so, hello.
//!
//! Bounded: every attempt ends within [`ATTEMPT`]. A member with several URLs is tried at one after the other.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::hello::{Hello, Verdict, read_verdict};
use crate::{PeerError, PeerTls, PeerUrl};

/// An attempt at one URL may take so long.
const ATTEMPT: Duration = Duration::from_secs(3);

/// A connection, encrypted or not.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// An open connection on which this member is welcome, and the URL it goes to.
pub(crate) struct Opened {
    pub(crate) wire: Box<dyn Wire>,
    pub(crate) url: String,
}

/// Opens a connection to the first of `urls` that takes it. Errors: that of the last one.
pub(crate) async fn open(urls: &[String], tls: Option<&PeerTls>, hello: &Hello) -> Result<Opened, PeerError> {
    let mut last = PeerError::Url { url: "an empty list of URLs".to_owned() };
    for url in urls {
        match timeout(ATTEMPT, open_one(url, tls, hello)).await {
            Ok(Ok(wire)) => return Ok(Opened { wire, url: url.clone() }),
            Ok(Err(error)) => last = error,
            Err(_) => last = PeerError::Silent { with: url.clone() },
        }
    }
    Err(last)
}

async fn open_one(url: &str, tls: Option<&PeerTls>, hello: &Hello) -> Result<Box<dyn Wire>, PeerError> {
    let mut wire = connect(&PeerUrl::parse(url)?, tls).await?;
    let failed = |error: PeerError| match error {
        // The other side of TLS 1.3 refuses a certificate only now.
        PeerError::Io(source) if tls.is_some() => PeerError::Tls { with: url.to_owned(), source },
        other => other,
    };
    wire.write_all(&hello.encode()).await.map_err(|error| failed(error.into()))?;
    wire.flush().await.map_err(|error| failed(error.into()))?;
    let by = || url.to_owned();
    match read_verdict(&mut wire, url).await.map_err(failed)? {
        Verdict::Welcome => Ok(wire),
        Verdict::Refused { reason } => Err(PeerError::Refused { by: by(), reason, removed: false }),
        Verdict::Removed { reason } => Err(PeerError::Refused { by: by(), reason, removed: true }),
    }
}

async fn connect(url: &PeerUrl, tls: Option<&PeerTls>) -> Result<Box<dyn Wire>, PeerError> {
    let text = || url.to_string();
    let tls = match (url.secure, tls) {
        (false, _) => None,
        (true, Some(tls)) => Some(tls),
        (true, None) => return Err(PeerError::NoTls { url: text() }),
    };
    let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
    let found: Vec<_> = found.map_err(|source| PeerError::Resolve { url: text(), source })?.collect();
    let stream = TcpStream::connect(found.as_slice()).await;
    let stream = stream.map_err(|source| PeerError::Connect { url: text(), source })?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = match &tls.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(url.host.clone())
            .map_err(|error| PeerError::Certificate { detail: format!("{url}: {error}") })?,
    };
    let stream = TlsConnector::from(tls.client.clone()).connect(name, stream).await;
    Ok(Box::new(stream.map_err(|source| PeerError::Tls { with: text(), source })?))
}

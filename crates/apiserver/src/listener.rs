//! The TLS listener: HTTP/1.1 and HTTP/2 for clients outside of this process.
//!
//! Input: accepted TCP connections. Output: requests with [`PeerCertificates`] and [`RemoteAddress`] for the service.
//! Invariants: connections are bounded in number and must finish their handshake in time; a connection's failure is its own;
//! certificates are taken from [`ServerTls`] anew for each connection, so that renewal needs no restart.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::body::boxed;
use crate::chain::{Identity, PeerCertificates, RemoteAddress};
use crate::pki::ServerTls;
use crate::server::{ApiServer, stopped};

const CONNECTIONS_MAX: usize = 20_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// As many as Go's HTTP/2 server allows a Kubernetes client.
const STREAMS_MAX: u32 = 1_000;
/// Open connections get this long to finish once the server stops.
const DRAIN: Duration = Duration::from_secs(5);

impl ApiServer {
    /// Serves until [`ApiServer::stop`]. Returns when connections have ended or the drain time is over.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerTls>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut stop = self.core.stopping.subscribe();
        loop {
            let accept = async {
                let slot = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>((slot, listener.accept().await?))
            };
            let accepted = tokio::select! {
                accepted = accept => accepted,
                () = stopped(&mut stop) => break,
            };
            match accepted {
                Ok((slot, (stream, address))) => {
                    let (server, tls) = (self.clone(), tls.clone());
                    tokio::spawn(async move {
                        serve_connection(server, stream, address, tls).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: a pause lets some go.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        if tokio::time::timeout(DRAIN, slots.acquire_many(all)).await.is_err() {
            tracing::info!("connections are still open after the drain time; leaving them");
        }
    }
}

async fn serve_connection(server: ApiServer, stream: TcpStream, address: SocketAddr, tls: Arc<ServerTls>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %address, "cannot switch Nagle's algorithm off");
    }
    let accept = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, %address, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = PeerCertificates(chain.iter().map(|certificate| certificate.clone().into_owned()).collect());
    let mut stop = server.core.stopping.subscribe();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move {
            let mut request = request.map(boxed);
            // Only callers in this process may bring an identity; nothing that came over the wire can set extensions, but the
            // rule is worth a line.
            request.extensions_mut().remove::<Identity>();
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(RemoteAddress(address));
            Ok::<_, Infallible>(server.handle(request).await)
        }
    });
    let protocol = protocol();
    let connection = protocol.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = %error, %address, "connection ended");
    }
}

/// HTTP/1.1 or HTTP/2, whichever the client speaks, within the bounds of this listener.
fn protocol() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(30))
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(25 * 1024 * 1024);
    builder
}

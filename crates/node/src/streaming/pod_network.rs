//! TCP connections from inside a pod's network namespace.
//!
//! In: the namespace's path and a port. Out: a connected socket, usable from any thread: a socket stays in the namespace it
//! was made in.
//!
//! Invariant: only a thread made for this and ended after it enters the namespace; the runtime's own threads never do.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a port cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot enter the network namespace {}: {source}", path.display())]
    Enter { path: PathBuf, source: io::Error },
    #[error("failed to connect to localhost:{port} inside the pod's network: IPv4: {v4}; IPv6: {v6}")]
    Connect { port: u16, v4: io::Error, v6: io::Error },
    #[error("cannot use the connection: {0}")]
    Socket(#[source] io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Connects to `localhost:port` in `namespace` (the host's own for `None`): IPv4 first, then IPv6.
pub async fn dial(namespace: Option<&Path>, port: u16) -> Result<TcpStream, DialError> {
    let namespace = namespace.map(Path::to_owned);
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("pod-dial".to_owned())
        .spawn(move || {
            // Nobody waits any more when the client has gone.
            let _gone = sender.send(dial_here(namespace.as_deref(), port)).is_err();
        })
        .map_err(DialError::Thread)?;
    let connected = receiver.await.map_err(|_gone| DialError::Thread(io::Error::other("it ended early")))??;
    connected.set_nonblocking(true).map_err(DialError::Socket)?;
    TcpStream::from_std(connected).map_err(DialError::Socket)
}

/// Runs on a thread of its own, which it moves for good.
fn dial_here(namespace: Option<&Path>, port: u16) -> Result<StdTcpStream, DialError> {
    if let Some(path) = namespace {
        let enter = |source| DialError::Enter { path: path.to_owned(), source };
        let file = File::open(path).map_err(enter)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|e| enter(e.into()))?;
    }
    let connect = |address: SocketAddr| StdTcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
    match connect((Ipv4Addr::LOCALHOST, port).into()) {
        Ok(stream) => Ok(stream),
        Err(v4) => connect((Ipv6Addr::LOCALHOST, port).into()).map_err(|v6| DialError::Connect { port, v4, v6 }),
    }
}

//! The host's own resolvers, for names outside the cluster's zone.
//!
//! Invariant: bounded in number ([`QUERIES_MAX`] at once; more are refused at once) and in time ([`ATTEMPT`] a server,
//! two rounds over at most three servers). The resolver file is read again when it may have changed ([`RELOAD`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use hickory_server::net::xfer::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::is_loop;

/// Queries under way at once.
const QUERIES_MAX: usize = 1024;
/// How long one server gets to answer. Clients give up after five seconds (resolv.conf's default).
const ATTEMPT: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 2;
/// resolv.conf(5) reads no more than three servers.
const SERVERS_MAX: usize = 3;
const RELOAD: Duration = Duration::from_secs(5);
const MESSAGE_BYTES_MAX: usize = 65_535;

/// See the module's text.
pub struct Upstream {
    resolv_conf: PathBuf,
    own_address: IpAddr,
    servers: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    permits: Semaphore,
    /// Spreads the identifiers of our own queries; the unpredictable part is the kernel's choice of source port.
    identifier: AtomicU16,
}

impl Upstream {
    /// `resolv_conf` is the host's resolver file; `own_address` is ours, never asked.
    pub fn new(resolv_conf: PathBuf, own_address: IpAddr, rng: &mut dyn base::Rng) -> Self {
        Self {
            resolv_conf,
            own_address,
            servers: Mutex::new(None),
            permits: Semaphore::new(QUERIES_MAX),
            identifier: AtomicU16::new(rng.next_u64() as u16),
        }
    }

    /// Sends a client's query on as it is and returns the first usable answer; `None` when there is none.
    pub(super) async fn forward(&self, query: &[u8], protocol: Protocol) -> Option<Message> {
        let _permit = self.permits.try_acquire().ok()?;
        let servers = self.servers().await;
        for _ in 0..ROUNDS {
            for server in &servers {
                let attempt = async {
                    match protocol {
                        Protocol::Tcp => ask_tcp(*server, query).await,
                        _ => self.ask_udp(*server, query).await,
                    }
                };
                match timeout(ATTEMPT, attempt).await {
                    Ok(Ok(message)) => return Some(message),
                    Ok(Err(error)) => tracing::debug!(%server, %error, "upstream DNS server failed"),
                    Err(_) => tracing::debug!(%server, "upstream DNS server did not answer in time"),
                }
            }
        }
        None
    }

    /// Asks for one name of our own accord.
    pub(super) async fn query(&self, name: Name, kind: RecordType) -> Option<Message> {
        let mut message = Message::new(0, hickory_proto::op::MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, kind));
        self.forward(&message.to_vec().ok()?, Protocol::Udp).await
    }

    async fn servers(&self) -> Vec<SocketAddr> {
        let mut cached = self.servers.lock().await;
        if let Some((read, servers)) = &*cached
            && read.elapsed() < RELOAD
        {
            return servers.clone();
        }
        let text = tokio::fs::read_to_string(&self.resolv_conf).await.unwrap_or_default();
        let mut servers = parse_resolv_conf(&text);
        servers.retain(|server| !is_loop(server.ip(), self.own_address));
        servers.truncate(SERVERS_MAX);
        *cached = Some((Instant::now(), servers.clone()));
        servers
    }

    /// Over a socket of its own, so that an answer has to hit both the port and the identifier.
    async fn ask_udp(&self, server: SocketAddr, query: &[u8]) -> io::Result<Message> {
        let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        let identifier = self.identifier.fetch_add(0x3d09, Ordering::Relaxed);
        let mut sent = query.to_vec();
        if let Some(field) = sent.get_mut(..2) {
            field.copy_from_slice(&identifier.to_be_bytes());
        }
        socket.send(&sent).await?;
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let length = socket.recv(&mut buffer).await?;
            match Message::from_vec(&buffer[..length]) {
                Ok(message) if message.metadata.id == identifier => return Ok(message),
                // Somebody else's, or garbage: the real answer may still come.
                _ => {}
            }
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(io::Error::other)
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|server| SocketAddr::new(server, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_files_are_read_leniently() {
        let text = "# c\nsearch a b\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # x\nnameserver nonsense\n";
        let servers: Vec<String> = parse_resolv_conf(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }
}

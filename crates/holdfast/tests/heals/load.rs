//! A steady load of HTTP requests on one address, each on a connection of its own, with every failure kept.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const CLIENTS: usize = 4;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// At most this many requests a client, so that a forgotten load ends by itself.
const REQUESTS_MAX: usize = 2_000_000;

pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = stop.clone();
            std::thread::spawn(move || run_client(address, &stop))
        };
        Self { clients: (0..CLIENTS).map(client).collect(), stop }
    }

    /// Ends the load: (requests answered, what went wrong).
    pub fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let mut total = (0, Vec::new());
        for client in self.clients {
            let (answered, failures) = client.join().unwrap();
            total.0 += answered;
            total.1.extend(failures);
        }
        total
    }
}

/// One request; the body of the answer.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, REQUEST_TIMEOUT)?;
    connection.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("answer: {:?}", answer.lines().next()))),
    }
}

fn run_client(address: SocketAddr, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut answered, mut failures) = (0, Vec::new());
    for _ in 0..REQUESTS_MAX {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        match get(address, "/") {
            Ok(_) => answered += 1,
            Err(e) if failures.len() < 20 => failures.push(e.to_string()),
            Err(_) => {}
        }
    }
    (answered, failures)
}

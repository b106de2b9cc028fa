//! One lane to one peer: keeps a connection open and writes the lane's queue to it.
//!
//! Frames go as length (u32, big-endian) and bytes; a length of zero is a ping, which the other side answers with a zero of its
//! own. A connection whose pings stay unanswered, or that takes nothing, is given up and opened anew.
//! Bounded: the pause between attempts grows from 50 ms to 1 s. What waited when an attempt failed is dropped: it is out of
//! date. When a connection breaks and the address then refuses one, the store is told, once: a process has ended. The task ends with its queue: once the peer is no member any more and what waited has left, at most [`LINGER`] later.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{OsRng, Rng};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::PeerError;
use crate::dial::{Opened, open};
use crate::hello::Purpose;
use crate::network::{Peer, Shared};
use crate::queue::Queue;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const PING_EVERY: Duration = Duration::from_secs(1);
/// After a peer is no member any more.
const LINGER: Duration = Duration::from_secs(5);
/// Small frames are gathered up to this.
const BUFFER_BYTES: usize = 64 << 10;

/// Without an answer to pings for so long, the connection is given up.
fn silence_max(purpose: Purpose) -> Duration {
    match purpose {
        // A large frame may take a while on a slow link, and pings wait behind it.
        Purpose::Bulk => Duration::from_secs(30),
        _ => Duration::from_secs(5),
    }
}

/// Runs until the peer is no member any more, or the network stops.
pub(crate) async fn run_lane(shared: Arc<Shared>, peer: Arc<Peer>, purpose: Purpose) {
    let mut backoff = BACKOFF_FIRST;
    let mut told = String::new();
    let mut has_broken = false;
    while !peer.queue(purpose).is_closed() {
        let urls = peer.urls();
        let Some(hello) = shared.hello(purpose, peer.id) else { return };
        let error = match open(&urls, shared.tls().as_ref(), &hello).await {
            Ok(opened) => {
                tracing::info!(member = %format_args!("{:x}", peer.id), url = opened.url, ?purpose, "connected");
                (backoff, told) = (BACKOFF_FIRST, String::new());
                peer.set_connected(purpose, true);
                let ended = pump(opened, &peer, purpose).await;
                peer.set_connected(purpose, false);
                has_broken = true;
                match ended {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => {
                if purpose == Purpose::Urgent && error.is_refused_connection() && std::mem::take(&mut has_broken) {
                    shared.note_end(&peer);
                }
                error
            }
        };
        shared.note_failure(&peer, purpose, &error, &mut told);
        peer.queue(purpose).clear();
        let jitter = Duration::from_millis(OsRng.below(backoff.as_millis() as u64 / 2 + 1));
        tokio::select! {
            () = sleep(backoff + jitter) => {}
            () = peer.changed() => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Writes until the connection ends, with an error, or the queue, without.
async fn pump(opened: Opened, peer: &Peer, purpose: Purpose) -> Result<(), PeerError> {
    let (reader, writer) = tokio::io::split(opened.wire);
    let pinged = Mutex::new(None);
    let queue = peer.queue(purpose);
    let (silence, with) = (silence_max(purpose), opened.url);
    tokio::select! {
        ended = write_frames(queue, writer, &pinged, silence) => ended,
        error = read_pongs(reader, peer, &pinged, (silence, with)) => Err(error),
        () = linger(queue) => Ok(()),
    }
}

async fn linger(queue: &Queue) {
    queue.closed().await;
    sleep(LINGER).await;
}

/// When the ping under way was sent.
type Pinged = Mutex<Option<Instant>>;

async fn write_frames(
    queue: &Queue,
    writer: impl AsyncWrite + Unpin,
    pinged: &Pinged,
    patience: Duration,
) -> Result<(), PeerError> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, writer);
    let mut next_ping = Instant::now();
    let stuck = |_| PeerError::Io(std::io::ErrorKind::TimedOut.into());
    loop {
        tokio::select! {
            frame = queue.pop() => {
                let Some(mut frame) = frame else {
                    return Ok(out.shutdown().await?);
                };
                loop {
                    timeout(patience, write_frame(&mut out, &frame)).await.map_err(stuck)??;
                    match queue.try_pop() {
                        Some(next) => frame = next,
                        None => break,
                    }
                }
            }
            () = sleep_until(next_ping) => {
                next_ping = Instant::now() + PING_EVERY;
                pinged.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
                timeout(patience, out.write_u32(0)).await.map_err(stuck)??;
            }
        }
        timeout(patience, out.flush()).await.map_err(stuck)??;
        queue.written();
    }
}

async fn write_frame(out: &mut (impl AsyncWrite + Unpin), frame: &Bytes) -> std::io::Result<()> {
    out.write_u32(frame.len() as u32).await?;
    out.write_all(frame).await
}

/// Ends when the other side is silent, goes away or says something else than a pong.
async fn read_pongs(
    mut reader: impl AsyncRead + Unpin,
    peer: &Peer,
    pinged: &Pinged,
    (silence, with): (Duration, String),
) -> PeerError {
    loop {
        match timeout(silence, reader.read_u32()).await {
            Err(_) => return PeerError::Silent { with },
            Ok(Err(error)) => return error.into(),
            Ok(Ok(0)) => {
                let sent = pinged.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(sent) = sent {
                    peer.set_round_trip(sent.elapsed());
                }
            }
            Ok(Ok(_)) => return PeerError::Foreign { with },
        }
    }
}

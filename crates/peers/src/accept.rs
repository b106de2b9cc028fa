//! Connections from other members: TLS, hello, verdict, then what the connection is for.
//!
//! Invariant: nothing of a connection reaches the store before its hello was judged. Bounded: connections, the time until a
//! hello, the size of a frame, the silence of a peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::dial::Wire;
use crate::hello::{Hello, Purpose, Verdict, write_verdict};
use crate::inbound::Admission;
use crate::network::{Shared, Started};
use crate::{FRAME_BYTES_MAX, PeerError, inquiry, transfer};

/// Three for each of the peers, and some that come in vain.
const CONNECTIONS_MAX: usize = 256;
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Peers ping every second; on a bulk lane a frame may be under way for a while.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Accepts until the network stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, secure: bool) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection of a member was not accepted");
                // Out of descriptors, as a rule: give others time to close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = handle(&shared, stream, from, secure) => ended,
                () = shared.stop.cancelled() => Ok(()),
            };
            if let Err(error) = ended {
                tell(&shared, from, &error);
            }
            drop(permit);
        });
    }
}

/// Refusals once, ends of connections for those who look closely.
fn tell(shared: &Shared, from: SocketAddr, error: &PeerError) {
    let text = error.with_cause();
    match error {
        PeerError::Refuses { reason, .. } if shared.inbound.is_news(&format!("{}: {reason}", from.ip())) => {
            tracing::warn!("{error}");
        }
        PeerError::Tls { .. } | PeerError::Foreign { .. }
            if shared.inbound.is_news(&format!("{}: {text}", from.ip())) =>
        {
            tracing::warn!(%from, "refused a connection: {text}");
        }
        _ => tracing::debug!(%from, "{text}"),
    }
}

async fn handle(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr, secure: bool) -> Result<(), PeerError> {
    let (mut wire, hello) = timeout(HELLO_WITHIN, greet(shared, stream, from, secure))
        .await
        .map_err(|_| PeerError::Silent { with: from.to_string() })??;
    let (started, admission) = match judge(shared, &hello, from) {
        Ok(welcome) => welcome,
        Err(verdict) => {
            write_verdict(&mut wire, &verdict).await?;
            wire.shutdown().await?;
            if matches!(verdict, Verdict::Removed { .. }) {
                shared.note_told(hello.from);
            }
            let (Verdict::Refused { reason } | Verdict::Removed { reason }) = verdict else { return Ok(()) };
            return Err(PeerError::Refuses { from, reason });
        }
    };
    write_verdict(&mut wire, &Verdict::Welcome).await?;
    let Some(admission) = admission else { return inquiry::answer(shared, &started, hello.purpose, &mut wire).await };
    let superseded = admission.superseded.clone();
    tokio::select! {
        ended = serve_peer(&started, wire, &hello, &admission) => ended,
        () = superseded.cancelled() => Err(PeerError::Silent { with: from.to_string() }),
    }
}

async fn serve_peer(
    started: &Started,
    wire: Box<dyn Wire>,
    hello: &Hello,
    admission: &Admission,
) -> Result<(), PeerError> {
    match hello.purpose {
        Purpose::Snapshot => transfer::receive(started, hello.from, wire).await,
        _ => read_frames(started, wire, hello.from, admission).await,
    }
}

async fn greet(
    shared: &Shared,
    stream: TcpStream,
    from: SocketAddr,
    secure: bool,
) -> Result<(Box<dyn Wire>, Hello), PeerError> {
    stream.set_nodelay(true)?;
    let foreign = || PeerError::Foreign { with: from.to_string() };
    let mut wire: Box<dyn Wire> = match shared.tls().filter(|_| secure) {
        None => Box::new(stream),
        Some(tls) => {
            let accepted = TlsAcceptor::from(tls.server.clone()).accept(stream).await;
            Box::new(accepted.map_err(|source| PeerError::Tls { with: from.to_string(), source })?)
        }
    };
    let hello = Hello::read(&mut wire).await?.ok_or_else(foreign)?;
    Ok((wire, hello))
}

/// Who is welcome gets in; an inquiry needs no admission.
fn judge(shared: &Shared, hello: &Hello, from: SocketAddr) -> Result<(Started, Option<Admission>), Verdict> {
    let refused = |reason: String| Verdict::Refused { reason };
    let Some(started) = shared.started() else { return Err(refused("this member is still starting".to_owned())) };
    match shared.judge(hello, &started) {
        Verdict::Welcome if hello.purpose.is_question() => Ok((started, None)),
        Verdict::Welcome => match shared.inbound.admit(hello, from) {
            Ok(admission) => Ok((started, Some(admission))),
            Err(reason) => Err(refused(reason)),
        },
        verdict => Err(verdict),
    }
}

/// Hands frames to the store and answers pings, until the connection ends.
async fn read_frames(
    started: &Started,
    wire: Box<dyn Wire>,
    from: u64,
    admission: &Admission,
) -> Result<(), PeerError> {
    let (reader, mut writer) = tokio::io::split(wire);
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    loop {
        let frame = timeout(SILENCE_MAX, read_frame(&mut reader)).await;
        let frame = frame.map_err(|_| PeerError::Silent { with: format!("member {from:x}") })??;
        admission.heard();
        if frame.is_empty() {
            timeout(SILENCE_MAX, async {
                writer.write_u32(0).await?;
                writer.flush().await
            })
            .await
            .map_err(|_| PeerError::Silent { with: format!("member {from:x}") })??;
            continue;
        }
        let Some(inbox) = started.inbox() else { return Ok(()) };
        inbox.receive(from, frame);
    }
}

/// One frame: length, then bytes.
pub(crate) async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, PeerError> {
    let bytes = reader.read_u32().await? as usize;
    if bytes > FRAME_BYTES_MAX {
        return Err(PeerError::FrameTooLarge { bytes });
    }
    let mut frame = BytesMut::with_capacity(bytes);
    let mut part = reader.take(bytes as u64);
    while frame.len() < bytes {
        if part.read_buf(&mut frame).await? == 0 {
            return Err(PeerError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(frame.freeze())
}

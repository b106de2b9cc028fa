//! A snapshot on a connection of its own: header frame, then the body in parts, an empty part at the end, then the verdict of
//! the receiver, which has it on disk by then.
//!
//! Bounded: each part must go within [`PART_WITHIN`], the receiver may write for [`VERDICT_WITHIN`]. A snapshot that is cut short is
//! never taken for a whole one: its last part is missing.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncWriteExt as _, BufReader, ReadHalf};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::accept::read_frame;
use crate::dial::{Wire, open};
use crate::hello::{Purpose, Verdict, read_verdict, write_verdict};
use crate::network::{Peer, Shared, Started};
use crate::{FRAME_BYTES_MAX, PeerError};

const PART_BYTES: usize = 256 << 10;
const PART_WITHIN: Duration = Duration::from_secs(30);
const VERDICT_WITHIN: Duration = Duration::from_secs(300);

/// What is sent after the header, on a thread that may block.
pub(crate) type WriteBody = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// Sends a snapshot to `peer` and waits for its verdict.
pub(crate) async fn send(
    shared: &Arc<Shared>,
    peer: &Peer,
    header: Bytes,
    write_body: WriteBody,
) -> Result<(), PeerError> {
    let Some(hello) = shared.hello(Purpose::Snapshot, peer.id) else { return Ok(()) };
    let opened = open(&peer.urls(), shared.tls().as_ref(), &hello).await?;
    let url = opened.url;
    let handle = Handle::current();
    let written = tokio::task::spawn_blocking(move || {
        let mut body = BodyWriter { wire: opened.wire, handle, part: Vec::with_capacity(PART_BYTES) };
        body.write_part(&header)?;
        write_body(&mut body)?;
        body.finish()
    });
    let mut wire = written.await.map_err(|error| PeerError::Io(io::Error::other(error)))??;
    let verdict = timeout(VERDICT_WITHIN, read_verdict(&mut wire, &url)).await;
    match verdict.map_err(|_| PeerError::Silent { with: url.clone() })?? {
        Verdict::Welcome => Ok(()),
        Verdict::Refused { reason } | Verdict::Removed { reason } => {
            Err(PeerError::Refused { by: url, reason, removed: false })
        }
    }
}

/// Takes a snapshot from `from` and tells it how that went.
pub(crate) async fn receive(started: &Started, from: u64, wire: Box<dyn Wire>) -> Result<(), PeerError> {
    let Some(inbox) = started.inbox() else { return Ok(()) };
    let (reader, mut writer) = tokio::io::split(wire);
    let mut reader = BufReader::new(reader);
    let silent = |_| PeerError::Silent { with: format!("member {from:x}") };
    let header = timeout(PART_WITHIN, read_frame(&mut reader)).await.map_err(silent)??;
    tracing::info!(member = %format_args!("{from:x}"), "receiving a snapshot");
    let handle = Handle::current();
    let taken = tokio::task::spawn_blocking(move || {
        let mut body = BodyReader { reader, handle, part: Bytes::new(), ended: false };
        inbox.receive_snapshot(from, header, &mut body).map_err(|error| error.to_string())
    });
    let verdict = match taken.await {
        Ok(Ok(())) => Verdict::Welcome,
        Ok(Err(reason)) => Verdict::Refused { reason },
        Err(error) => Verdict::Refused { reason: error.to_string() },
    };
    if let Verdict::Refused { reason } = &verdict {
        tracing::warn!(member = %format_args!("{from:x}"), reason, "a snapshot was not taken");
    }
    write_verdict(&mut writer, &verdict).await?;
    Ok(writer.shutdown().await?)
}

/// Gathers what is written into parts. For a thread that may block.
struct BodyWriter {
    wire: Box<dyn Wire>,
    handle: Handle,
    part: Vec<u8>,
}

impl BodyWriter {
    fn write_part(&mut self, part: &[u8]) -> io::Result<()> {
        let wire = &mut self.wire;
        let write = async {
            wire.write_u32(part.len() as u32).await?;
            wire.write_all(part).await?;
            wire.flush().await
        };
        self.handle.block_on(async { timeout(PART_WITHIN, write).await }).map_err(|_| io::ErrorKind::TimedOut)?
    }

    fn finish(mut self) -> io::Result<Box<dyn Wire>> {
        self.flush()?;
        self.write_part(&[])?;
        Ok(self.wire)
    }
}

impl Write for BodyWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.part.len() >= PART_BYTES {
            self.flush()?;
        }
        let taken = data.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    /// An empty part means the end, so it is not written for nothing.
    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let mut part = std::mem::take(&mut self.part);
        let written = self.write_part(&part);
        part.clear();
        self.part = part;
        written
    }
}

/// Reads parts until the empty one. For a thread that may block.
struct BodyReader {
    reader: BufReader<ReadHalf<Box<dyn Wire>>>,
    handle: Handle,
    part: Bytes,
    ended: bool,
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.part.is_empty() && !self.ended {
            let reader = &mut self.reader;
            let part = self.handle.block_on(async { timeout(PART_WITHIN, read_frame(reader)).await });
            self.part = part.map_err(|_| io::ErrorKind::TimedOut)?.map_err(|error| match error {
                PeerError::Io(error) => error,
                other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
            })?;
            self.ended = self.part.is_empty();
        }
        let taken = out.len().min(self.part.len());
        self.part.copy_to_slice(&mut out[..taken]);
        Ok(taken)
    }
}

const _: () = assert!(PART_BYTES <= FRAME_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use store::MemberInfo;
    use store::peer::Transport as _;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{Inbox, Network};

    /// Refuses snapshots whose header is `no`; notes the others' length and the outcomes.
    struct Taker {
        taken: Mutex<Vec<usize>>,
        outcomes: mpsc::UnboundedSender<bool>,
    }

    impl Inbox for Taker {
        fn receive(&self, _from: u64, _frame: Bytes) {}

        fn receive_snapshot(
            &self,
            _from: u64,
            header: Bytes,
            body: &mut dyn Read,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let mut all = Vec::new();
            body.read_to_end(&mut all)?;
            if header == "no" {
                return Err("the disk is full".into());
            }
            self.taken.lock().unwrap().push(all.len());
            Ok(())
        }

        fn snapshot_sent(&self, _to: u64, ok: bool) {
            self.outcomes.send(ok).unwrap();
        }

        fn peer_unreachable(&self, _id: u64) {}

        fn peer_ended(&self, _id: u64) {}
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_snapshot_arrives_whole_or_not_at_all_and_the_sender_learns_which() {
        let (outcomes, mut heard) = mpsc::unbounded_channel();
        let taker = Arc::new(Taker { taken: Mutex::default(), outcomes });
        let inbox: Arc<dyn Inbox> = taker.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let [from, to] = [(); 2].map(|()| Network::new(Handle::current(), None));
        to.serve(listener, false);
        to.start(1, 2, Arc::downgrade(&inbox));
        from.members_changed(&[MemberInfo { id: 2, peer_urls: vec![url], ..MemberInfo::default() }]);
        from.start(1, 1, Arc::downgrade(&inbox));
        let mut check = async |header: &'static str, write: WriteBody, expect: (bool, &[usize])| {
            from.send_body(2, Bytes::from_static(header.as_bytes()), write);
            assert_eq!(heard.recv().await, Some(expect.0), "{header}");
            assert_eq!(*taker.taken.lock().unwrap(), expect.1);
        };
        let size = 3 * PART_BYTES + 7;
        check("yes", Box::new(move |out| out.write_all(&vec![7; size])), (true, &[size])).await;
        check("no", Box::new(|out| out.write_all(b"x")), (false, &[size])).await;
        check("cut", Box::new(|out| out.write_all(b"x").and(Err(io::ErrorKind::Other.into()))), (false, &[size])).await;
        check("empty", Box::new(|_| Ok(())), (true, &[size, 0])).await;
        assert!(to.figures().is_empty() && from.figures()[0].id == 2);
    }
}

//! Snapshots in etcd's form, as `etcdctl snapshot save` writes them: etcd's database file and its SHA-256.
//!
//! What this server saves, etcd's tools read and restore; what etcd saved, this store takes. The newest state and the leases
//! are kept, history is not.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use store::Content;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use crate::ETCD_CLUSTER_VERSION;
use crate::database::{DatabaseError, read_content, write_content};
use crate::member::Member;
use crate::proto::etcdserverpb::SnapshotResponse;

/// A database has whole blocks, so the digest behind it shows in the length.
const BLOCK: u64 = 512;
const DIGEST_BYTES: u64 = 32;
/// Chunks that wait for the client.
const CHUNKS: usize = 4;
/// Clients accept messages of 4 MiB at least.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a file is not taken as a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot read the snapshot")]
    Read(#[from] io::Error),
    #[error(
        "the file has {bytes} bytes, which no whole snapshot has: it is cut short, or not what `etcdctl snapshot save` wrote"
    )]
    Length { bytes: u64 },
    #[error("the snapshot's checksum does not match: it is damaged")]
    Checksum,
    #[error("the snapshot cannot be used")]
    Database(#[from] DatabaseError),
}

/// Reads a snapshot. Its checksum is verified first, so that what is read is what was written.
pub fn read_snapshot<F: Read + Seek>(mut file: F) -> Result<Content, SnapshotError> {
    let bytes = file.seek(SeekFrom::End(0))?;
    if bytes < BLOCK + DIGEST_BYTES || bytes % BLOCK != DIGEST_BYTES {
        return Err(SnapshotError::Length { bytes });
    }
    let database = bytes - DIGEST_BYTES;
    file.seek(SeekFrom::Start(0))?;
    let mut digest = Digest { out: io::sink(), context: Context::new(&SHA256) };
    io::copy(&mut (&mut file).take(database), &mut digest)?;
    let mut stored = [0; DIGEST_BYTES as usize];
    file.read_exact(&mut stored)?;
    if digest.context.finish().as_ref() != stored {
        return Err(SnapshotError::Checksum);
    }
    Ok(read_content(file, database)?)
}

/// Writes a snapshot to a stream. Returns the number of bytes.
pub fn write_snapshot(content: &Content, out: &mut dyn Write) -> io::Result<u64> {
    let mut digest = Digest { out, context: Context::new(&SHA256) };
    let database = write_content(content, &mut digest)?;
    let Digest { out, context } = digest;
    out.write_all(context.finish().as_ref())?;
    out.flush()?;
    Ok(database + DIGEST_BYTES)
}

/// Passes on what is written, and digests it.
struct Digest<W> {
    out: W,
    context: Context,
}

impl<W: Write> Write for Digest<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.out.write(data)?;
        self.context.update(&data[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a snapshot in chunks of up to [`CHUNK_BYTES`] on a thread of its own; the receiver's pace is its pace.
pub fn spawn_snapshot(content: Content) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(CHUNK_BYTES, Chunks(sender.clone()));
        if let Err(error) = write_snapshot(&content, &mut out) {
            // A client that has gone away does not hear it.
            sender.blocking_send(Err(error)).ok();
        }
    });
    receiver
}

struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let chunk = &data[..data.len().min(CHUNK_BYTES)];
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(chunk)));
        sent.map(|()| chunk.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A member's snapshot as etcd's clients receive it. The permit is held until the last chunk has been taken.
pub(crate) fn stream_snapshot(
    member: &Arc<Member>,
    permit: OwnedSemaphorePermit,
) -> impl futures::Stream<Item = Result<SnapshotResponse, Status>> + Send + use<> {
    let mut chunks = spawn_snapshot(member.store.content());
    futures::stream::poll_fn(move |context| {
        let _held_until_dropped = &permit;
        chunks.poll_recv(context).map(|chunk| {
            let response = |blob| {
                let version = ETCD_CLUSTER_VERSION.to_owned();
                SnapshotResponse { header: None, remaining_bytes: 0, blob, version }
            };
            chunk.map(|chunk| chunk.map(response).map_err(|error| Status::internal(format!("snapshot: {error}"))))
        })
    })
}

#[cfg(test)]
mod tests;

//! Snapshots as clients save and give them back: a store's snapshot, framed so that `etcdctl snapshot save` accepts it.
//!
//! ```text
//! the store's own snapshot | zeros | its length, 8 bytes little endian | SHA-256 of all that
//!                          \______ a multiple of 512 bytes ___________/
//! ```
//!
//! etcd's tools check the digest and the multiple of 512. What is inside is NOT etcd's database: `etcdutl snapshot status`
//! and `restore` can't read it, [`open_snapshot`] and `store::Store::restore` do.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use store::DiskFile;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use crate::ETCD_CLUSTER_VERSION;
use crate::member::Member;
use crate::proto::etcdserverpb::SnapshotResponse;

const BLOCK: u64 = 512;
const LENGTH_BYTES: u64 = 8;
const DIGEST_BYTES: u64 = 32;
/// Chunks that wait for the client.
const CHUNKS: usize = 4;

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot read the snapshot")]
    Read(#[from] io::Error),
    #[error("the snapshot has {bytes} bytes, which no whole snapshot has: it is cut short or not a snapshot")]
    Length { bytes: u64 },
    #[error("the snapshot's checksum does not match: it is damaged")]
    Checksum,
    #[error("the file is a snapshot, but not of this store; a snapshot of etcd's own database can't be restored here")]
    Foreign,
}

/// Checks the framing and the digest of a saved snapshot and returns what `store::Store::restore` reads.
pub fn open_snapshot<F: Read + Seek>(mut file: F) -> Result<io::Take<F>, SnapshotError> {
    let bytes = file.seek(SeekFrom::End(0))?;
    if bytes < BLOCK + DIGEST_BYTES || bytes % BLOCK != DIGEST_BYTES {
        return Err(SnapshotError::Length { bytes });
    }
    file.seek(SeekFrom::Start(0))?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut left = bytes - DIGEST_BYTES;
    let mut tail = [0; LENGTH_BYTES as usize];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact(&mut buffer[..wanted])?;
        context.update(&buffer[..wanted]);
        left -= wanted as u64;
        // Parts are as long as a block at least, so the length is never split.
        tail.copy_from_slice(&buffer[wanted - LENGTH_BYTES as usize..wanted]);
    }
    let mut stored = [0; DIGEST_BYTES as usize];
    file.read_exact(&mut stored)?;
    if context.finish().as_ref() != stored {
        return Err(SnapshotError::Checksum);
    }
    let length = u64::from_le_bytes(tail);
    if frame_bytes(length) != Some(bytes - DIGEST_BYTES) {
        return Err(SnapshotError::Foreign);
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(file.take(length))
}

/// So many bytes a snapshot of `length` takes with padding and length.
fn frame_bytes(length: u64) -> Option<u64> {
    length.checked_add(LENGTH_BYTES)?.checked_next_multiple_of(BLOCK)
}

/// Writes a snapshot on a thread of its own; the receiver's pace is its pace.
pub(crate) fn spawn_snapshot(
    member: Arc<Member>,
    permit: OwnedSemaphorePermit,
) -> mpsc::Receiver<Result<SnapshotResponse, Status>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send_snapshot(&member, &sender) {
            // A client that has gone away does not hear it.
            sender.blocking_send(Err(Status::internal(format!("snapshot: {error}")))).ok();
        }
        drop(permit);
    });
    receiver
}

type Sender = mpsc::Sender<Result<SnapshotResponse, Status>>;

fn send_snapshot(member: &Member, sender: &Sender) -> io::Result<()> {
    let shared = Arc::new(std::sync::Mutex::new(Context::new(&SHA256)));
    let outlet = Outlet { sender: sender.clone(), context: Arc::clone(&shared), bytes: 0 };
    let length = member.store.write_snapshot(Box::new(outlet))?;
    let framed = frame_bytes(length).ok_or_else(|| io::Error::other("too long"))?;
    let mut tail = vec![0; usize::try_from(framed - length - LENGTH_BYTES).unwrap_or(0)];
    tail.extend_from_slice(&length.to_le_bytes());
    let mut last = Outlet { sender: sender.clone(), context: Arc::clone(&shared), bytes: length };
    last.append(&tail)?;
    let context = shared.lock().map_err(|_| io::Error::other("the digest is lost"))?.clone();
    send(sender, context.finish().as_ref())
}

fn send(sender: &Sender, data: &[u8]) -> io::Result<()> {
    let blob = Bytes::copy_from_slice(data);
    let version = ETCD_CLUSTER_VERSION.to_owned();
    let response = SnapshotResponse { header: None, remaining_bytes: 0, blob, version };
    sender.blocking_send(Ok(response)).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// The client as a file that can only be written.
struct Outlet {
    sender: Sender,
    context: Arc<std::sync::Mutex<Context>>,
    bytes: u64,
}

impl DiskFile for Outlet {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.context.lock().map_err(|_| io::Error::other("the digest is lost"))?.update(data);
        self.bytes += data.len() as u64;
        // Clients accept messages of 4 MiB at least.
        data.chunks(1 << 20).try_for_each(|chunk| send(&self.sender, chunk))
    }

    fn truncate(&mut self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;

    use super::*;

    fn frame(content: &[u8]) -> Vec<u8> {
        let mut file = content.to_vec();
        let framed = frame_bytes(content.len() as u64).unwrap() as usize;
        file.resize(framed - 8, 0);
        file.extend_from_slice(&(content.len() as u64).to_le_bytes());
        let sum = digest(&SHA256, &file);
        file.extend_from_slice(sum.as_ref());
        file
    }

    #[test]
    fn what_was_framed_is_found_again_and_damage_is_noticed() {
        for length in [0, 1, 503, 504, 505, 70_000] {
            let content: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let file = frame(&content);
            let mut found = Vec::new();
            open_snapshot(io::Cursor::new(&file)).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, content);
            let mut damaged = file.clone();
            damaged[0] ^= 1;
            assert!(matches!(open_snapshot(io::Cursor::new(&damaged)), Err(SnapshotError::Checksum)));
            let short = &file[..file.len() - 1];
            assert!(matches!(open_snapshot(io::Cursor::new(short)), Err(SnapshotError::Length { .. })));
        }
    }
}

//! The write-ahead log: batches of records, appended and synced one after the other, in segments.
//!
//! A segment is a file `wal-NUMBER-FIRSTINDEX.log` of [`crate::frame`]s; a batch is one frame. A batch is acknowledged only
//! after fdatasync. A segment has its name only once its header is durable, so a shorter file is damage; a new segment is begun
//! only after everything in the old one is durable. After a failed sync the log refuses all further work: what the kernel did with
//! the data is unknown, and a repeated sync would lie.
//!
//! Synchronous and single-threaded; [`crate::threads`] gives it its thread. Reading is [`crate::recovery`]'s.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, is_full};
use crate::frame::{FileKind, HEADER_LEN, Header, Identity, write_frame};
use crate::record::Batch;

/// Name of a segment whose header is not durable yet.
const TEMPORARY: &str = "wal.tmp";
/// File that holds back disk space for deletes.
pub(crate) const RESERVE: &str = "reserve";

/// Why a batch was not made durable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalError {
    /// The disk is full. The log is as it was before.
    #[error("the disk is full")]
    Full(#[source] io::Error),
    /// The log is unusable until it is opened anew.
    #[error("cannot {operation} the log {file}")]
    Broken {
        operation: &'static str,
        file: String,
        #[source]
        source: io::Error,
    },
}

/// The open end of the log.
pub(crate) struct Wal {
    disk: Arc<dyn Disk>,
    identity: Identity,
    segment_bytes: u64,
    current: Option<Segment>,
    next_segment: u64,
    broken: bool,
    buffer: Vec<u8>,
}

/// The segment that is being written.
pub(crate) struct Segment {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) name: String,
    pub(crate) salt: u32,
    /// Durable length.
    pub(crate) len: u64,
    pub(crate) next_frame: u64,
}

impl Wal {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        identity: Identity,
        segment_bytes: u64,
        (current, next_segment): (Option<Segment>, u64),
    ) -> Self {
        Self { disk, identity, segment_bytes, current, next_segment, broken: false, buffer: Vec::new() }
    }

    /// The log goes on behind a snapshot: the next batch begins a new segment.
    pub(crate) fn restart(&mut self) {
        self.current = None;
    }

    /// Makes batches durable, in one frame. Returns the bytes written.
    pub(crate) fn append(&mut self, batches: &[&Batch]) -> Result<u64, WalError> {
        if self.broken {
            return Err(broken("append to", "(broken before)", io::Error::other("an earlier write or sync failed")));
        }
        let result = self.try_append(batches);
        self.broken = matches!(result, Err(WalError::Broken { .. }));
        result
    }

    fn try_append(&mut self, batches: &[&Batch]) -> Result<u64, WalError> {
        let Some(first_index) = batches.first().map(|batch| batch.first_index) else { return Ok(0) };
        let mut segment = match self.current.take() {
            Some(segment) if segment.len < self.segment_bytes => segment,
            full => match self.begin_segment(first_index) {
                Ok(segment) => segment,
                Err(error) => {
                    self.current = full;
                    return Err(error);
                }
            },
        };
        self.buffer.clear();
        write_frame(&mut self.buffer, segment.salt, segment.next_frame, |out| {
            batches.iter().for_each(|batch| batch.encode(out));
        });
        let result = segment.append(&self.buffer);
        self.current = Some(segment);
        // A single huge batch must not pin its memory for ever.
        self.buffer.shrink_to(1 << 20);
        result
    }

    fn begin_segment(&mut self, first_index: u64) -> Result<Segment, WalError> {
        let number = self.next_segment;
        let header = Header { kind: FileKind::Log, identity: self.identity, segment: number, index: first_index };
        let name = segment_name(number, first_index);
        let mut file = match self.disk.create(TEMPORARY) {
            Ok(file) => file,
            Err(error) if is_full(&error) => return Err(WalError::Full(error)),
            Err(error) => return Err(broken("create", &name, error)),
        };
        file.append(&header.encode()).map_err(|error| self.unbegun("write", &name, error))?;
        file.sync().map_err(|error| broken("sync", &name, error))?;
        // Its directory may need another block.
        self.disk.rename(TEMPORARY, &name).map_err(|error| self.unbegun("rename", &name, error))?;
        self.disk.sync_dir().map_err(|error| broken("sync the directory of", &name, error))?;
        self.next_segment += 1;
        Ok(Segment { file, name, salt: header.salt(), len: HEADER_LEN as u64, next_frame: 1 })
    }

    /// A segment without its name can't be made: on a full disk nothing of it is left.
    fn unbegun(&self, operation: &'static str, name: &str, error: io::Error) -> WalError {
        if !is_full(&error) {
            return broken(operation, name, error);
        }
        match self.disk.remove(TEMPORARY) {
            Ok(()) => WalError::Full(error),
            Err(error) => broken("remove", name, error),
        }
    }

    /// Takes (or keeps) the reserve of disk space. Fails if the disk is full.
    pub(crate) fn hold_reserve(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let result = self.disk.reserve(RESERVE, bytes);
        if result.is_err() {
            self.release_reserve();
        }
        result
    }

    /// Gives the reserved space back to the disk.
    pub(crate) fn release_reserve(&self) {
        if let Err(error) = self.disk.remove(RESERVE)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot release the reserve of disk space");
        }
    }
}

impl Segment {
    fn append(&mut self, frame: &[u8]) -> Result<u64, WalError> {
        match self.file.append(frame) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                // Whatever part was written is no whole frame; take it back so that the next one begins at the same place.
                self.file.truncate(self.len).map_err(|error| broken("truncate", &self.name, error))?;
                return Err(WalError::Full(error));
            }
            Err(error) => return Err(broken("write", &self.name, error)),
        }
        self.file.sync().map_err(|error| broken("sync", &self.name, error))?;
        self.len += frame.len() as u64;
        self.next_frame += 1;
        Ok(frame.len() as u64)
    }
}

fn broken(operation: &'static str, file: &str, source: io::Error) -> WalError {
    WalError::Broken { operation, file: file.to_owned(), source }
}

/// Name of a segment's file.
pub(crate) fn segment_name(number: u64, first_index: u64) -> String {
    format!("wal-{number:016x}-{first_index:016x}.log")
}

/// Number and first index of a segment's file; `None` for other files.
pub(crate) fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (number, first) = name.strip_prefix("wal-")?.strip_suffix(".log")?.split_once('-')?;
    (number.len() == 16 && first.len() == 16).then_some(())?;
    Some((u64::from_str_radix(number, 16).ok()?, u64::from_str_radix(first, 16).ok()?))
}

/// Segments none of whose entries is after `index`, oldest first; never the last two: the last one may not hold a batch
/// yet, and then the vitals are in the one before.
pub(crate) fn obsolete_segments(names: &[String], index: u64) -> Vec<String> {
    let mut segments: Vec<_> =
        names.iter().filter_map(|name| parse_segment_name(name).map(|key| (key, name))).collect();
    segments.sort();
    let triples = segments.windows(3);
    triples.take_while(|three| three[1].0.1 <= index + 1).map(|three| three[0].1.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_obsolete_when_the_next_begins_at_or_before_the_first_entry_still_needed() {
        let names: Vec<_> = [(1, 1), (2, 10), (3, 20), (4, 30)].iter().map(|(n, i)| segment_name(*n, *i)).collect();
        let check = |index, expect: usize| assert_eq!(obsolete_segments(&names, index), names[..expect]);
        check(8, 0);
        check(9, 1);
        check(18, 1);
        check(19, 2);
        check(1000, 2);
    }
}

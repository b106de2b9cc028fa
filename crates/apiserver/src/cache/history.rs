//! The recent changes of one resource, numbered without gaps, read by any number of watchers through cursors.
//!
//! Invariant: at most [`CHANGES_MAX`] changes and [`BYTES_MAX`] bytes of objects; what falls out is known as fallen out.
//! A watcher holds no queue: a slow one costs nothing and is told when it has fallen behind.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::entry::Entry;

/// Enough for a watcher that comes back after some seconds of a busy cluster.
const CHANGES_MAX: usize = 50_000;
/// Bounds the memory of old object states, per resource.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Encoded frames are kept for this many newest changes: watchers that keep up share them.
const FRAMED_MAX: u64 = 256;
/// Kept whatever their age.
const CHANGES_MIN: usize = 100;

/// Which encoded form of a change: the event type (0 for the plain object) and the representation's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameKey {
    pub event: u8,
    pub representation: u32,
}

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    pub revision: i64,
    /// The new state; `None`: deleted.
    pub entry: Option<Arc<Entry>>,
    /// The state before; `None`: created.
    pub previous: Option<Arc<Entry>>,
    frames: Mutex<Vec<(FrameKey, Bytes)>>,
}

impl Change {
    pub fn new(revision: i64, entry: Option<Arc<Entry>>, previous: Option<Arc<Entry>>) -> Self {
        Self { revision, entry, previous, frames: Mutex::new(Vec::new()) }
    }

    /// The encoded event for `key`, made by `encode` for the first watcher that needs it and shared with the others.
    pub fn frame(&self, key: FrameKey, encode: impl FnOnce() -> Bytes) -> Bytes {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(k, _)| *k == key) {
            return frame.clone();
        }
        let frame = encode();
        frames.push((key, frame.clone()));
        frame
    }

    fn drop_frames(&self) {
        *self.frames.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }

    fn bytes(&self) -> usize {
        let of = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |e| e.object.len());
        of(&self.entry) + if self.entry.is_none() { of(&self.previous) } else { 0 }
    }
}

/// A watcher's place.
#[derive(Debug)]
pub struct Cursor {
    pub(super) next: u64,
    pub(super) changed: watch::Receiver<u64>,
}

impl Cursor {
    /// Returns when there may be something to read. Cancel safe.
    pub async fn wait(&mut self) {
        let next = self.next;
        // The sender lives in the cache that the watcher holds, so it cannot be gone.
        if self.changed.wait_for(|number| *number > next).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The changes that a watcher wants are not in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// `oldest` is the lowest revision after which a watch can start.
    #[error("too old: changes are known after revision {oldest}")]
    TooOld { oldest: i64 },
}

#[derive(Debug, Default)]
pub struct History {
    changes: VecDeque<Arc<Change>>,
    /// Number of the first change in `changes`.
    first: u64,
    /// Revision of the newest change that is not in `changes`.
    floor: i64,
    bytes: usize,
}

impl History {
    pub fn next_number(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// Forgets everything; what happened until `revision` is not known. Numbers go on, with one skipped so that every open
    /// cursor has fallen out.
    pub fn reset(&mut self, revision: i64) {
        self.first = self.next_number() + 1;
        self.changes.clear();
        self.bytes = 0;
        self.floor = revision;
    }

    pub fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push_back(Arc::new(change));
        while self.changes.len() > CHANGES_MAX || (self.bytes > BYTES_MAX && self.changes.len() > CHANGES_MIN) {
            self.pop();
        }
        if let Some(old) = self.changes.len().checked_sub(FRAMED_MAX as usize + 1) {
            self.changes[old].drop_frames();
        }
    }

    fn pop(&mut self) {
        if let Some(change) = self.changes.pop_front() {
            self.first += 1;
            self.bytes -= change.bytes().min(self.bytes);
            self.floor = change.revision;
        }
    }

    pub fn forget_until(&mut self, revision: i64) {
        while self.changes.len() > CHANGES_MIN && self.changes.front().is_some_and(|c| c.revision <= revision) {
            self.pop();
        }
        if self.changes.is_empty() {
            self.changes.shrink_to(CHANGES_MIN);
        }
    }

    /// The number of the first change after `revision`.
    pub fn number_after(&self, revision: i64) -> Result<u64, CursorError> {
        // A revision's changes may have been cut apart only at the floor itself.
        if revision < self.floor {
            return Err(CursorError::TooOld { oldest: self.floor });
        }
        Ok(self.first + self.changes.partition_point(|change| change.revision <= revision) as u64)
    }

    pub fn read(&self, number: u64, count_max: usize) -> Result<Vec<Arc<Change>>, CursorError> {
        let Some(skip) = number.checked_sub(self.first) else {
            return Err(CursorError::TooOld { oldest: self.floor });
        };
        Ok(self.changes.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(count_max).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(revisions: &[i64]) -> History {
        let mut history = History::default();
        history.reset(10);
        for revision in revisions {
            history.push(Change::new(*revision, None, None));
        }
        history
    }

    #[test]
    fn a_watch_starts_after_its_revision() {
        let h = history(&[11, 11, 15]);
        let read = |revision| {
            h.number_after(revision)
                .and_then(|n| h.read(n, 10))
                .map(|c| c.iter().map(|c| c.revision).collect::<Vec<_>>())
        };
        assert_eq!(read(10), Ok(vec![11, 11, 15]));
        assert_eq!(read(11), Ok(vec![15]));
        assert_eq!(read(14), Ok(vec![15]));
        assert_eq!(read(15), Ok(vec![]));
        assert_eq!(read(9), Err(CursorError::TooOld { oldest: 10 }));
    }

    #[test]
    fn a_reset_cuts_open_cursors_off() {
        let mut h = history(&[11]);
        let at = h.next_number();
        h.reset(20);
        assert_eq!(h.read(at, 1).map(|c| c.len()), Err(CursorError::TooOld { oldest: 20 }));
        assert_eq!(h.number_after(20).and_then(|n| h.read(n, 1)).map(|c| c.len()), Ok(0));
    }

    #[test]
    fn old_changes_are_forgotten_but_for_the_newest_few() {
        let mut h = history(&(11..=300).collect::<Vec<_>>());
        h.forget_until(250);
        assert_eq!(h.number_after(199), Err(CursorError::TooOld { oldest: 200 }));
        assert!(h.number_after(200).is_ok());
        assert_eq!(h.changes.len(), CHANGES_MIN);
        assert_eq!(h.floor, 200);
    }
}

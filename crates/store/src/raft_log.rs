//! The part of the log that is kept in memory, as Raft's library reads it.
//!
//! Entries from some position after the start of the log to its end, durable or not; what is durable is the log thread's
//! affair. The front is cut off as entries are applied, but so many are kept that a member that was away for a moment is
//! served from memory; one that was away for longer gets a snapshot.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Bytes that an entry counts for beyond its content.
const ENTRY_OVERHEAD: usize = 64;

/// A window on the log.
pub(crate) struct RaftLog {
    entries: VecDeque<Entry>,
    /// The position before the first entry, and its term.
    before: (u64, u64),
    bytes: usize,
    /// What Raft starts from.
    hard_state: HardState,
    /// The newest applied entry: what a snapshot would be of.
    applied: (u64, u64),
    conf_state: ConfState,
}

impl RaftLog {
    pub(crate) fn new(applied: (u64, u64), conf_state: ConfState, entries: Vec<Entry>, hard_state: HardState) -> Self {
        let bytes = entries.iter().map(weight).sum();
        Self { entries: entries.into(), before: applied, bytes, hard_state, applied, conf_state }
    }

    /// Adds entries; one at a known position replaces what was there and all that follows.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = usize::try_from(first.index.saturating_sub(self.before.0 + 1)).unwrap_or(usize::MAX);
        while self.entries.len() > keep {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, weight);
        }
        self.bytes += entries.iter().map(weight).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Notes what has been applied.
    pub(crate) fn set_applied(&mut self, position: (u64, u64), conf_state: Option<ConfState>) {
        self.applied = position;
        if let Some(conf_state) = conf_state {
            self.conf_state = conf_state;
        }
    }

    /// Starts anew behind a snapshot.
    pub(crate) fn restart(&mut self, position: (u64, u64), conf_state: ConfState) {
        self.entries.clear();
        self.bytes = 0;
        self.before = position;
        self.set_applied(position, Some(conf_state));
    }

    /// Forgets applied entries until at most so many and so many bytes are left, but none after `keep_after`.
    pub(crate) fn trim(&mut self, entries: usize, bytes: usize, keep_after: u64) {
        let until = self.applied.0.min(keep_after);
        while self.entries.len() > entries || self.bytes > bytes {
            let Some(first) = self.entries.pop_front_if(|entry| entry.index <= until) else { return };
            self.bytes -= weight(&first);
            self.before = (first.index, first.term);
        }
    }

    /// The position before the first entry.
    pub(crate) fn before(&self) -> u64 {
        self.before.0
    }

    pub(crate) fn last(&self) -> u64 {
        self.entries.back().map_or(self.before.0, |entry| entry.index)
    }

    fn at(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.before.0 + 1)?).ok()
    }
}

/// What an entry counts for, in bytes.
pub(crate) fn weight(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD
}

impl Storage for RaftLog {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        bytes_max: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let from = self.at(low).ok_or(Error::Store(StorageError::Compacted))?;
        let to = self.at(high).filter(|to| *to <= self.entries.len()).ok_or(Error::Store(StorageError::Unavailable))?;
        let mut room = bytes_max.into().unwrap_or(u64::MAX);
        let mut found = Vec::new();
        for entry in self.entries.range(from..to) {
            let size = weight(entry) as u64;
            // One at least, however large.
            if !found.is_empty() && size > room {
                break;
            }
            room = room.saturating_sub(size);
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        let at = self.at(index).ok_or(Error::Store(StorageError::Compacted))?;
        self.entries.get(at).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// The head of a snapshot; its body is taken from the state machine when it is sent.
    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        if self.applied.0 < request_index || self.applied.0 == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(snapshot_head(self.applied, self.conf_state.clone()))
    }
}

/// What Raft must know of a snapshot.
pub(crate) fn snapshot_head((index, term): (u64, u64), conf_state: ConfState) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let head = snapshot.mut_metadata();
    head.index = index;
    head.term = term;
    head.set_conf_state(conf_state);
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 36].into(), ..Entry::default() }
    }

    fn log() -> RaftLog {
        let entries = (2..=5).map(|index| entry(index, 1)).collect();
        RaftLog::new((1, 1), ConfState::default(), entries, HardState::default())
    }

    fn read(log: &RaftLog, low: u64, high: u64, bytes: u64) -> Result<Vec<u64>> {
        let entries = log.entries(low, high, bytes, GetEntriesContext::empty(false))?;
        Ok(entries.iter().map(|entry| entry.index).collect())
    }

    #[test]
    fn reading_is_bounded_and_knows_what_is_gone() {
        let mut log = log();
        assert_eq!(read(&log, 2, 6, u64::MAX).unwrap(), [2, 3, 4, 5]);
        assert_eq!(read(&log, 2, 6, 200).unwrap(), [2, 3]);
        assert_eq!(read(&log, 2, 6, 0).unwrap(), [2]);
        assert!(matches!(read(&log, 1, 3, 0), Err(Error::Store(StorageError::Compacted))));
        assert!(matches!(read(&log, 2, 7, 0), Err(Error::Store(StorageError::Unavailable))));
        log.set_applied((4, 1), None);
        log.trim(1, usize::MAX, 3);
        assert_eq!((log.first_index().unwrap(), log.term(3).unwrap()), (4, 1));
        log.trim(0, 0, u64::MAX);
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (5, 5), "what is not applied stays");
    }

    #[test]
    fn a_new_leaders_entries_replace_the_old_ones() {
        let mut log = log();
        log.append(&[entry(4, 2)]);
        assert_eq!((log.last(), log.term(4).unwrap(), log.term(3).unwrap()), (4, 2, 1));
        log.restart((9, 3), ConfState::default());
        assert_eq!((log.first_index().unwrap(), log.last(), log.term(9).unwrap(), log.bytes), (10, 9, 3, 0));
    }
}

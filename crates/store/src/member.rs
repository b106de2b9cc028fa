//! Consensus: propose -> persist -> commit -> apply, as separate steps with Raft's positions.
//!
//! One member now: what is durable here is committed. The shape is Raft's, so that a Raft library takes this struct's place
//! without the driver noticing: entries are handed out for persisting, persistence is reported back asynchronously, and
//! committed entries are taken out for application. Pure: no IO, no clock.
//!
//! Invariant: `applied <= committed <= persisted <= last` (with several members, `committed` may overtake `persisted`).

use std::collections::VecDeque;

use crate::command::Command;
use crate::record::{encode_entry, encode_hard_state};

/// This member's view of the log.
#[derive(Debug)]
pub(crate) struct Member {
    id: u64,
    term: u64,
    last: u64,
    persisted: u64,
    committed: u64,
    applied: u64,
    /// Entries `applied + 1 ..= last`.
    unapplied: VecDeque<Entry>,
    /// Records that the log has not been given yet.
    unwritten: Vec<Vec<u8>>,
    first_unwritten: u64,
}

/// A proposed command at its position.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) command: Command,
}

/// Records to be made durable together.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
    pub(crate) records: Vec<Vec<u8>>,
}

/// Raft's positions, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Positions {
    pub(crate) term: u64,
    pub(crate) last: u64,
    pub(crate) persisted: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
}

impl Member {
    /// Goes on after recovery as the leader of a new term. `id` is whom it votes for: itself.
    pub(crate) fn new(recovered_term: u64, applied: u64, id: u64) -> Self {
        let term = recovered_term + 1;
        Self {
            id,
            term,
            last: applied,
            persisted: applied,
            committed: applied,
            applied,
            unapplied: VecDeque::new(),
            // The term is durable with the first entry of the term, never after it.
            unwritten: vec![encode_hard_state(term, id, applied)],
            first_unwritten: applied + 1,
        }
    }

    /// Appends a command. Returns its index.
    pub(crate) fn propose(&mut self, command: Command, encoded: &[u8]) -> u64 {
        self.last += 1;
        self.unwritten.push(encode_entry(self.last, self.term, encoded));
        self.unapplied.push_back(Entry { index: self.last, term: self.term, command });
        self.last
    }

    /// What is to be made durable now, if there is an entry.
    pub(crate) fn take_unwritten(&mut self) -> Option<Unwritten> {
        if self.first_unwritten > self.last {
            return None;
        }
        let (first_index, last_index) = (self.first_unwritten, self.last);
        self.first_unwritten = self.last + 1;
        Some(Unwritten { first_index, last_index, records: std::mem::take(&mut self.unwritten) })
    }

    /// Entries up to `index` are durable here; a quorum of one commits them.
    pub(crate) fn persisted(&mut self, index: u64) {
        self.persisted = self.persisted.max(index);
        self.committed = self.persisted;
    }

    /// The log refused the entry at `first` and all after it. They never happened: nobody else has seen them.
    pub(crate) fn withdraw(&mut self, first: u64) -> VecDeque<Entry> {
        let kept = self.unapplied.partition_point(|entry| entry.index < first);
        let withdrawn = self.unapplied.split_off(kept);
        self.last = first - 1;
        self.first_unwritten = first;
        self.unwritten = vec![encode_hard_state(self.term, self.id, self.committed)];
        withdrawn
    }

    /// The next committed entry that has not been applied; it counts as applied.
    pub(crate) fn next_committed(&mut self) -> Option<Entry> {
        if self.applied >= self.committed {
            return None;
        }
        self.applied += 1;
        self.unapplied.pop_front()
    }

    pub(crate) fn positions(&self) -> Positions {
        let Self { term, last, persisted, committed, applied, .. } = *self;
        Positions { term, last, persisted, committed, applied }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(member: &mut Member) -> Vec<u64> {
        std::iter::from_fn(|| member.next_committed()).map(|entry| entry.index).collect()
    }

    #[test]
    fn an_entry_is_applied_only_after_it_is_persisted() {
        let mut member = Member::new(4, 10, 1);
        assert!(member.take_unwritten().is_none());
        member.propose(Command::Nothing, &[0]);
        member.propose(Command::Nothing, &[0]);
        let batch = member.take_unwritten().unwrap();
        assert_eq!((batch.first_index, batch.last_index, batch.records.len()), (11, 12, 3));
        assert_eq!(drain(&mut member), [0; 0]);
        member.persisted(11);
        assert_eq!(drain(&mut member), [11]);
        member.persisted(12);
        assert_eq!(drain(&mut member), [12]);
        assert_eq!(member.positions(), Positions { term: 5, last: 12, persisted: 12, committed: 12, applied: 12 });
    }

    #[test]
    fn a_withdrawn_position_is_used_again() {
        let mut member = Member::new(0, 0, 1);
        for _ in 0..3 {
            member.propose(Command::Nothing, &[0]);
        }
        member.take_unwritten();
        member.persisted(1);
        member.withdraw(2);
        assert_eq!(member.propose(Command::Nothing, &[0]), 2);
        let batch = member.take_unwritten().unwrap();
        assert_eq!((batch.first_index, batch.last_index), (2, 2));
        member.persisted(2);
        assert_eq!(drain(&mut member), [1, 2]);
    }
}

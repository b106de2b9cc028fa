//! A log that is left because too much waits for its disk, and how the member returns to it.
//!
//! While the log is left, committed steps are forgotten instead of written, and with them what they would have told others. When
//! the disk has taken all that was given to it before, the log goes on where it was left if what follows is in memory
//! ([`Member::return_at_once`]), and begins anew behind a checkpoint if not ([`Member::return_to_log`]).
//! Invariant: `undurable` holds steps that will be written, then steps that will not; of the former the disk reports, of the
//! latter nobody.

use std::ops::Range;

use raft::eraftpb::{Entry, Message};
use raft::{GetEntriesContext, Storage as _};

use super::elections::votes_of;
use super::{KEPT_BYTES_FOR_OTHERS, Member, UNDURABLE_BYTES_MAX, Undurable, is_acknowledgement, without_outdated};
use crate::raft_log::weight;
use crate::record::Batch;

/// So much of what comes after a checkpoint may be kept for a log that waits for it.
const KEPT_BYTES_FOR_RETURN: usize = 1 << 30;

/// The log on this disk ends, or will end once the disk is back, with a step of some time ago.
pub(super) struct Left {
    /// The last step that goes to the disk.
    pub(super) ticket: u64,
    /// The last entry on the disk that is still part of the log.
    pub(super) index: u64,
    /// The last entry that the disk has or will get, part of the log or not.
    end: u64,
    /// The newest acknowledgement of what is not written.
    pub(super) acknowledgement: Option<Message>,
    /// A checkpoint is being written: the log will go on behind it.
    pub(super) returns: Option<Return>,
}

/// How a log that was left will go on.
pub(super) struct Return {
    /// Behind this position.
    pub(super) after: u64,
    /// So many bytes of what comes after it are kept for it.
    pub(super) bytes_max: usize,
}

impl Member {
    /// What is committed is no longer written, because this disk is behind.
    pub(crate) fn has_left_log(&self) -> bool {
        self.left.is_some()
    }

    /// Leaves the log if too much waits for this disk, of which others have made most durable. `false`: not now. What only
    /// waits for a majority is bounded another way: no more is taken.
    pub(crate) fn leave_log(&mut self) -> bool {
        let is_much = self.undurable_entries > self.waiting_max / 2 || self.undurable_bytes > UNDURABLE_BYTES_MAX / 2;
        if self.left.is_some() || !is_much {
            return false;
        }
        let (committed, rest) = (self.undurable.range(..self.acknowledged), self.undurable.range(self.acknowledged..));
        let (entries, bytes) = committed.fold((0, 0), |(n, b), step| (n + step.entries, b + step.bytes));
        let is_relief = entries >= self.undurable_entries / 2 && bytes >= self.undurable_bytes / 2;
        if !is_relief || rest.into_iter().any(|step| step.snapshot.is_some()) {
            return false;
        }
        let committed: Vec<_> = self.undurable.drain(..self.acknowledged).collect();
        // The disk reports only steps that had something to write.
        let reported = committed.iter().rfind(|step| !step.is_written).or(committed.last());
        let Some((ticket, is_written)) = reported.map(|step| (step.ticket, step.is_written)) else { return false };
        let last = committed.iter().rev().find_map(|step| step.last);
        let messages = without_outdated(committed.into_iter().flat_map(|step| step.messages).collect());
        let one = Undurable { ticket, last, entries: 0, bytes: 0, snapshot: None, is_written, messages };
        self.undurable.push_front(one);
        self.acknowledged = 1;
        self.undurable_entries -= entries;
        self.undurable_bytes -= bytes;
        let index = self.node.store().last();
        self.left = Some(Left { ticket: self.ticket, index, end: index, acknowledgement: None, returns: None });
        true
    }

    /// The disk is back, with everything that was given to it. If nothing is missing between the log there and the one in
    /// memory, it goes on with these batches. Others may count on what the disk has, so they begin right behind it.
    pub(crate) fn return_at_once(&mut self) -> Option<Vec<Batch>> {
        // Nothing was left out.
        self.left.take_if(|left| left.ticket == self.ticket);
        let index = self.left.as_ref()?.index;
        self.go_on_after(index)
    }

    /// The same, but something is missing, and a checkpoint as of this position is being written: what comes after it is kept
    /// until the log goes on, up to so many bytes.
    pub(crate) fn prepare_return(&mut self, index: u64, bytes_max: usize) {
        if let Some(left) = &mut self.left {
            left.returns =
                Some(Return { after: index, bytes_max: bytes_max.clamp(KEPT_BYTES_FOR_OTHERS, KEPT_BYTES_FOR_RETURN) });
        }
    }

    /// The log waits for the checkpoint as of this position.
    pub(crate) fn returns_after(&self, index: u64) -> bool {
        self.left.as_ref().and_then(|left| left.returns.as_ref()).is_some_and(|announced| announced.after == index)
    }

    /// A checkpoint as of `index` is durable. If [`Self::prepare_return`] announced it, the log goes on behind it: what is to be
    /// written. `None`: it was another one, or what comes after it is gone, and one more is needed.
    pub(crate) fn return_to_log(&mut self, index: u64) -> Option<Vec<Batch>> {
        let left = self.left.as_mut()?;
        left.returns.take_if(|announced| announced.after == index)?;
        // A part that began before the old one ends would be read as a part of it.
        if index < self.persisted.max(left.end) { None } else { self.go_on_after(index) }
    }

    /// What is known to be committed is a step of its own, which is bounded already and does not count for what may wait. The
    /// rest is acknowledged to the library when it is committed.
    fn go_on_after(&mut self, index: u64) -> Option<Vec<Batch>> {
        let log = self.node.store();
        let last = log.last().max(index);
        let mut entries = log.entries(index + 1, last + 1, None, GetEntriesContext::empty(false)).ok()?;
        let unwritten = self.unwritten_from();
        // Of the steps, these wait for others.
        let waiting = self.undurable.get(unwritten.max(self.acknowledged)).map(|step| step.ticket);
        self.forget_steps(unwritten..self.undurable.len());
        let left = self.left.take()?;
        let mut message = left.acknowledgement.filter(|message| message.term == self.term());
        let mut batches = Vec::new();
        // Tickets up to here are acknowledged, and the disk has not had all of them.
        let acknowledged = waiting.map_or(self.ticket, |ticket| ticket - 1);
        let log = &self.node.raft.raft_log;
        let told = if waiting.is_some() { log.persisted.min(log.committed).clamp(index, last) } else { last };
        if acknowledged > left.ticket && told > index {
            let rest = entries.split_off(usize::try_from(told - index).unwrap_or(usize::MAX));
            let said = message.take_if(|message| message.index <= told);
            self.acknowledged += usize::from(self.acknowledged == self.undurable.len());
            let mut step = self.note(acknowledged, &[], None, false, said.into_iter().collect());
            step.last = Some(told);
            self.undurable.push_back(step);
            batches.extend(self.pieces(std::mem::replace(&mut entries, rest), told, acknowledged));
        }
        if acknowledged < self.ticket || batches.is_empty() {
            let mut step = self.note(self.ticket, &entries, None, false, message.into_iter().collect());
            step.last = Some(last);
            self.undurable.push_back(step);
            batches.extend(self.pieces(entries, last, self.ticket));
        }
        Some(batches)
    }

    /// What is written for one step that ends with `last`. Only the last piece is reported as the step.
    fn pieces(&self, entries: Vec<Entry>, last: u64, ticket: u64) -> Vec<Batch> {
        let mut batches = Vec::new();
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            bytes += weight(&entry);
            let (index, is_full) = (entry.index, bytes >= self.piece_bytes);
            piece.push(entry);
            if is_full && index < last {
                batches.push(self.batch(0, std::mem::take(&mut piece), index));
                bytes = 0;
            }
        }
        batches.push(self.batch(ticket, piece, last));
        batches
    }

    pub(super) fn holds_unwritten(&self) -> bool {
        self.left.is_some() && self.rules.hold_unwritten
    }

    /// Place of the first step that is not written because the log was left.
    pub(super) fn unwritten_from(&self) -> usize {
        let written = self.left.as_ref().map_or(u64::MAX, |left| left.ticket);
        self.undurable.partition_point(|step| step.ticket <= written)
    }

    /// Forgets steps that are not written, and what they would have told others, but for the last acknowledgement.
    pub(super) fn forget_steps(&mut self, range: Range<usize>) {
        let acknowledged = self.acknowledged.clamp(range.start, range.end) - range.start;
        for step in self.undurable.drain(range).collect::<Vec<_>>() {
            self.undurable_entries -= step.entries;
            self.undurable_bytes -= step.bytes;
            self.held_votes -= votes_of(&step);
            let newest = step.messages.into_iter().rfind(is_acknowledgement);
            if let Some(left) = &mut self.left
                && newest.is_some()
            {
                left.acknowledgement = newest;
            }
        }
        self.acknowledged -= acknowledged;
    }
}

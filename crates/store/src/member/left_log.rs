//! A log that is left because too much waits for its disk, and how the member returns to it.
//!
//! While the log is left, committed steps are forgotten instead of written, and with them what they would have told others. When
//! the disk has taken all that was given to it before, the log goes on where it was left if what follows is in memory
//! ([`Member::return_at_once`]), and begins anew behind a checkpoint if not ([`Member::return_to_log`]).
//! Invariant: `undurable` holds steps that will be written, then steps that will not; of the former the disk reports, of the
//! latter nobody.

use std::ops::Range;

use raft::eraftpb::Message;
use raft::{GetEntriesContext, Storage as _};

use super::elections::votes_of;
use super::{Member, UNDURABLE_BYTES_MAX, Undurable, is_acknowledgement, without_outdated};
use crate::record::Batch;

/// The log on this disk ends, or will end once the disk is back, with a step of some time ago.
pub(super) struct Left {
    /// The last step that goes to the disk.
    pub(super) ticket: u64,
    /// The last entry on the disk that is still part of the log.
    pub(super) index: u64,
    /// The newest acknowledgement of what is not written.
    pub(super) acknowledgement: Option<Message>,
    /// A checkpoint as of this position is being written: the log will go on behind it.
    pub(super) returns_after: Option<u64>,
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
        self.left = Some(Left { ticket: self.ticket, index, acknowledgement: None, returns_after: None });
        true
    }

    /// The disk is back, with everything that was given to it. If nothing is missing between the log there and the one in
    /// memory, it goes on with this batch. Others may count on what the disk has, so the batch begins right behind it.
    pub(crate) fn return_at_once(&mut self) -> Option<Batch> {
        // Nothing was left out.
        self.left.take_if(|left| left.ticket == self.ticket);
        let index = self.left.as_ref()?.index;
        self.go_on_after(index)
    }

    /// The same, but something is missing, and a checkpoint as of this position is being written: what comes after it is kept
    /// until the log goes on.
    pub(crate) fn prepare_return(&mut self, index: u64) {
        if let Some(left) = &mut self.left {
            left.returns_after = Some(index);
        }
    }

    /// A checkpoint as of `index` is durable. If [`Self::prepare_return`] announced it, the log goes on behind it: what is to be
    /// written. `None`: it was another one, or what comes after it is gone, and one more is needed.
    pub(crate) fn return_to_log(&mut self, index: u64) -> Option<Batch> {
        self.left.as_mut()?.returns_after.take_if(|announced| *announced == index)?;
        // A part that began before the old one ends would be read as a part of it.
        if index < self.persisted { None } else { self.go_on_after(index) }
    }

    fn go_on_after(&mut self, index: u64) -> Option<Batch> {
        let log = self.node.store();
        let entries = log.entries(index + 1, log.last() + 1, None, GetEntriesContext::empty(false)).ok()?;
        let unwritten = self.unwritten_from();
        self.forget_steps(unwritten..self.undurable.len());
        let left = self.left.take()?;
        let messages = left.acknowledgement.filter(|message| message.term == self.term()).into_iter().collect();
        let batch = Batch { first_index: index + 1, ..self.batch(self.ticket, &entries) };
        let mut step = self.note(self.ticket, &entries, None, false, messages);
        step.last = Some(index.max(self.node.store().last()));
        self.undurable.push_back(step);
        Some(batch)
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

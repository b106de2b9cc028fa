//! What members have received and not confirmed, because their disks are behind: said by them, and minded by the leader.
//! It keeps no log for them, and goes on behind what they have.

use raft::ProgressState;
use raft::eraftpb::{Message, MessageType};

use super::{GONE_TICKS, Member, is_acknowledgement};

impl Member {
    /// What this member has received of its leader and not acknowledged, because its disk is behind: term and index.
    pub(crate) fn unconfirmed(&self) -> Option<(u64, u64)> {
        let from = self.unwritten_from();
        let (written, unwritten) = (self.undurable.range(..from), self.undurable.range(from..));
        let forgotten = self.left.as_ref().and_then(|left| left.acknowledgement.as_ref());
        let newest_first = unwritten.rev().flat_map(|step| step.messages.iter().rev()).chain(forgotten);
        let mut newest_first = newest_first.chain(written.rev().flat_map(|step| step.messages.iter().rev()));
        let newest = newest_first.find(|message| is_acknowledgement(message))?;
        (newest.term == self.term()).then_some((newest.term, newest.index))
    }

    /// As leader: a member has received everything up to `index`, though its disk has not. It need not be asked where to
    /// begin any more; it counts for nothing else.
    pub(crate) fn received(&mut self, from: u64, (term, index): (u64, u64)) {
        if !self.is_leader() || term != self.term() {
            return;
        }
        let Some(progress) = self.node.raft.mut_prs().get_mut(from) else { return };
        self.received.insert(from, index);
        if progress.state == ProgressState::Probe && index >= progress.matched {
            let next = progress.next_idx.max(index + 1);
            progress.become_replicate();
            progress.next_idx = next;
            self.node.raft.send_append(from);
        } else if progress.state == ProgressState::Replicate {
            progress.ins.free_to(index);
        }
    }

    /// A member in doubt is asked at what it has confirmed, which may be gone from this log, and then it would get a snapshot
    /// that its disk can't take. What it has received is known better; if it lacks some of that now, its answer says so.
    pub(super) fn goes_on_behind_received(&mut self, message: &Message) -> bool {
        let is_rejection = message.get_msg_type() == MessageType::MsgAppendResponse && message.reject;
        let concerns = is_rejection && message.term == self.term() && self.is_leader();
        if !concerns {
            return false;
        }
        let is_old = |progress: &raft::Progress, received: u64| {
            progress.state == ProgressState::Replicate && message.index < received
        };
        let progress = self.node.raft.prs().get(message.from).zip(self.received.get(&message.from));
        progress.is_some_and(|(progress, received)| is_old(progress, *received))
            || self.probe_behind_received(message.from, message.reject_hint)
    }

    /// An acknowledgement that comes while the leader asks behind what its sender has received is of some time ago. The library would go
    /// back to what it confirms, which may be gone from this log.
    pub(super) fn keep_to_received(&mut self, message: &Message) {
        if !is_acknowledgement(message) || message.term != self.term() || !self.is_leader() {
            return;
        }
        let last = self.node.store().last();
        let Some(received) = self.received.get(&message.from).map(|received| last.min(*received)) else { return };
        let Some(progress) = self.node.raft.mut_prs().get_mut(message.from) else { return };
        if progress.state == ProgressState::Probe && (progress.matched + 1..received).contains(&message.index) {
            let next = progress.next_idx.max(received + 1);
            progress.become_replicate();
            progress.next_idx = next;
        }
    }

    /// As leader: sends what comes after all that a member has received, of which it has `has_until` still. `false`: it has
    /// received nothing beyond what it has confirmed.
    pub(super) fn probe_behind_received(&mut self, id: u64, has_until: u64) -> bool {
        let last = self.node.store().last();
        let Some(received) = self.received.get_mut(&id) else { return false };
        *received = has_until.min(*received);
        let received = last.min(*received);
        let Some(progress) = self.node.raft.mut_prs().get_mut(id) else { return false };
        if progress.state != ProgressState::Replicate || received <= progress.matched {
            return false;
        }
        progress.become_probe();
        progress.next_idx = received + 1;
        self.node.raft.send_append(id);
        true
    }

    /// As leader: what somebody who can be reached has neither confirmed nor said to have received, be it that messages were
    /// lost or that a snapshot is on its way to it, begins after this position.
    pub(super) fn needed_after(&self) -> u64 {
        if !self.is_leader() {
            return u64::MAX;
        }
        let is_there = |id: &u64| *id != self.me && self.silence.get(id).is_none_or(|ticks| *ticks < GONE_TICKS);
        let others = self.node.raft.prs().iter().filter(|(id, _)| is_there(id));
        // Of whom nothing is known yet, it will be asked where the next message begins.
        let has = |(id, progress): (&u64, &raft::Progress)| {
            let matched = if progress.matched > 0 { progress.matched } else { progress.next_idx - 1 };
            matched.max(self.received.get(id).copied().unwrap_or(0))
        };
        others.map(has).chain(self.snapshot_under_way).min().unwrap_or(u64::MAX)
    }
}

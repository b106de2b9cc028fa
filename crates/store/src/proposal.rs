//! Whose proposal an entry is, and that it takes effect once even if it was proposed twice.
//!
//! A member numbers its proposals; the number travels in the entry. When a leader is lost, the member proposes again what has
//! not been answered, and every member applies the first of the copies alone: which numbers are settled is replicated
//! state. Deterministic, no clock. The set stays small, because each proposal also says below which number its member waits
//! for nothing any more.

use imbl::OrdMap;

use crate::wire::{Malformed, Reader, Writer};

/// Identity of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProposalId {
    pub(crate) member: u64,
    /// Counts the starts of the member; durable before it is used.
    pub(crate) run: u64,
    pub(crate) seq: u64,
    /// Every number below is answered or given up.
    pub(crate) low: u64,
}

impl ProposalId {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(24));
        [self.member, self.run, self.seq, self.low].into_iter().for_each(|n| w.number(n));
        w.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let id = Self { member: r.number()?, run: r.number()?, seq: r.number()?, low: r.number()? };
        if r.is_empty() { Ok(id) } else { Err(Malformed) }
    }
}

/// What is settled, per member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    members: OrdMap<u64, Session>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Session {
    run: u64,
    /// Every number up to this one is settled.
    settled: u64,
    /// Settled numbers above it, ascending; nearly always empty.
    beyond: Vec<u64>,
}

impl Sessions {
    /// Whether the proposal has been applied, or comes too late to be.
    pub(crate) fn is_settled(&self, id: &ProposalId) -> bool {
        self.members.get(&id.member).is_some_and(|session| {
            session.run > id.run
                || session.run == id.run && (id.seq <= session.settled || session.beyond.binary_search(&id.seq).is_ok())
        })
    }

    /// Takes note of a proposal that is being applied. `false`: it must not be, it was before.
    pub(crate) fn settle(&mut self, id: &ProposalId) -> bool {
        if self.is_settled(id) {
            return false;
        }
        if !self.members.contains_key(&id.member) {
            self.members.insert(id.member, Session::default());
        }
        if let Some(session) = self.members.get_mut(&id.member) {
            session.settle(id);
        }
        true
    }

    /// A member has left: its number is never used again.
    pub(crate) fn forget(&mut self, member: u64) {
        self.members.remove(&member);
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.members.len() as u64);
        for (member, session) in &self.members {
            [*member, session.run, session.settled, session.beyond.len() as u64].into_iter().for_each(|n| w.number(n));
            session.beyond.iter().for_each(|n| w.number(*n));
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let members = r.list(|r| {
            let (member, run, settled) = (r.number()?, r.number()?, r.number()?);
            Ok((member, Session { run, settled, beyond: r.list(Reader::number)? }))
        })?;
        Ok(Self { members: members.into_iter().collect() })
    }
}

impl Session {
    fn settle(&mut self, id: &ProposalId) {
        if self.run != id.run {
            *self = Self { run: id.run, settled: 0, beyond: Vec::new() };
        }
        if let Err(at) = self.beyond.binary_search(&id.seq) {
            self.beyond.insert(at, id.seq);
        }
        self.settled = self.settled.max(id.low.saturating_sub(1));
        let settled = &mut self.settled;
        self.beyond.retain(|seq| {
            if *seq == *settled + 1 {
                *settled = *seq;
            }
            *seq > *settled
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(run: u64, seq: u64, low: u64) -> ProposalId {
        ProposalId { member: 1, run, seq, low }
    }

    #[test]
    fn a_proposal_is_applied_once_in_whatever_order_its_copies_come() {
        let mut sessions = Sessions::default();
        let mut check = |run, seq, low, expect| assert_eq!(sessions.settle(&id(run, seq, low)), expect, "{run} {seq}");
        check(1, 1, 1, true);
        check(1, 1, 1, false);
        check(1, 3, 1, true);
        check(1, 2, 1, true);
        check(1, 3, 1, false);
        check(1, 9, 1, true);
        // The member has given up 4 to 7: a copy of them comes too late.
        check(1, 8, 8, true);
        check(1, 5, 5, false);
        check(1, 10, 8, true);
        // A new life of the member ends the old one.
        check(2, 1, 1, true);
        check(1, 11, 11, false);
        let mut w = Writer::default();
        sessions.encode(&mut w);
        assert_eq!(Sessions::decode(&mut Reader(&w.0)), Ok(sessions));
    }

    #[test]
    fn the_identity_is_read_as_it_was_written() {
        let id = ProposalId { member: u64::MAX, run: 3, seq: 1 << 40, low: 7 };
        assert_eq!(ProposalId::decode(&id.encode()), Ok(id));
        assert_eq!(ProposalId::decode(&[1]), Err(Malformed));
    }
}

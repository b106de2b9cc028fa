//! What this member, as leader, has refused of the others' proposals: a copy of one, made by the network or sent again, must not
//! take effect after its client was told that it does not.
//!
//! Remembered until the member that proposed it says that it waits for it no more, for so many at most ([`REFUSED_MAX`] a member:
//! the oldest are forgotten first).

use std::collections::BTreeMap;

use crate::peer_frame::Refusal;
use crate::proposal::ProposalId;

/// A member has a few thousand proposals under way at most.
const REFUSED_MAX: usize = 4096;

/// What is known of a proposal before it is looked at.
#[derive(Debug, PartialEq)]
pub(super) enum Known {
    Nothing,
    Refused(Refusal),
    /// Its member does not wait for it any more.
    TooLate,
}

/// The refusals, by member.
#[derive(Default)]
pub(crate) struct Refusals {
    members: BTreeMap<u64, OfMember>,
}

#[derive(Default)]
struct OfMember {
    run: u64,
    /// Every number below is answered or given up.
    low: u64,
    refused: BTreeMap<u64, Refusal>,
}

impl Refusals {
    /// A proposal arrives; it also says what its member waits for.
    pub(super) fn arrives(&mut self, id: &ProposalId) -> Known {
        let member = self.members.entry(id.member).or_default();
        if id.run > member.run {
            *member = OfMember { run: id.run, ..OfMember::default() };
        }
        if id.run == member.run && id.low > member.low {
            member.low = id.low;
            member.refused = member.refused.split_off(&id.low);
        }
        if id.run < member.run || id.seq < member.low {
            return Known::TooLate;
        }
        member.refused.get(&id.seq).cloned().map_or(Known::Nothing, Known::Refused)
    }

    /// It has been refused.
    pub(super) fn note(&mut self, id: &ProposalId, why: &Refusal) {
        let Some(member) = self.members.get_mut(&id.member).filter(|member| member.run == id.run) else { return };
        if member.refused.len() >= REFUSED_MAX {
            member.refused.pop_first();
        }
        member.refused.insert(id.seq, why.clone());
    }

    /// Those who are no members propose nothing any more.
    pub(super) fn keep(&mut self, is_member: impl Fn(u64) -> bool) {
        self.members.retain(|id, _| is_member(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::KvError;

    fn id(run: u64, seq: u64, low: u64) -> ProposalId {
        ProposalId { member: 7, run, seq, low }
    }

    fn full() -> Refusal {
        Refusal::Kv(KvError::NoSpace { detail: "full".into() })
    }

    #[test]
    fn what_was_refused_stays_refused() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.arrives(&id(1, 5, 4)), Known::Nothing);
        refusals.note(&id(1, 5, 4), &full());
        assert_eq!(refusals.arrives(&id(1, 5, 4)), Known::Refused(full()));
        assert_eq!(refusals.arrives(&id(1, 6, 5)), Known::Nothing);
        assert_eq!(refusals.arrives(&id(1, 5, 4)), Known::Refused(full()));
    }

    #[test]
    fn what_nobody_waits_for_comes_too_late() {
        let mut refusals = Refusals::default();
        refusals.arrives(&id(1, 5, 4));
        refusals.note(&id(1, 5, 4), &full());
        assert_eq!(refusals.arrives(&id(1, 9, 6)), Known::Nothing);
        assert_eq!(refusals.arrives(&id(1, 5, 4)), Known::TooLate);
        assert_eq!(refusals.arrives(&id(2, 1, 1)), Known::Nothing);
        assert_eq!(refusals.arrives(&id(1, 10, 6)), Known::TooLate);
    }

    #[test]
    fn so_many_are_remembered() {
        let mut refusals = Refusals::default();
        for seq in 1..=REFUSED_MAX as u64 + 1 {
            refusals.arrives(&id(1, seq, 1));
            refusals.note(&id(1, seq, 1), &full());
        }
        assert_eq!(refusals.arrives(&id(1, 1, 1)), Known::Nothing);
        assert_eq!(refusals.arrives(&id(1, 2, 1)), Known::Refused(full()));
    }
}

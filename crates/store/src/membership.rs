//! The members of the cluster as replicated state: who they are, who votes, and which ids are used up.
//!
//! A change is checked and made on every member alike when its entry is applied; Raft's own configuration follows from the
//! result ([`Cluster::conf_state`], [`conf_change`]). Pure.
//! What needs the leader's knowledge (is the learner in sync, are enough members up) is checked before the proposal, by
//! the driver.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState};

use crate::peer::{MemberChange, MemberChangeError, MemberInfo};
use crate::proposal::Sessions;
use crate::wire::{Malformed, Reader, Writer};

/// As etcd's default: a learner is meant to become a voter soon.
const LEARNERS_MAX: usize = 1;

/// Everything about members that is replicated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    members: OrdMap<u64, Arc<MemberInfo>>,
    removed: OrdSet<u64>,
    pub(crate) sessions: Sessions,
}

impl Cluster {
    pub(crate) fn of(members: &[MemberInfo]) -> Self {
        let members = members.iter().map(|member| (member.id, Arc::new(member.clone()))).collect();
        Self { members, ..Self::default() }
    }

    /// In the order of their ids.
    pub(crate) fn list(&self) -> Vec<MemberInfo> {
        self.members.values().map(|member| MemberInfo::clone(member)).collect()
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.members.contains_key(&id)
    }

    /// Was a member once and never will be again.
    pub(crate) fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    pub(crate) fn voters(&self) -> Vec<u64> {
        self.members.values().filter(|member| !member.is_learner).map(|member| member.id).collect()
    }

    /// Nobody else votes: what this member has on disk is committed.
    pub(crate) fn is_sole_voter(&self, me: u64) -> bool {
        let mut voters = self.members.values().filter(|member| !member.is_learner);
        voters.next().is_some_and(|only| only.id == me) && voters.next().is_none()
    }

    /// Nobody else is there.
    pub(crate) fn is_alone(&self, me: u64) -> bool {
        self.members.len() == 1 && self.contains(me)
    }

    /// Raft's view.
    pub(crate) fn conf_state(&self) -> ConfState {
        let learners: Vec<u64> = self.members.values().filter(|m| m.is_learner).map(|m| m.id).collect();
        ConfState::from((self.voters(), learners))
    }

    /// Makes a change, or says why not.
    pub(crate) fn apply(&mut self, change: &MemberChange) -> Result<(), MemberChangeError> {
        self.check(change)?;
        match change.clone() {
            MemberChange::AddLearner { id, peer_urls } => {
                self.insert(MemberInfo { id, peer_urls, is_learner: true, ..MemberInfo::default() })
            }
            MemberChange::AddVoter { id, peer_urls } => {
                self.insert(MemberInfo { id, peer_urls, ..MemberInfo::default() })
            }
            MemberChange::Promote { id } => self.edit(id, |member| member.is_learner = false),
            MemberChange::Remove { id } => {
                self.members.remove(&id);
                self.removed.insert(id);
                self.sessions.forget(id);
            }
            MemberChange::Update { id, peer_urls } => self.edit(id, |member| member.peer_urls = peer_urls),
            MemberChange::Publish { id, name, client_urls } => self.edit(id, |member| {
                member.name = name;
                member.client_urls = client_urls;
            }),
        }
        Ok(())
    }

    /// Whether a change fits the membership as it is.
    pub(crate) fn check(&self, change: &MemberChange) -> Result<(), MemberChangeError> {
        match change {
            MemberChange::AddLearner { id, peer_urls } | MemberChange::AddVoter { id, peer_urls } => {
                if *id == 0 || self.contains(*id) || self.is_removed(*id) {
                    return Err(MemberChangeError::IdUsed { id: *id });
                }
                let learners = self.members.values().filter(|member| member.is_learner).count();
                if matches!(change, MemberChange::AddLearner { .. }) && learners >= LEARNERS_MAX {
                    return Err(MemberChangeError::TooManyLearners { learners_max: LEARNERS_MAX });
                }
                self.check_urls(*id, peer_urls)
            }
            MemberChange::Promote { id } => match self.get(*id)? {
                member if member.is_learner => Ok(()),
                _ => Err(MemberChangeError::NotLearner { id: *id }),
            },
            MemberChange::Update { id, peer_urls } => self.get(*id).and_then(|_| self.check_urls(*id, peer_urls)),
            MemberChange::Remove { id } => match self.get(*id)? {
                member if !member.is_learner && self.voters().len() == 1 => Err(MemberChangeError::NotEnoughStarted),
                _ => Ok(()),
            },
            MemberChange::Publish { id, .. } => self.get(*id).map(|_| ()),
        }
    }

    fn check_urls(&self, id: u64, urls: &[String]) -> Result<(), MemberChangeError> {
        let others = || self.members.values().filter(|member| member.id != id).flat_map(|member| &member.peer_urls);
        match urls.iter().find(|url| others().any(|other| other == *url)) {
            Some(url) => Err(MemberChangeError::PeerUrlUsed { url: url.clone() }),
            None => Ok(()),
        }
    }

    fn get(&self, id: u64) -> Result<&MemberInfo, MemberChangeError> {
        self.members.get(&id).map(AsRef::as_ref).ok_or(MemberChangeError::NotFound { id })
    }

    fn insert(&mut self, member: MemberInfo) {
        self.members.insert(member.id, Arc::new(member));
    }

    fn edit(&mut self, id: u64, change: impl FnOnce(&mut MemberInfo)) {
        if let Some(member) = self.members.get_mut(&id) {
            change(Arc::make_mut(member));
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.members.len() as u64);
        for member in self.members.values() {
            w.number(member.id);
            w.bytes(member.name.as_bytes());
            encode_strings(&member.peer_urls, w);
            encode_strings(&member.client_urls, w);
            w.flag(member.is_learner);
        }
        w.number(self.removed.len() as u64);
        self.removed.iter().for_each(|id| w.number(*id));
        self.sessions.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let members = r.list(|r| {
            let (id, name) = (r.number()?, decode_string(r)?);
            let (peer_urls, client_urls) = (r.list(decode_string)?, r.list(decode_string)?);
            Ok(MemberInfo { id, name, peer_urls, client_urls, is_learner: r.flag()? })
        })?;
        let removed = r.list(Reader::number)?.into_iter().collect();
        Ok(Self { removed, sessions: Sessions::decode(r)?, ..Self::of(&members) })
    }
}

/// What Raft must be told of a change; `None` if it concerns nobody's vote.
pub(crate) fn conf_change(change: &MemberChange) -> Option<ConfChange> {
    let (kind, id) = match change {
        MemberChange::AddLearner { id, .. } => (ConfChangeType::AddLearnerNode, *id),
        MemberChange::AddVoter { id, .. } | MemberChange::Promote { id } => (ConfChangeType::AddNode, *id),
        MemberChange::Remove { id } => (ConfChangeType::RemoveNode, *id),
        MemberChange::Update { .. } | MemberChange::Publish { .. } => return None,
    };
    let mut change = ConfChange::default();
    change.set_change_type(kind);
    change.node_id = id;
    Some(change)
}

pub(crate) fn encode_change(change: &MemberChange, w: &mut Writer) {
    let (kind, id) = match change {
        MemberChange::AddLearner { id, .. } => (0, *id),
        MemberChange::AddVoter { id, .. } => (1, *id),
        MemberChange::Promote { id } => (2, *id),
        MemberChange::Remove { id } => (3, *id),
        MemberChange::Update { id, .. } => (4, *id),
        MemberChange::Publish { id, .. } => (5, *id),
    };
    w.number(kind);
    w.number(id);
    match change {
        MemberChange::AddLearner { peer_urls, .. }
        | MemberChange::AddVoter { peer_urls, .. }
        | MemberChange::Update { peer_urls, .. } => encode_strings(peer_urls, w),
        MemberChange::Publish { name, client_urls, .. } => {
            w.bytes(name.as_bytes());
            encode_strings(client_urls, w);
        }
        MemberChange::Promote { .. } | MemberChange::Remove { .. } => {}
    }
}

pub(crate) fn decode_change(r: &mut Reader<'_>) -> Result<MemberChange, Malformed> {
    let (kind, id) = (r.number()?, r.number()?);
    Ok(match kind {
        0 => MemberChange::AddLearner { id, peer_urls: r.list(decode_string)? },
        1 => MemberChange::AddVoter { id, peer_urls: r.list(decode_string)? },
        2 => MemberChange::Promote { id },
        3 => MemberChange::Remove { id },
        4 => MemberChange::Update { id, peer_urls: r.list(decode_string)? },
        5 => MemberChange::Publish { id, name: decode_string(r)?, client_urls: r.list(decode_string)? },
        _ => return Err(Malformed),
    })
}

fn encode_strings(strings: &[String], w: &mut Writer) {
    w.number(strings.len() as u64);
    strings.iter().for_each(|string| w.bytes(string.as_bytes()));
}

pub(crate) fn decode_string(r: &mut Reader<'_>) -> Result<String, Malformed> {
    String::from_utf8(r.borrowed()?.to_vec()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(url: &str) -> Vec<String> {
        vec![url.to_owned()]
    }

    fn voter(id: u64, url: &str) -> MemberInfo {
        MemberInfo { id, peer_urls: urls(url), ..MemberInfo::default() }
    }

    #[test]
    fn changes_are_checked_and_ids_are_used_once() {
        let mut cluster = Cluster::of(&[voter(1, "a"), voter(2, "b")]);
        let mut check = |change: MemberChange, expect: Result<(), MemberChangeError>| {
            assert_eq!(cluster.apply(&change), expect, "{change:?}");
            let mut w = Writer::default();
            encode_change(&change, &mut w);
            assert_eq!(decode_change(&mut Reader(&w.0)), Ok(change));
        };
        let used = |id| Err(MemberChangeError::IdUsed { id });
        check(MemberChange::AddVoter { id: 1, peer_urls: urls("x") }, used(1));
        let taken = Err(MemberChangeError::PeerUrlUsed { url: "a".into() });
        check(MemberChange::AddVoter { id: 3, peer_urls: urls("a") }, taken.clone());
        check(MemberChange::AddLearner { id: 3, peer_urls: urls("c") }, Ok(()));
        let too_many = Err(MemberChangeError::TooManyLearners { learners_max: 1 });
        check(MemberChange::AddLearner { id: 4, peer_urls: urls("d") }, too_many);
        check(MemberChange::Promote { id: 1 }, Err(MemberChangeError::NotLearner { id: 1 }));
        check(MemberChange::Promote { id: 3 }, Ok(()));
        check(MemberChange::Update { id: 3, peer_urls: urls("a") }, taken);
        check(MemberChange::Update { id: 3, peer_urls: urls("e") }, Ok(()));
        check(MemberChange::Publish { id: 3, name: "m3".into(), client_urls: urls("f") }, Ok(()));
        check(MemberChange::Remove { id: 3 }, Ok(()));
        check(MemberChange::Remove { id: 3 }, Err(MemberChangeError::NotFound { id: 3 }));
        check(MemberChange::AddVoter { id: 3, peer_urls: urls("c") }, used(3));
        check(MemberChange::Remove { id: 2 }, Ok(()));
        check(MemberChange::Remove { id: 1 }, Err(MemberChangeError::NotEnoughStarted));
        assert!(cluster.is_sole_voter(1) && cluster.is_alone(1));
        let mut w = Writer::default();
        cluster.encode(&mut w);
        assert_eq!(Cluster::decode(&mut Reader(&w.0)), Ok(cluster));
    }
}

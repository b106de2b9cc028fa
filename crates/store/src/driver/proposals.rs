//! Proposals: a write on its way from its client to the leader's log, and what becomes of it.
//!
//! A member keeps each of its clients' proposals until its entry is applied here. It gives it to the leader, itself or by a
//! frame, and again to the next leader or when too much time passes: the entry carries the proposal's number, and one copy
//! alone takes effect (see [`crate::proposal`]). The leader admits: space, and what a change of the membership needs.
//! Bounded in time: without a leader for [`NO_LEADER_MAX`], or without an answer for [`ANSWER_MAX`] where others have a say,
//! the client learns that its write may or may not have happened.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message as RaftMessage, MessageType};
use tokio::sync::OwnedSemaphorePermit;

use super::refusals::{Known, Refusals};
use super::{Driver, Reply, answer};
use crate::command::Command;
use crate::error::KvError;
use crate::machine::Outcome;
use crate::member::{command_of, conf_change_entry};
use crate::membership::conf_change;
use crate::peer::{MemberChange, MemberChangeError};
use crate::peer_frame::{Frame, Refusal};
use crate::proposal::{ProposalId, Sessions};
use crate::record::encode_command;
use crate::txn::growth;

/// etcd's time for a request: five seconds and two elections.
pub(crate) const NO_LEADER_MAX: Duration = Duration::from_secs(7);
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A leader that has not answered for so long is told again: the frame may be lost.
const REPEAT: Duration = Duration::from_millis(500);
/// Who leads and is to be removed leads for so long before it hands over. Whatever else is asked for arrives meanwhile, such as the
/// removal of the next one: two who are to be removed would hand over to each other for ever.
const STAY: Duration = Duration::from_secs(1);
/// Entries that travel to the leader in one frame, in bytes; one at least.
const FRAME_BYTES: usize = 1 << 20;
/// Proposals of others that are held while leadership is being handed over.
const HELD_MAX: usize = 4096;

/// What has been proposed and not been answered.
pub(crate) struct Proposals {
    me: u64,
    run: u64,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Numbers that no leader has been given.
    unsent: BTreeSet<u64>,
    /// As leader: what is in this member's log and not applied, whoever led when it came there. A copy of it is not appended
    /// again, and not refused: it may still take effect.
    appended: HashSet<(u64, u64, u64)>,
    /// As leader: proposals of others that came while leadership was being handed over.
    held: Vec<Entry>,
    refusals: Refusals,
}

struct Waiting {
    command: Command,
    body: Bytes,
    reply: Reply<Outcome>,
    _permit: Option<OwnedSemaphorePermit>,
    since: Duration,
    sent: Option<Duration>,
    attempts: u32,
}

/// What the leader does with a proposal.
enum Admission {
    Append,
    /// It has been appended.
    Appended,
    /// Another change of the membership is under way: one after the other. A new leader is not sure of the last one until
    /// its own first entry is applied.
    Later,
    /// It removes this member: the next leader does it.
    AfterHandover,
}

impl Proposals {
    pub(crate) fn new(me: u64, run: u64) -> Self {
        let (waiting, unsent) = (BTreeMap::new(), BTreeSet::new());
        let (appended, held, refusals) = (HashSet::new(), Vec::new(), Refusals::default());
        Self { me, run, next: 1, waiting, unsent, appended, held, refusals }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whose answer an applied entry is. `None` if nobody here waits for it.
    pub(crate) fn applied(&mut self, id: &ProposalId) -> Option<Reply<Outcome>> {
        self.appended.remove(&(id.member, id.run, id.seq));
        if (id.member, id.run) != (self.me, self.run) {
            return None;
        }
        self.unsent.remove(&id.seq);
        self.waiting.remove(&id.seq).map(|waiting| waiting.reply)
    }

    /// Another leader, or another term: everything is proposed anew. `in_log`: where this member leads, what its log has and
    /// has not applied.
    pub(crate) fn leader_changed(&mut self, in_log: &[ProposalId]) {
        self.unsent.extend(self.waiting.keys());
        self.appended = in_log.iter().map(|id| (id.member, id.run, id.seq)).collect();
        self.held.clear();
    }

    /// The membership has changed.
    pub(super) fn members_changed(&mut self, is_member: impl Fn(u64) -> bool) {
        self.refusals.keep(is_member);
    }

    /// Those whose outcome a snapshot has swallowed.
    pub(crate) fn settle(&mut self, sessions: &Sessions) {
        let settled: Vec<u64> =
            self.waiting.keys().copied().filter(|seq| sessions.is_settled(&self.id(*seq))).collect();
        for seq in settled {
            self.fail(seq, "the write may or may not have happened: this member has caught up by a snapshot");
        }
    }

    pub(crate) fn fail_all(&mut self, error: &KvError) {
        self.unsent.clear();
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            answer(waiting.reply, Err(error.clone()));
        }
    }

    fn fail(&mut self, seq: u64, reason: &str) {
        self.unsent.remove(&seq);
        if let Some(waiting) = self.waiting.remove(&seq) {
            answer(waiting.reply, Err(KvError::Unavailable { reason: reason.into() }));
        }
    }

    fn id(&self, seq: u64) -> ProposalId {
        let low = self.waiting.keys().next().copied().unwrap_or(self.next);
        ProposalId { member: self.me, run: self.run, seq, low }
    }
}

impl Driver {
    pub(super) fn take_proposal(
        &mut self,
        command: Command,
        body: Bytes,
        permit: Option<OwnedSemaphorePermit>,
        reply: Reply<Outcome>,
    ) {
        if let Some(error) = self.closed() {
            return answer(reply, Err(error));
        }
        let seq = self.proposals.next;
        self.proposals.next += 1;
        let since = self.clock.monotonic();
        let waiting = Waiting { command, body, reply, _permit: permit, since, sent: None, attempts: 0 };
        self.proposals.waiting.insert(seq, waiting);
        self.proposals.unsent.insert(seq);
    }

    /// Why nothing new is accepted.
    pub(super) fn closed(&self) -> Option<KvError> {
        let closing = self.stopping.map(|_| "the store is being closed".into());
        self.stopped_reason().or(closing).map(|reason| KvError::Stopped { reason })
    }

    /// Gives the leader, if there is one, what it has not been given.
    pub(super) fn send_proposals(&mut self) {
        if !self.run_is_durable || self.member.is_congested() {
            return;
        }
        if self.member.is_leader() {
            if !self.member.is_transferring() {
                self.propose_held();
                self.propose_unsent();
            }
        } else if self.member.leader() != 0 {
            self.forward_unsent();
        }
    }

    fn propose_held(&mut self) {
        let held = std::mem::take(&mut self.proposals.held);
        self.append_forwarded(held);
    }

    /// Appends what is admitted of the others' proposals; of changes of the membership one at a time, the library drops a second.
    fn append_forwarded(&mut self, entries: Vec<Entry>) {
        let (mut admitted, mut ids, mut changes) = (Vec::new(), Vec::new(), false);
        for entry in entries {
            let is_change = entry.get_entry_type() != EntryType::EntryNormal;
            if is_change && changes {
                continue;
            }
            if let Some(id) = self.admit_forwarded(&entry) {
                changes |= is_change;
                admitted.push(entry);
                ids.push((id.member, id.run, id.seq));
            }
        }
        if !self.member.propose(admitted) {
            // One of them has made this member hand over. The senders ask again.
            for id in ids {
                self.proposals.appended.remove(&id);
            }
        }
    }

    fn propose_unsent(&mut self) {
        if self.proposals.unsent.is_empty() {
            return;
        }
        let now = self.clock.monotonic();
        let (mut entries, mut given, mut later) = (Vec::new(), Vec::new(), Vec::new());
        let (mut is_leaving, mut changes) = (false, false);
        for seq in std::mem::take(&mut self.proposals.unsent) {
            let id = self.proposals.id(seq);
            let Some(waiting) = self.proposals.waiting.get(&seq) else { continue };
            let is_change = matches!(&waiting.command, Command::Member(change) if conf_change(change).is_some());
            if is_change && changes {
                later.push(seq);
                continue;
            }
            match self.admit(&id, &waiting.command) {
                Ok(Admission::Append) => {
                    changes |= is_change;
                    entries.extend(entry_of(&id, &waiting.command, &waiting.body));
                    given.push(seq);
                    self.proposals.appended.insert((id.member, id.run, id.seq));
                }
                Ok(Admission::Appended) => {}
                Ok(Admission::Later) => later.push(seq),
                Ok(Admission::AfterHandover) => is_leaving = true,
                // An earlier leader may have been given it.
                Err(why) => {
                    let is_certain = waiting.attempts == 0;
                    self.refuse(seq, why, is_certain);
                }
            }
        }
        self.proposals.unsent.extend(later);
        let accepted = self.member.propose(entries);
        if is_leaving {
            self.hand_over("it is being removed");
        }
        for seq in given {
            if !accepted {
                let ProposalId { member, run, .. } = self.proposals.id(seq);
                self.proposals.appended.remove(&(member, run, seq));
                self.proposals.unsent.insert(seq);
            } else if let Some(waiting) = self.proposals.waiting.get_mut(&seq) {
                waiting.sent = Some(now);
                waiting.attempts += 1;
            }
        }
    }

    fn forward_unsent(&mut self) {
        let (now, leader) = (self.clock.monotonic(), self.member.leader());
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for seq in std::mem::take(&mut self.proposals.unsent) {
            let id = self.proposals.id(seq);
            let Some(waiting) = self.proposals.waiting.get_mut(&seq) else { continue };
            waiting.sent = Some(now);
            waiting.attempts += 1;
            if !entries.is_empty() && bytes + waiting.body.len() > FRAME_BYTES {
                self.forward(leader, std::mem::take(&mut entries));
                bytes = 0;
            }
            let Some(waiting) = self.proposals.waiting.get(&seq) else { continue };
            bytes += waiting.body.len();
            entries.extend(entry_of(&id, &waiting.command, &waiting.body));
        }
        self.forward(leader, entries);
    }

    fn forward(&mut self, to: u64, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let mut message = RaftMessage { from: self.identity.member, to, ..RaftMessage::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.send(to, &Frame::Raft(Box::new(message)));
    }

    /// Entries that another member wants appended. Ignored by who does not lead: the sender learns who does.
    pub(super) fn take_forwarded(&mut self, entries: Vec<Entry>) {
        if !self.member.is_leader() || self.member.is_congested() {
            return;
        }
        if self.member.is_transferring() {
            let room = HELD_MAX.saturating_sub(self.proposals.held.len());
            self.proposals.held.extend(entries.into_iter().take(room));
            return;
        }
        self.append_forwarded(entries);
    }

    /// The number of an entry that is to be appended, and counts as appended from now on.
    fn admit_forwarded(&mut self, entry: &Entry) -> Option<ProposalId> {
        let id = ProposalId::decode(&entry.context).ok()?;
        let (command, _) = command_of(entry)?;
        if !self.machine.state().cluster.contains(id.member) {
            return None;
        }
        let admission = match self.proposals.refusals.arrives(&id) {
            Known::TooLate => return None,
            Known::Refused(why) => Err(why),
            Known::Nothing => self.admit(&id, &command),
        };
        match admission {
            Ok(Admission::Append) => {
                self.proposals.appended.insert((id.member, id.run, id.seq));
                Some(id)
            }
            // The sender asks again.
            Ok(Admission::Appended | Admission::Later) => None,
            Ok(Admission::AfterHandover) => {
                self.hand_over("it is being removed");
                None
            }
            Err(why) => {
                self.proposals.refusals.note(&id, &why);
                self.send(id.member, &Frame::Refused { run: id.run, seq: id.seq, why });
                None
            }
        }
    }

    /// Whether the leader appends a command.
    fn admit(&self, id: &ProposalId, command: &Command) -> Result<Admission, Refusal> {
        let state = self.machine.state();
        if state.cluster.sessions.is_settled(id) || self.proposals.appended.contains(&(id.member, id.run, id.seq)) {
            return Ok(Admission::Appended);
        }
        if let Command::Member(change) = command {
            return self.admit_change(change).map_err(Refusal::Member);
        }
        if self.space.is_ample(state, &self.config) {
            return Ok(Admission::Append);
        }
        let admitted = match command.deed() {
            Command::Txn(txn) => self.space.admit(growth(state, txn), state, &self.config),
            Command::LeaseGrant { .. } => self.space.admit(crate::txn::Growth::of_lease(), state, &self.config),
            Command::Nothing
            | Command::Compact { .. }
            | Command::LeaseRevoke { .. }
            | Command::Member(_)
            | Command::Policy(_)
            | Command::Judged { .. } => Ok(()),
        };
        admitted.map(|()| Admission::Append).map_err(Refusal::Kv)
    }

    /// Whether a change of the membership may be proposed now: what every member knows, and what the leader alone knows.
    fn admit_change(&self, change: &MemberChange) -> Result<Admission, MemberChangeError> {
        self.machine.state().cluster.check(change)?;
        if conf_change(change).is_none() {
            return Ok(Admission::Append);
        }
        let voters = self.machine.state().cluster.voters();
        let me = self.identity.member;
        if self.member.has_pending_change() || self.member.is_transferring() {
            return Ok(Admission::Later);
        }
        let progress = self.member.progress();
        // This member counts as active.
        let active = 1 + progress.iter().filter(|peer| !peer.is_learner && peer.is_active).count();
        match change {
            MemberChange::Promote { id } => {
                let last = self.member.positions().committed;
                let in_sync =
                    progress.iter().any(|peer| peer.id == *id && peer.is_active && peer.matched * 10 >= last * 9);
                if !in_sync {
                    return Err(MemberChangeError::LearnerNotReady { id: *id });
                }
            }
            // The new one is not up yet: those that are must be a majority with it.
            MemberChange::AddVoter { .. } if active < voters.len().div_ceil(2) + 1 && voters.len() > 1 => {
                return Err(MemberChangeError::NotEnoughStarted);
            }
            MemberChange::Remove { id } if voters.contains(id) => {
                let is_up = *id == me || progress.iter().any(|peer| peer.id == *id && peer.is_active);
                if active - usize::from(is_up) < (voters.len() - 1) / 2 + 1 {
                    return Err(MemberChangeError::NotEnoughStarted);
                }
            }
            _ => {}
        }
        let is_leaving = matches!(change, MemberChange::Remove { id } if *id == me) && voters.len() > 1;
        Ok(if !is_leaving {
            Admission::Append
        } else if self.clock.monotonic().saturating_sub(self.led_since) >= STAY {
            Admission::AfterHandover
        } else {
            Admission::Later
        })
    }

    /// The leader has refused a proposal of this member.
    pub(super) fn refused(&mut self, seq: u64, why: Refusal) {
        // Given to that one leader only, or else an earlier copy may be in the log of another.
        let is_certain = self.proposals.waiting.get(&seq).is_some_and(|waiting| waiting.attempts <= 1);
        self.refuse(seq, why, is_certain);
    }

    /// Answers the client. `is_certain`: no copy of the proposal is anywhere.
    fn refuse(&mut self, seq: u64, why: Refusal, is_certain: bool) {
        self.proposals.unsent.remove(&seq);
        let Some(waiting) = self.proposals.waiting.remove(&seq) else { return };
        let outcome = match why {
            Refusal::Member(why) => Ok(Outcome::Members(Err(why))),
            Refusal::Kv(error) if is_certain => Err(error),
            Refusal::Kv(error) => {
                let reason = format!("the write may or may not have happened: {error}");
                Err(KvError::Unavailable { reason: reason.into() })
            }
        };
        answer(waiting.reply, outcome);
    }

    pub(super) fn is_of_this_run(&self, run: u64) -> bool {
        self.proposals.run == run
    }

    /// Looks at the clock: what is told again, and what is given up.
    pub(super) fn tick_proposals(&mut self, now: Duration) {
        let leaderless = self.no_leader_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let alone = self.machine.state().cluster.is_sole_voter(self.identity.member);
        let mut given_up = Vec::new();
        for (seq, waiting) in &self.proposals.waiting {
            let waits = now.saturating_sub(waiting.since);
            if leaderless.min(waits) >= NO_LEADER_MAX {
                let fate = if waiting.attempts == 0 { "has not happened" } else { "may or may not have happened" };
                given_up.push((*seq, format!("the cluster has no leader; the write {fate}")));
            } else if !alone && waits >= ANSWER_MAX {
                given_up.push((*seq, "no answer from the cluster; the write may or may not have happened".to_owned()));
            } else if !self.member.is_leader() && waiting.sent.is_some_and(|sent| now.saturating_sub(sent) >= REPEAT) {
                self.proposals.unsent.insert(*seq);
            }
        }
        for (seq, reason) in given_up {
            self.proposals.fail(seq, &reason);
        }
    }

    /// A command of the store's own, which only the leader of this very term may propose. `false`: not now.
    pub(super) fn propose_own(&mut self, command: &Command) -> bool {
        let entry = Entry { data: encode_command(command).into(), ..Entry::default() };
        !self.member.is_transferring() && self.member.propose(vec![entry])
    }
}

fn entry_of(id: &ProposalId, command: &Command, body: &Bytes) -> Option<Entry> {
    let mut entry = match command {
        Command::Member(change) if let Some(change) = conf_change(change) => conf_change_entry(change, body)?,
        _ => {
            let mut entry = Entry { data: body.clone(), ..Entry::default() };
            entry.set_entry_type(EntryType::EntryNormal);
            entry
        }
    };
    entry.context = id.encode().into();
    Some(entry)
}

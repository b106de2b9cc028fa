//! Consensus: Raft's library with this store's rules on what waits for the disk.
//!
//! Messages, ticks and reports of the log in; what is to be written, sent and applied out ([`Effects`]). Pure: no IO and no
//! clock; the only randomness is a hash of the seed. One member alone is Raft with one voter.
//!
//! Rules on durability:
//! - An acknowledgement of entries, a vote and a request for votes leave only when everything before them is durable here.
//!   Answers that promise nothing about this disk (heartbeats, reads, pre-votes, rejections) leave at once.
//! - So does what a leader says, whose vote is durable. The only voter leads by a vote that is on its way: it says nothing until that has
//!   arrived, or a crash could make it lead twice in one term, with two logs.
//! - What a majority has made durable is applied even if this disk is behind: the library, which applies only what it is told
//!   is persisted, is told so as soon as an entry is committed. Its commitment is by others then, so no quorum changes. Term
//!   and vote may be behind as well: what depends on them is held back here. A snapshot is never acknowledged early.
//! - When too much waits for this disk, what a majority has is not written any more: the member has left its log, promises
//!   nothing and does not lead. When the disk is back, the log goes on, behind a checkpoint if something is missing.
//!
//! Invariant: `persisted()` is what is durable here; nobody else is ever told more.

mod elections;
mod left_log;
mod received;

use std::collections::{HashMap, HashSet, VecDeque};

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfState, Entry, EntryType, HardState, Message, MessageType};
use raft::{Config, GetEntriesContext, RawNode, ReadState, SnapshotStatus, StateRole};

pub(crate) use self::elections::ELECTION_TICKS;
use self::elections::{OwnVote, VOTING_TICKS, votes_of};
use self::left_log::Left;
use crate::command::Command;
use crate::peer::MemberChange;
use crate::proposal::ProposalId;
use crate::raft_log::RaftLog;
use crate::record::{Batch, Vitals, decode_command};
use crate::recovery::Recovered;

/// Who was not heard of for so long is not up, as far as the leader knows. The library forgets at every election timeout whom
/// it heard of.
const SILENT_TICKS: u32 = 50;
/// Who was not heard of for so long is not waited for.
const GONE_TICKS: u32 = 150;
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 5;
/// Entries of one message, in bytes; one entry at least.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Messages under way to one member, each of an entry perhaps. A member whose disk is stuck confirms none of them, but says
/// what it has received.
const MESSAGES_IN_FLIGHT: usize = 400_000;
/// Committed entries that are handed out at a time, in bytes.
const COMMITTED_BYTES: u64 = 16 << 20;
/// So much may wait for this disk.
const UNDURABLE_BYTES_MAX: usize = 128 << 20;
/// Applied entries that are kept for members that were away for a moment, in bytes.
const KEPT_BYTES: usize = 32 << 20;
/// What members that are up have not confirmed is kept longer, up to so many bytes.
const KEPT_BYTES_FOR_OTHERS: usize = 256 << 20;

/// This member's part in the cluster.
pub(crate) struct Member {
    me: u64,
    run: u64,
    seed: u64,
    node: RawNode<RaftLog>,
    /// What is not durable here yet, oldest first.
    undurable: VecDeque<Undurable>,
    /// Of those, so many are acknowledged to the library.
    acknowledged: usize,
    undurable_entries: u64,
    undurable_bytes: usize,
    waiting_max: u64,
    piece_bytes: usize,
    /// The newest step of the library.
    ticket: u64,
    left: Option<Left>,
    /// As leader: what others say that they have received, in this term.
    received: HashMap<u64, u64>,
    /// Of its messages, so many are votes or ask for votes.
    held_votes: usize,
    vote: OwnVote,
    persisted: u64,
    /// Position of the newest snapshot under way to another member.
    snapshot_under_way: Option<u64>,
    kept_entries: usize,
    /// As leader: ticks since the others were heard of.
    silence: HashMap<u64, u32>,
    rules: Rules,
}

/// What a negative control of the simulation breaks. All true in earnest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Apply what others have made durable.
    pub(crate) apply_before_durable: bool,
    /// Hold votes back until they are on the disk.
    pub(crate) hold_votes: bool,
    /// Hold acknowledgements back until what they acknowledge is on the disk.
    pub(crate) hold_acknowledgements: bool,
    /// Say nothing that depends on steps which are not written because the log was left.
    pub(crate) hold_unwritten: bool,
}

/// A step of the library that has not reached the disk.
struct Undurable {
    ticket: u64,
    /// Position of its last entry.
    last: Option<u64>,
    entries: u64,
    bytes: usize,
    /// It is a snapshot as of this position.
    snapshot: Option<u64>,
    /// Nothing of it goes to the disk; it only waits for those before it.
    is_written: bool,
    messages: Vec<Message>,
}

/// What a step wants done.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) batch: Option<Batch>,
    /// The snapshot as of this position was accepted and must become this member's log: ticket and position. The batch
    /// follows it.
    pub(crate) snapshot: Option<(u64, u64)>,
    /// To other members, now.
    pub(crate) messages: Vec<Message>,
    /// To be applied, in order.
    pub(crate) committed: Vec<Entry>,
    pub(crate) reads: Vec<ReadState>,
}

/// Raft's positions, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Positions {
    pub(crate) term: u64,
    pub(crate) last: u64,
    pub(crate) persisted: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
}

/// Another member as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerProgress {
    pub(crate) id: u64,
    pub(crate) matched: u64,
    pub(crate) is_active: bool,
    pub(crate) is_learner: bool,
    pub(crate) gets_snapshot: bool,
}

impl Member {
    /// Goes on after recovery. `seed` scatters the election timeouts.
    pub(crate) fn new(
        recovered: &mut Recovered,
        seed: u64,
        config: &crate::config::Config,
    ) -> Result<Self, raft::Error> {
        let me = recovered.identity.member;
        let vitals = recovered.vitals;
        let state = &recovered.state;
        let mut hard_state = HardState::default();
        (hard_state.term, hard_state.vote, hard_state.commit) = (vitals.term, vitals.vote, vitals.commit);
        let entries = std::mem::take(&mut recovered.entries);
        let log = RaftLog::new((state.index, state.term), state.cluster.conf_state(), entries, hard_state);
        let persisted = log.last();
        let raft_config = Config {
            id: me,
            election_tick: ELECTION_TICKS,
            // No timeout of `scatter_timeout` is so long.
            max_election_tick: VOTING_TICKS + ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: state.index,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: MESSAGES_IN_FLIGHT,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: COMMITTED_BYTES,
            ..Config::default()
        };
        // What matters of the library's own log is told by the driver.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut member = Self {
            me,
            run: vitals.run + 1,
            seed,
            node: RawNode::new(&raft_config, log, &logger)?,
            undurable: VecDeque::new(),
            acknowledged: 0,
            undurable_entries: 0,
            undurable_bytes: 0,
            waiting_max: config.log_entries_waiting_max,
            piece_bytes: config.piece_bytes,
            ticket: 0,
            left: None,
            received: HashMap::new(),
            held_votes: 0,
            vote: OwnVote { term: vitals.term, vote: vitals.vote, ticket: 0, is_durable: true },
            persisted,
            snapshot_under_way: None,
            kept_entries: config.log_entries_kept,
            silence: HashMap::new(),
            rules: Rules {
                apply_before_durable: true,
                hold_votes: true,
                hold_acknowledgements: true,
                hold_unwritten: true,
            },
        };
        member.scatter_timeout();
        Ok(member)
    }

    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// How often this member was started.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// What the next batch must say besides the entries.
    fn vitals(&self) -> Vitals {
        let hard_state = self.node.raft.hard_state();
        Vitals { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit, run: self.run }
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Leads, and has applied everything that earlier leaders had committed.
    pub(crate) fn is_ready_leader(&self) -> bool {
        self.is_leader() && self.node.raft.apply_to_current_term()
    }

    pub(crate) fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    pub(crate) fn term(&self) -> u64 {
        self.node.raft.term
    }

    pub(crate) fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    pub(crate) fn has_pending_change(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Everything up to here is durable on this disk.
    pub(crate) fn persisted(&self) -> u64 {
        self.persisted
    }

    /// So much waits for this disk that nothing more is taken.
    pub(crate) fn is_congested(&self) -> bool {
        self.undurable_entries > self.waiting_max || self.undurable_bytes > UNDURABLE_BYTES_MAX
    }

    pub(crate) fn positions(&self) -> Positions {
        let log = &self.node.raft.raft_log;
        Positions {
            term: self.term(),
            last: log.last_index(),
            persisted: self.persisted,
            committed: log.committed,
            applied: log.applied,
        }
    }

    /// The proposals of the log, durable or not, behind an applied entry.
    pub(crate) fn unapplied(&self, applied: u64) -> Vec<ProposalId> {
        let log = &self.node.raft.raft_log;
        let entries = log.slice(applied + 1, log.last_index() + 1, None, GetEntriesContext::empty(false));
        entries.unwrap_or_default().iter().filter_map(|entry| ProposalId::decode(&entry.context).ok()).collect()
    }

    /// The other members; empty unless this one leads.
    pub(crate) fn progress(&self) -> Vec<PeerProgress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let voters = self.node.raft.prs().conf().voters();
        let mut peers: Vec<_> = self
            .node
            .raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != self.me)
            .map(|(id, progress)| PeerProgress {
                id: *id,
                matched: progress.matched,
                // A new leader knows nothing yet and supposes the best.
                is_active: self.silence.get(id).is_none_or(|ticks| *ticks < SILENT_TICKS),
                is_learner: !voters.contains(*id),
                gets_snapshot: progress.state == raft::ProgressState::Snapshot,
            })
            .collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    /// Appends entries, if this member leads. `false`: not now.
    pub(crate) fn propose(&mut self, entries: Vec<Entry>) -> bool {
        if !self.is_leader() || entries.is_empty() {
            return false;
        }
        let mut message = Message { from: self.me, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.step_local(message)
    }

    /// Takes a message of another member.
    pub(crate) fn step(&mut self, mut message: Message) {
        self.skip_committed(&mut message);
        let cannot_lead = self.takes_snapshot() || self.has_left_log();
        if cannot_lead && message.get_msg_type() == MessageType::MsgTimeoutNow {
            return;
        }
        if self.goes_on_behind_received(&message) {
            return;
        }
        if !self.takes_in(&mut message) {
            return;
        }
        self.keep_to_received(&message);
        // What doesn't fit is repeated or was overtaken by events.
        self.node.step(message).ok();
        self.scatter_timeout();
    }

    /// A leader that was told nothing for a while begins at what this disk has confirmed, which may be before what is committed
    /// here. The library takes no such message; what it must take is the part behind.
    fn skip_committed(&self, message: &mut Message) {
        let committed = self.node.raft.raft_log.committed;
        let ends_behind = message.entries.last().is_some_and(|last| last.index > committed);
        let is_append = message.get_msg_type() == MessageType::MsgAppend && message.term >= self.term();
        if !is_append || message.index >= committed || !ends_behind {
            return;
        }
        let mut entries: Vec<Entry> = message.take_entries().into();
        let rest = entries.split_off(entries.partition_point(|entry| entry.index <= committed));
        message.log_term = entries.last().map_or(0, |entry| entry.term);
        message.index = committed;
        message.set_entries(rest.into());
    }

    /// Where too much waits for this disk, nothing more is taken in. What a message says of entries that are here is heard: that they
    /// are committed may be what lets the member leave its log.
    fn takes_in(&self, message: &mut Message) -> bool {
        let is_append = message.get_msg_type() == MessageType::MsgAppend && !message.entries.is_empty();
        if !is_append || !self.is_congested() {
            return true;
        }
        let last = self.node.store().last();
        let keep = message.entries.partition_point(|entry| entry.index <= last);
        message.mut_entries().truncate(keep);
        message.index <= last
    }

    fn step_local(&mut self, message: Message) -> bool {
        let accepted = self.node.raft.step(message).is_ok();
        self.scatter_timeout();
        accepted
    }

    /// One tick of Raft's clock. `is_stuck`: this disk makes no progress, so the member must not run for leader. While its vote, or
    /// its request for votes, waits for the disk, an election is under way and no time passes: a new one would end it, and with
    /// slow disks that would go on for ever. Nor does a member run whose state is on its way.
    pub(crate) fn tick(&mut self, is_stuck: bool) {
        let is_stuck = is_stuck || self.has_left_log();
        if !self.is_leader() && (is_stuck || self.holds_vote() || self.takes_snapshot()) {
            self.node.raft.election_elapsed = 0;
        }
        self.node.tick();
        self.listen();
        self.end_snapshots();
        self.scatter_timeout();
    }

    /// A snapshot has replaced the log and is not the state yet. The library must not run for leader now: it would first look
    /// at all that is not applied, and find it gone.
    fn takes_snapshot(&self) -> bool {
        self.node.raft.raft_log.applied < self.node.store().before()
    }

    /// Asks for the position that a read must wait for; it comes back with `context` in [`Effects::reads`].
    pub(crate) fn read_index(&mut self, context: Vec<u8>) {
        self.node.read_index(context);
    }

    pub(crate) fn transfer(&mut self, to: u64) {
        self.node.transfer_leader(to);
    }

    pub(crate) fn report_unreachable(&mut self, id: u64) {
        if !self.probe_behind_received(id, u64::MAX) {
            self.node.report_unreachable(id);
        }
    }

    pub(crate) fn report_snapshot(&mut self, id: u64, ok: bool) {
        self.snapshot_under_way = None;
        self.node.report_snapshot(id, if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
    }

    /// A snapshot as of this position is being sent: the log behind it is kept for a while.
    pub(crate) fn snapshot_leaves(&mut self, index: u64) {
        self.snapshot_under_way = Some(index);
    }

    /// A change of the configuration has been applied.
    pub(crate) fn apply_conf_change(&mut self, change: &ConfChange) -> Result<(), raft::Error> {
        self.node.apply_conf_change(change)?;
        self.scatter_timeout();
        Ok(())
    }

    /// The driver has applied everything up to `position` (index, term). `conf_state` if it has changed.
    pub(crate) fn applied(&mut self, position: (u64, u64), conf_state: Option<ConfState>, is_alone: bool) {
        self.node.advance_apply_to(position.0);
        self.scatter_timeout();
        let returns = self.left.as_ref().and_then(|left| left.returns.as_ref());
        let (returns_after, bytes_max) =
            returns.map_or((u64::MAX, KEPT_BYTES_FOR_OTHERS), |returns| (returns.after, returns.bytes_max));
        let needed = self.needed_after().min(returns_after);
        let kept_entries = self.kept_entries;
        let log = self.node.mut_store();
        log.set_applied(position, conf_state);
        if is_alone {
            // Who comes later gets a snapshot.
            log.trim(0, 0, returns_after);
        } else {
            log.trim(kept_entries, KEPT_BYTES, needed);
            log.trim(usize::MAX, bytes_max, u64::MAX);
        }
    }

    /// As leader: notes who can be reached.
    fn listen(&mut self) {
        if !self.is_leader() {
            self.received.clear();
            return self.silence.clear();
        }
        let before = std::mem::take(&mut self.silence);
        let others = self.node.raft.prs().iter().filter(|(id, _)| **id != self.me);
        let ticks = |(id, progress): (&u64, &raft::Progress)| {
            let silence = if progress.recent_active { 0 } else { before.get(id).map_or(0, |ticks| ticks + 1) };
            (*id, silence)
        };
        self.silence = others.map(ticks).collect();
    }

    /// As leader: a member that knows of all that its snapshot brought has taken it, even if its word on that was lost. Without
    /// this it would wait for more for ever, and its leader for its word.
    fn end_snapshots(&mut self) {
        if !self.is_leader() {
            return;
        }
        let has_arrived = |progress: &raft::Progress| {
            progress.state == raft::ProgressState::Snapshot && progress.committed_index >= progress.pending_snapshot
        };
        let others = self.node.raft.prs().iter().filter(|(_, progress)| has_arrived(progress));
        for id in others.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.report_snapshot(id, true);
        }
    }

    /// The next step, if there is something to do.
    pub(crate) fn take_effects(&mut self) -> Option<Effects> {
        self.acknowledge_committed();
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let ticket = ready.number();
        self.ticket = ticket;
        let mut effects = Effects {
            committed: ready.take_committed_entries(),
            reads: ready.take_read_states(),
            ..Effects::default()
        };
        self.note_vote();
        let mut held = Vec::new();
        let is_leader_heard = self.vote.is_durable || !self.rules.hold_votes;
        (if is_leader_heard { &mut effects.messages } else { &mut held }).extend(ready.take_messages());
        for message in ready.take_persisted_messages() {
            let list = if self.rules.depends_on_disk(&message) { &mut held } else { &mut effects.messages };
            list.push(message);
        }
        let entries = ready.take_entries();
        let mut snapshot = None;
        if !ready.snapshot().is_empty() {
            let head = ready.snapshot().get_metadata();
            snapshot = Some(head.index);
            // It takes the place of all that was not written.
            let unwritten = self.unwritten_from();
            self.forget_steps(unwritten..self.undurable.len());
            self.left = None;
            self.node.mut_store().restart((head.index, head.term), head.get_conf_state().clone());
            effects.snapshot = Some((ticket, head.index));
        }
        self.node.mut_store().append(&entries);
        if let Some(first) = entries.first() {
            self.replaced_from(first.index);
        }
        let must_write = ready.must_sync();
        self.node.advance_append_async(ready);
        let undurable = self.note(ticket, &entries, snapshot, !must_write, held);
        if must_write && !self.has_left_log() {
            effects.batch = Some(self.batch(ticket, entries, self.node.store().last()));
        }
        if undurable.is_written && self.undurable.is_empty() && !self.holds_unwritten() {
            self.node.on_persist_ready(ticket);
            effects.messages.extend(undurable.messages);
        } else {
            self.held_votes += votes_of(&undurable);
            self.undurable.push_back(undurable);
        }
        Some(effects)
    }

    /// What a deposed leader had proposed from this position on is replaced: nobody waits for it any more.
    fn replaced_from(&mut self, first: u64) {
        if let Some(left) = &mut self.left {
            left.index = left.index.min(first - 1);
        }
        for step in self.undurable.iter_mut().rev().take_while(|step| step.last.is_none_or(|last| last >= first)) {
            step.last = step.last.map(|last| last.min(first - 1));
        }
    }

    fn note(
        &mut self,
        ticket: u64,
        entries: &[Entry],
        snapshot: Option<u64>,
        is_written: bool,
        messages: Vec<Message>,
    ) -> Undurable {
        let bytes = entries.iter().map(|entry| entry.data.len()).sum();
        let count = entries.len() as u64;
        self.undurable_entries += count;
        self.undurable_bytes += bytes;
        let last = entries.last().map(|entry| entry.index);
        Undurable { ticket, last, entries: count, bytes, snapshot, is_written, messages }
    }

    /// What the log ends with at `end`. Behind that, the disk may have what a deposed leader had proposed: nothing is said of it.
    fn batch(&self, ticket: u64, entries: Vec<Entry>, end: u64) -> Batch {
        let first_index = entries.first().map_or(end + 1, |entry| entry.index);
        let mut vitals = self.vitals();
        vitals.commit = vitals.commit.min(end);
        Batch { ticket, first_index, vitals, entries }
    }

    /// A batch that says nothing new: it measures the disk.
    pub(crate) fn probe(&self) -> Batch {
        let end = self.left.as_ref().map_or(self.node.store().last(), |left| left.index);
        self.batch(0, Vec::new(), end)
    }

    /// Everything up to this ticket is durable here. Returns the messages that waited for it.
    pub(crate) fn durable(&mut self, ticket: u64) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut number = None;
        self.vote.is_durable |= ticket >= self.vote.ticket;
        let written = self.left.as_ref().filter(|_| self.holds_unwritten()).map_or(u64::MAX, |left| left.ticket);
        let is_done = |step: &Undurable| step.ticket <= ticket || step.is_written && step.ticket <= written;
        while let Some(done) = self.undurable.pop_front_if(|step| is_done(step)) {
            number = Some(done.ticket);
            self.acknowledged = self.acknowledged.saturating_sub(1);
            self.undurable_entries -= done.entries;
            self.undurable_bytes -= done.bytes;
            self.held_votes -= votes_of(&done);
            if let Some(last) = done.last.or(done.snapshot) {
                self.persisted = last;
            }
            messages.extend(done.messages);
        }
        if let Some(number) = number {
            self.node.on_persist_ready(number);
        }
        without_outdated(messages)
    }

    /// Tells the library of what is committed, and so durable on a majority, as if it were durable here.
    fn acknowledge_committed(&mut self) {
        if !self.rules.apply_before_durable {
            return;
        }
        let committed = self.node.raft.raft_log.committed;
        let mut number = None;
        while let Some(step) = self.undurable.get(self.acknowledged) {
            if step.snapshot.is_some() || step.last.is_some_and(|last| last > committed) {
                break;
            }
            number = Some(step.ticket);
            self.acknowledged += 1;
        }
        if let Some(number) = number {
            self.node.on_persist_ready(number);
        }
        let unwritten = self.unwritten_from();
        if unwritten < self.acknowledged {
            self.forget_steps(unwritten..self.acknowledged);
        }
    }
}

impl Rules {
    /// Whether a message of a member that does not lead promises something about this disk.
    fn depends_on_disk(self, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgAppendResponse => !message.reject && self.hold_acknowledgements,
            MessageType::MsgRequestVote | MessageType::MsgRequestVoteResponse => self.hold_votes,
            _ => false,
        }
    }
}

/// The entry of a change that Raft itself must know of: the command lies in the change.
pub(crate) fn conf_change_entry(mut change: ConfChange, command: &[u8]) -> Option<Entry> {
    change.context = command.to_vec().into();
    let mut entry = Entry { data: change.write_to_bytes().ok()?.into(), ..Entry::default() };
    entry.set_entry_type(EntryType::EntryConfChange);
    Some(entry)
}

/// What an entry says: its command, and the change of Raft's configuration that belongs to it.
pub(crate) fn command_of(entry: &Entry) -> Option<(Command, Option<ConfChange>)> {
    if entry.get_entry_type() == EntryType::EntryNormal {
        return Some((decode_command(&entry.data).ok()?, None));
    }
    let mut change = ConfChange::default();
    change.merge_from_bytes(&entry.data).ok()?;
    let command = decode_command(&change.context).ok()?;
    Some((command, Some(change)))
}

/// The change of the membership that an entry makes, if it makes one.
pub(crate) fn conf_change_of(entry: &Entry) -> Option<MemberChange> {
    if entry.get_entry_type() == EntryType::EntryNormal {
        return None;
    }
    match command_of(entry)? {
        (Command::Member(change), _) => Some(change),
        _ => None,
    }
}

fn is_acknowledgement(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject
}

/// After a slow sync thousands of acknowledgements are due at once. The last one to a leader says all that those before it say.
fn without_outdated(mut messages: Vec<Message>) -> Vec<Message> {
    let mut said = HashSet::new();
    messages.reverse();
    messages.retain(|message| !is_acknowledgement(message) || said.insert((message.to, message.term)));
    messages.reverse();
    messages
}

#[cfg(test)]
mod tests {
    use super::elections::TURN_TICKS;
    use super::*;
    use crate::frame::Identity;
    use crate::mvcc::State;
    use crate::peer::MemberInfo;

    fn member(me: u64, voters: &[u64]) -> Member {
        let members: Vec<_> = voters.iter().map(|id| MemberInfo { id: *id, ..MemberInfo::default() }).collect();
        member_of(me, &members)
    }

    fn member_of(me: u64, members: &[MemberInfo]) -> Member {
        let mut recovered = Recovered {
            identity: Identity { cluster: 1, member: me },
            state: State::founded(members),
            entries: Vec::new(),
            vitals: Vitals { term: 1, commit: 1, ..Vitals::default() },
            log_end: (None, 1),
            log_bytes: 0,
            checkpoint_bytes: 0,
        };
        let config =
            crate::config::Config { log_entries_kept: 100, log_entries_waiting_max: 100, ..Default::default() };
        Member::new(&mut recovered, 7, &config).unwrap()
    }

    fn entry() -> Entry {
        Entry { data: "x".into(), ..Entry::default() }
    }

    /// All effects at hand: tickets to write, positions to apply, types of messages to send.
    fn drain(member: &mut Member) -> (Vec<u64>, Vec<u64>, Vec<MessageType>) {
        let mut all = (Vec::new(), Vec::new(), Vec::new());
        while let Some(effects) = member.take_effects() {
            all.0.extend(effects.batch.map(|batch| batch.ticket));
            all.2.extend(effects.messages.iter().map(Message::get_msg_type));
            if let Some(last) = effects.committed.last() {
                all.1.extend(effects.committed.iter().map(|entry| entry.index));
                member.applied((last.index, last.term), None, false);
            }
        }
        all
    }

    #[test]
    fn a_single_voter_leads_at_once_and_applies_what_is_durable() {
        let mut member = member(1, &[1]);
        member.campaign();
        assert!(member.is_leader());
        let (tickets, applied, _) = drain(&mut member);
        assert_eq!((tickets.len(), applied), (1, vec![]));
        member.durable(tickets[0]);
        assert_eq!(drain(&mut member).1, [2]);
        assert!(member.is_ready_leader());
        assert!(member.propose(vec![entry(), entry()]));
        let (tickets, applied, _) = drain(&mut member);
        assert_eq!(applied, [0; 0]);
        member.durable(tickets[0]);
        assert_eq!(drain(&mut member).1, [3, 4]);
        assert_eq!(member.persisted(), 4);
    }

    /// A crash would let it lead once more in this term.
    #[test]
    fn the_only_voter_says_nothing_before_its_vote_is_durable() {
        let of = |id, is_learner| MemberInfo { id, is_learner, ..MemberInfo::default() };
        let mut member = member_of(1, &[of(1, false), of(2, true)]);
        member.campaign();
        assert!(member.is_leader() && member.propose(vec![entry()]));
        let (tickets, _, said) = drain(&mut member);
        assert_eq!(said, [], "the learner hears nothing of this term");
        let types = |messages: Vec<Message>| messages.iter().map(Message::get_msg_type).collect::<Vec<_>>();
        let mut said = Vec::new();
        tickets.iter().for_each(|ticket| said.extend(types(member.durable(*ticket))));
        assert!(said.contains(&MessageType::MsgAppend), "{said:?}");
        // From then on it is heard before its disk has anything of it.
        let mut heard = Message { from: 2, to: 1, term: 2, index: 3, ..Message::default() };
        heard.set_msg_type(MessageType::MsgAppendResponse);
        member.step(heard);
        assert!(member.propose(vec![entry()]));
        assert!(drain(&mut member).2.contains(&MessageType::MsgAppend));
    }

    /// Ticks until it asks for votes, after a heartbeat of member 2 and what `after` does.
    fn ticks_until_it_runs(me: u64, after: impl FnOnce(&mut Member)) -> usize {
        let mut member = member(me, &[1, 2, 3]);
        let mut heartbeat = Message { from: 2, to: me, term: 2, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        member.step(heartbeat.clone());
        let (tickets, ..) = drain(&mut member);
        tickets.iter().for_each(|ticket| drop(member.durable(*ticket)));
        after(&mut member);
        (1..3 * ELECTION_TICKS)
            .find(|_| {
                member.tick(false);
                drain(&mut member).2.contains(&MessageType::MsgRequestPreVote)
            })
            .unwrap()
    }

    #[test]
    fn members_run_in_turn_soon_after_the_leader_is_missed_and_at_once_when_its_process_has_ended() {
        let (first, second) = (ticks_until_it_runs(1, |_| {}), ticks_until_it_runs(3, |_| {}));
        assert!(first > ELECTION_TICKS && first + TURN_TICKS / 2 < second, "{first} {second}");
        let ended = |member: &mut Member| member.process_ended(2);
        assert_eq!(ticks_until_it_runs(1, ended), first - ELECTION_TICKS);
        assert_eq!(ticks_until_it_runs(3, ended), second - ELECTION_TICKS);
        assert_eq!(ticks_until_it_runs(1, |member| member.process_ended(3)), first, "it does not lead");
        let spoke_again = |member: &mut Member| {
            member.process_ended(2);
            let mut word = Message { from: 2, to: 1, term: 2, ..Message::default() };
            word.set_msg_type(MessageType::MsgHeartbeat);
            member.step(word);
        };
        assert_eq!(ticks_until_it_runs(1, spoke_again), first, "its next word takes the hint back");
    }

    fn append(commit: u64, entries: &[u64]) -> Message {
        let mut message =
            Message { from: 2, to: 1, term: 2, index: entries[0] - 1, log_term: 1, commit, ..Message::default() };
        message.log_term = if entries[0] == 2 { 1 } else { 2 };
        message.set_msg_type(MessageType::MsgAppend);
        let entries: Vec<_> = entries.iter().map(|index| Entry { index: *index, term: 2, ..entry() }).collect();
        message.set_entries(entries.into());
        message
    }

    #[test]
    fn a_follower_applies_what_others_have_committed_and_acknowledges_what_it_has() {
        let mut member = member(1, &[1, 2, 3]);
        member.step(append(1, &[2, 3]));
        let (first, applied, messages) = drain(&mut member);
        assert_eq!((first.len(), applied, messages), (1, vec![], vec![]), "nothing leaves before the disk has it");
        member.step(append(3, &[4]));
        let (second, applied, messages) = drain(&mut member);
        assert_eq!((applied, messages), (vec![2, 3], vec![]), "the others have made it durable");
        assert_eq!(member.persisted(), 1);
        let acknowledgements = member.durable(first[0]);
        assert_eq!(acknowledgements.iter().map(|m| m.index).collect::<Vec<_>>(), [3]);
        let acknowledgements = member.durable(second[0]);
        assert_eq!(acknowledgements.iter().map(|m| m.index).collect::<Vec<_>>(), [4]);
        assert_eq!(member.persisted(), 4);
    }

    #[test]
    fn of_many_acknowledgements_that_waited_for_one_sync_the_last_is_sent() {
        let mut member = member(1, &[1, 2, 3]);
        let mut tickets = Vec::new();
        for index in 2..50 {
            member.step(append(1, &[index]));
            tickets.extend(drain(&mut member).0);
        }
        assert_eq!((tickets.len(), member.unconfirmed()), (48, Some((2, 49))));
        let acknowledgements = member.durable(*tickets.last().unwrap());
        assert_eq!(acknowledgements.iter().map(|m| (m.to, m.index)).collect::<Vec<_>>(), [(2, 49)]);
        assert_eq!(member.unconfirmed(), None);
    }

    /// A follower that has got and applied everything up to `last`, and whose disk has not answered since it had 59 entries.
    fn with_a_log_that_was_left(last: u64) -> Member {
        let mut member = member(1, &[1, 2, 3]);
        let mut tickets = Vec::new();
        for index in 2..60 {
            member.step(append(index, &[index]));
            tickets.extend(drain(&mut member).0);
        }
        assert!(member.leave_log() && !member.leave_log());
        for index in 60..=last {
            member.step(append(index, &[index]));
            assert_eq!(drain(&mut member), (vec![], vec![index], vec![]), "applied, not written, and nothing is said");
        }
        assert_eq!(member.unconfirmed(), Some((2, last)));
        let acknowledgements = member.durable(*tickets.last().unwrap());
        assert_eq!((acknowledgements.last().unwrap().index, member.persisted()), (59, 59));
        member
    }

    #[test]
    fn a_log_that_was_left_goes_on_where_it_was_or_behind_a_checkpoint() {
        let confirmed = |member: &mut Member, batch: &Batch| {
            assert_eq!(member.unconfirmed().unwrap().1, batch.entries.last().unwrap().index);
            member.durable(batch.ticket).iter().map(|message| message.index).collect::<Vec<_>>()
        };
        let mut member = with_a_log_that_was_left(70);
        assert_eq!((member.probe().vitals.commit, member.positions().committed), (59, 70), "of what the disk has");
        let [batch] = &member.return_at_once().unwrap()[..] else { panic!("one piece") };
        assert_eq!((batch.first_index, batch.entries.len()), (60, 11));
        assert_eq!((confirmed(&mut member, batch), member.persisted()), (vec![70], 70));

        let mut member = with_a_log_that_was_left(300);
        assert!(member.return_at_once().is_none(), "entry 60 is gone from memory");
        member.prepare_return(300, 0);
        member.step(append(300, &[301]));
        drain(&mut member);
        assert!(member.return_to_log(299).is_none() && member.returns_after(300), "another checkpoint");
        let [batch] = &member.return_to_log(300).unwrap()[..] else { panic!("one piece") };
        assert_eq!((batch.first_index, batch.entries.len()), (301, 1));
        assert_eq!((confirmed(&mut member, batch), member.persisted()), (vec![301], 301));
    }

    /// First index, number of entries and commitment of each, and whether it is reported.
    fn shape(batches: &[Batch]) -> Vec<(u64, usize, u64, bool)> {
        let shape = |batch: &Batch| (batch.first_index, batch.entries.len(), batch.vitals.commit, batch.ticket > 0);
        batches.iter().map(shape).collect()
    }

    #[test]
    fn what_is_committed_behind_its_checkpoint_does_not_fill_a_member() {
        let mut member = with_a_log_that_was_left(300);
        member.prepare_return(300, 0);
        for index in 301..500 {
            member.step(append(index, &[index]));
            drain(&mut member);
        }
        // Nobody knows yet that these are committed.
        member.step(append(499, &[500]));
        member.step(append(499, &[501]));
        assert_eq!(drain(&mut member).1, [0; 0]);
        let batches = member.return_to_log(300).unwrap();
        assert_eq!(shape(&batches), [(301, 199, 499, true), (500, 2, 499, true)]);
        assert!(!member.is_congested() && !member.leave_log());
        member.step(append(502, &[502]));
        let (tickets, applied, _) = drain(&mut member);
        assert_eq!(applied, [500, 501, 502]);
        // Each is confirmed when it is durable.
        assert_eq!((member.durable(batches[0].ticket).len(), member.persisted()), (0, 499));
        assert_eq!(member.durable(batches[1].ticket).iter().map(|message| message.index).collect::<Vec<_>>(), [501]);
        assert_eq!(member.persisted(), 501);
        assert_eq!(member.durable(tickets[0])[0].index, 502);
    }

    #[test]
    fn a_member_that_takes_nothing_more_hears_what_is_committed() {
        let mut member = member(1, &[1, 2, 3]);
        let all: Vec<u64> = (2..=110).collect();
        member.step(append(1, &all));
        assert_eq!(drain(&mut member).1, [0; 0]);
        assert!(member.is_congested() && !member.leave_log());
        member.step(append(111, &[110, 111]));
        assert_eq!(drain(&mut member).1.last(), Some(&110), "entry 111 was not taken");
        member.step(append(112, &[112]));
        assert_eq!(drain(&mut member), (vec![], vec![], vec![]));
        assert!(member.leave_log() && !member.is_congested());
        member.step(append(111, &[111]));
        assert_eq!(drain(&mut member), (vec![], vec![111], vec![]));
    }

    #[test]
    fn a_log_goes_on_with_pieces_of_which_the_last_is_reported() {
        let mut member = with_a_log_that_was_left(60);
        for index in 61..65 {
            let mut large = append(index, &[index]);
            large.mut_entries()[0].data = vec![0; 700 << 10].into();
            member.step(large);
            drain(&mut member);
        }
        let batches = member.return_at_once().unwrap();
        assert_eq!(shape(&batches), [(60, 3, 62, false), (63, 2, 64, true)]);
        assert_eq!((member.durable(0).len(), member.persisted()), (0, 59));
        member.durable(batches[1].ticket);
        assert_eq!(member.persisted(), 64);
    }

    /// On the disk, behind where the log goes on, is what a deposed leader had proposed: nothing that is written first may say
    /// that it is committed.
    #[test]
    fn a_log_that_goes_on_says_of_no_entry_that_it_is_committed_before_it_is_there() {
        let mut member = member(1, &[1, 2, 3]);
        let all: Vec<u64> = (2..=60).collect();
        member.step(append(60, &all));
        drain(&mut member);
        member.step(append(60, &[61, 62, 63]));
        let (tickets, ..) = drain(&mut member);
        assert!(member.leave_log());
        let of_term_3 = |commit, prev: (u64, u64), entries: &[u64]| {
            let mut message = append(commit, entries);
            (message.from, message.term, message.index, message.log_term) = (3, 3, prev.0, prev.1);
            message.mut_entries().iter_mut().for_each(|entry| entry.term = 3);
            message
        };
        let mut heartbeat = Message { from: 3, to: 1, term: 3, commit: 60, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        member.step(heartbeat);
        drain(&mut member);
        let all: Vec<u64> = (61..=70).collect();
        member.step(of_term_3(60, (60, 2), &all));
        drain(&mut member);
        member.step(of_term_3(65, (70, 3), &[71]));
        drain(&mut member);
        member.durable(*tickets.last().unwrap());
        let batches = member.return_at_once().unwrap();
        assert_eq!((batches[0].first_index, batches[0].vitals.commit), (61, 65));
        assert!(batches[0].entries.iter().any(|entry| entry.index == 65), "{batches:?}");
    }

    #[test]
    fn what_a_deposed_leader_had_proposed_is_not_waited_for() {
        let mut member = member(1, &[1, 2, 3]);
        member.step(append(1, &[2, 3, 4, 5, 6]));
        let (first, ..) = drain(&mut member);
        let mut newer = append(3, &[3]);
        (newer.from, newer.term, newer.log_term) = (3, 3, 2);
        newer.mut_entries()[0].term = 3;
        member.step(newer);
        assert_eq!(drain(&mut member).1, [2, 3], "the others have made them durable");
        member.durable(first[0]);
        assert_eq!(member.persisted(), 2);
    }

    #[test]
    fn a_leader_goes_on_behind_what_a_member_has_received() {
        let mut member = member(1, &[1, 2, 3]);
        member.campaign();
        member.tick(false);
        let mut answer = Message { from: 2, to: 1, term: 2, ..Message::default() };
        for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
            answer.set_msg_type(kind);
            member.step(answer.clone());
            let tickets = drain(&mut member).0;
            tickets.iter().for_each(|ticket| drop(member.durable(*ticket)));
        }
        assert!(member.is_leader());
        let confirm = |member: &mut Member, index| {
            let mut message = Message { from: 3, to: 1, term: 2, index, ..Message::default() };
            message.set_msg_type(MessageType::MsgAppendResponse);
            member.step(message);
        };
        confirm(&mut member, 2);
        assert!(member.propose((0..20).map(|_| entry()).collect()));
        drain(&mut member);
        member.received(3, (2, 22));
        member.report_unreachable(3);
        drain(&mut member);
        confirm(&mut member, 5);
        assert!(member.propose(vec![entry()]));
        let sent: Vec<_> = std::iter::from_fn(|| member.take_effects()).flat_map(|effects| effects.messages).collect();
        let to_it = sent.iter().filter(|message| message.to == 3 && !message.entries.is_empty());
        assert_eq!(to_it.map(|message| message.index).collect::<Vec<_>>(), [22]);
    }

    #[test]
    fn a_vote_waits_for_the_disk_and_a_heartbeat_does_not() {
        let mut member = member(1, &[1, 2, 3]);
        let mut vote = Message { from: 3, to: 1, term: 2, index: 1, log_term: 1, ..Message::default() };
        vote.set_msg_type(MessageType::MsgRequestVote);
        member.step(vote);
        let (tickets, _, messages) = drain(&mut member);
        assert_eq!(messages, []);
        let mut heartbeat = Message { from: 3, to: 1, term: 2, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        member.step(heartbeat);
        assert_eq!(drain(&mut member).2, [MessageType::MsgHeartbeatResponse]);
        let released = member.durable(tickets[0]);
        assert_eq!(released[0].get_msg_type(), MessageType::MsgRequestVoteResponse);
    }
}

//! Towards the other members: frames, who leads, handing over, snapshots.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use raft::eraftpb::{Message as RaftMessage, MessageType};

use super::{Driver, Incoming, Output};
use crate::error::KvError;
use crate::frame::Identity;
use crate::housekeeping::Compactor;
use crate::lease::Lessor;
use crate::peer::{LeaderView, OutgoingSnapshot};
use crate::peer_frame::{Frame, Health, Route, encode_frame};
use crate::raft_log::snapshot_head;
use crate::slow_disk::{Candidate, Report};
use crate::status::LeaderMove;

/// Members tell each other how their disks do, this often.
const HEALTH_EVERY: Duration = Duration::from_millis(200);
/// An idle disk is measured this often.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// A member whose disk has been in one write for so long does not run for leader.
const STUCK: Duration = Duration::from_secs(1);
/// Who lacks more entries than this is no candidate for leadership.
const LAG_MAX: u64 = 5000;

impl Driver {
    /// Takes a frame of another member.
    pub(super) fn take_frame(&mut self, from: u64, frame: Frame) {
        if self.stopped_reason().is_some() {
            return;
        }
        let cluster = &self.machine.state().cluster;
        if cluster.is_removed(from) {
            return self.send(from, &Frame::Removed);
        }
        match frame {
            Frame::Raft(mut message) if message.get_msg_type() == MessageType::MsgPropose => {
                self.take_forwarded(message.take_entries().into());
            }
            // A snapshot comes with its body, another way.
            Frame::Raft(message) if message.get_msg_type() == MessageType::MsgSnapshot => {}
            Frame::Raft(message) => self.member.step(*message),
            Frame::Refused { run, seq, why } if self.is_of_this_run(run) => self.refused(seq, why),
            Frame::Ask { run, number, ask } => self.take_ask(from, run, number, ask),
            Frame::Answer { run, number, answer } if self.is_of_this_run(run) => self.take_answer(number, answer),
            Frame::Refused { .. } | Frame::Answer { .. } => {}
            Frame::Health(Health { latency, is_full }) => {
                let at = self.clock.monotonic();
                self.reports.insert(from, Report { latency, is_full, at });
            }
            Frame::Received { term, index } => self.member.received(from, (term, index)),
            Frame::Removed if cluster.contains(from) => self.removed(),
            Frame::Removed => {}
        }
    }

    /// This member has been removed: it stops, for good.
    pub(super) fn removed(&mut self) {
        let id = self.identity.member;
        self.published.is_removed.store(true, Ordering::Release);
        let reason =
            format!("this member ({id:016x}) was removed from the cluster; its data directory is of no more use");
        self.stop(&reason.into());
    }

    pub(super) fn send_messages(&mut self, messages: Vec<RaftMessage>) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.send_snapshot(message);
            } else {
                self.send(message.to, &Frame::Raft(Box::new(message)));
            }
        }
    }

    /// Raft names a snapshot of some time ago; the one that leaves is of now.
    fn send_snapshot(&mut self, mut message: RaftMessage) {
        let state = self.machine.state();
        message.set_snapshot(snapshot_head((state.index, state.term), state.cluster.conf_state()));
        let (to, index) = (message.to, state.index);
        let (cluster, state) = (self.identity.cluster, Arc::new(state.clone()));
        let route = Route { cluster, from: self.identity.member, to };
        let header = encode_frame(route, &Frame::Raft(Box::new(message)));
        let snapshot = OutgoingSnapshot { header, identity: Identity { cluster, member: to }, state };
        self.member.snapshot_leaves(index);
        tracing::info!(
            to = format!("{to:016x}"),
            index,
            "sending a snapshot to a member that lacks too much of the log"
        );
        self.outbox.push(Output::SendSnapshot { to, snapshot });
    }

    /// A snapshot is here, whole and durable: does Raft want it?
    pub(super) fn take_snapshot(&mut self, incoming: Incoming) {
        let message = incoming.message.clone();
        let is_ours = self.installing.is_none() && self.stopped_reason().is_none();
        if is_ours && incoming.state.cluster.contains(self.identity.member) {
            self.incoming = Some(incoming);
            self.member.step(*message);
            self.take_effects();
        } else {
            self.outbox.push(Output::Discard { file: incoming.file });
        }
        if let Some(unwanted) = self.incoming.take() {
            self.outbox.push(Output::Discard { file: unwanted.file });
        }
    }

    /// Raft has accepted the snapshot that was just offered.
    pub(super) fn install(&mut self, ticket: u64, index: u64) {
        match self.incoming.take() {
            Some(Incoming { state, file, .. }) if state.index == index => {
                self.outbox.push(Output::Install { file, index });
                self.installing = Some((ticket, state));
            }
            _ => self.stop(&"internal error: a snapshot without a state".into()),
        }
    }

    /// Takes note of who leads now.
    pub(super) fn note_leader(&mut self) {
        let now = self.clock.monotonic();
        let before = *self.leader.borrow();
        let view = LeaderView { leader: self.member.leader(), term: self.member.term() };
        if view != before {
            self.leader.send_replace(view);
            self.leader_moved(before, view, now);
        }
        let term = self.member.is_ready_leader().then(|| self.member.term());
        if term != self.lessor_term {
            (self.lessor_term, self.led_since) = (term, now);
            self.begin_lessor(now);
        }
    }

    fn leader_moved(&mut self, before: LeaderView, view: LeaderView, now: Duration) {
        let leads = view.leader == self.identity.member;
        let in_log = if leads { self.member.unapplied(self.machine.state().index) } else { Vec::new() };
        self.proposals.leader_changed(&in_log);
        self.reads.leader_changed();
        if view.leader == 0 {
            self.no_leader_since.get_or_insert(now);
            return;
        }
        self.no_leader_since = None;
        self.leader_changes += 1;
        let me = self.identity.member;
        if view.leader == me && before.leader != 0 && before.leader != me {
            self.policy.took_over(before.leader, now);
        }
        let is_planned =
            self.last_move.as_ref().is_some_and(|m| m.to == view.leader && now.saturating_sub(m.at) < STUCK * 5);
        if !is_planned {
            let (from, to) = (before.leader, view.leader);
            self.last_move = Some(LeaderMove { at: now, from, to, reason: "an election".into() });
        }
        tracing::info!(leader = format!("{:016x}", view.leader), term = view.term, "the cluster has a leader");
        self.send_asks();
        self.repeat_round();
    }

    /// A new leader gives every lease its whole time again: it can't know when they were renewed last.
    fn begin_lessor(&mut self, now: Duration) {
        self.lessor = Lessor::default();
        if self.lessor_term.is_some() {
            let state = self.machine.state();
            for (id, ttl) in &state.leases {
                self.lessor.grant(*id, *ttl, now);
            }
            self.lessor.tick(now);
            self.compactor = Compactor::new(&self.config, state.revision, now);
            // A leader that was not ready has dropped it.
            self.repeat_round();
        }
    }

    /// Begins to hand leadership over to a member that a client has chosen.
    pub(super) fn begin_transfer(&mut self, to: u64) -> Result<(), KvError> {
        if to == self.identity.member {
            return Ok(());
        }
        if !self.machine.state().cluster.voters().contains(&to) {
            return Err(KvError::Unavailable { reason: format!("member {to:016x} is no voter").into() });
        }
        self.move_leadership(to, "a request");
        Ok(())
    }

    /// Hands leadership over to whoever is best. Does nothing if there is nobody.
    pub(super) fn hand_over(&mut self, reason: &str) {
        let best = |peer: &&Candidate| (peer.report.map_or(Duration::MAX, |report| report.latency), peer.id);
        let candidates = self.candidates();
        if let Some(peer) = candidates.iter().filter(|peer| peer.is_up_to_date).min_by_key(best) {
            self.move_leadership(peer.id, reason);
        }
    }

    fn move_leadership(&mut self, to: u64, reason: &str) {
        if self.member.is_transferring() {
            return;
        }
        tracing::info!(to = format!("{to:016x}"), reason, "handing leadership over");
        self.last_move =
            Some(LeaderMove { at: self.clock.monotonic(), from: self.identity.member, to, reason: reason.into() });
        self.member.transfer(to);
    }

    fn candidates(&self) -> Vec<Candidate> {
        let last = self.member.positions().last;
        let voters = self.member.progress().into_iter().filter(|peer| !peer.is_learner);
        voters
            .map(|peer| Candidate {
                id: peer.id,
                report: self.reports.get(&peer.id).copied(),
                is_up_to_date: peer.is_active && peer.matched + LAG_MAX >= last,
            })
            .collect()
    }

    /// How long this disk takes at the moment.
    pub(super) fn disk_latency(&self, now: Duration) -> Duration {
        self.disk.latency(now, self.write_since.front().map(|(_, since)| *since))
    }

    /// Raft's clock and the members' health.
    pub(super) fn tick_cluster(&mut self, now: Duration) {
        if self.machine.state().cluster.is_alone(self.identity.member) {
            self.last_raft_tick = now;
            if !self.member.is_leader() {
                self.member.campaign();
            }
            return;
        }
        let is_stuck = self.write_since.front().is_some_and(|(_, since)| now.saturating_sub(*since) > STUCK);
        let mut due = now.saturating_sub(self.last_raft_tick).as_nanos() / super::RAFT_TICK.as_nanos();
        if due > 10 {
            // This process was stopped: what it has not heard meanwhile means nothing.
            due = 1;
            self.last_raft_tick = now;
        } else {
            self.last_raft_tick += super::RAFT_TICK * due as u32;
        }
        (0..due).for_each(|_| self.member.tick(is_stuck));
        if self.machine.state().cluster.is_sole_voter(self.identity.member) && !self.member.is_leader() {
            self.member.campaign();
        }
        self.take_effects();
        if self.member.leave_log() {
            tracing::warn!(
                "too much waits for this disk: from here on its log is left out, and begins anew once the disk is back"
            );
        }
        self.report_received(now);
        if now.saturating_sub(self.last_health) >= HEALTH_EVERY {
            self.last_health = now;
            self.report_health(now);
        }
        self.watch_disk(now);
    }

    /// A slow disk holds acknowledgements back; without a word of what has arrived, a leader that lost track would send no more.
    fn report_received(&mut self, now: Duration) {
        let is_slow = self.write_since.front().is_some_and(|(_, since)| now.saturating_sub(*since) > super::RAFT_TICK);
        let is_behind = is_slow || self.member.has_left_log();
        let leader = self.member.leader();
        if is_behind
            && leader != 0
            && leader != self.identity.member
            && let Some((term, index)) = self.member.unconfirmed()
        {
            self.send(leader, &Frame::Received { term, index });
        }
    }

    fn report_health(&mut self, now: Duration) {
        let frame = Frame::Health(Health { latency: self.disk_latency(now), is_full: self.space.is_disk_full() });
        for member in self.machine.state().cluster.list() {
            if member.id != self.identity.member {
                self.send(member.id, &frame);
            }
        }
        let is_idle = self.write_since.is_empty() && now.saturating_sub(self.last_durable) >= PROBE_EVERY;
        if is_idle {
            let mut probe = self.member.probe();
            probe.ticket = self.last_ticket;
            self.append(probe);
        }
    }

    /// A leader with a slow disk hands over.
    fn watch_disk(&mut self, now: Duration) {
        if !self.member.is_ready_leader() || self.member.is_transferring() {
            return;
        }
        let mine = (self.disk_latency(now), self.space.is_disk_full());
        let candidates = self.candidates();
        if let Some(handover) = self.policy.decide(now, mine, &candidates) {
            self.move_leadership(handover.to, &handover.reason);
        }
    }
}

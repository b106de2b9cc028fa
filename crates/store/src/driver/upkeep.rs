//! Upkeep: what the clock, the log and the checkpoint writer bring about.
//!
//! Invariant: a checkpoint never holds more than what is durable in the log; one that is due waits for the log. The exception
//! is the one behind which a log that was left begins anew.

use std::time::Duration;

use super::{CheckpointReport, Driver, LogReport, Output};
use crate::checkpoint::Job;
use crate::command::Command;
use crate::config::Config;
use crate::error::KvError;
use crate::mvcc::State;
use crate::recovery::Recovered;
use crate::status::Histogram;

/// Checkpoints that are kept while the disk has room.
const CHECKPOINTS_KEPT: usize = 2;
/// A failed checkpoint is tried again after this.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(10);
/// Closing takes so long at most, where others have a say.
const STOP_MAX: Duration = Duration::from_secs(3);

/// The checkpoints of this member.
pub(super) struct Checkpointing {
    /// Log bytes since the state that the newest checkpoint holds.
    pub(super) log_bytes: u64,
    /// [`State::total_bytes`] of that state.
    held_bytes: u64,
    /// One that is due and waits for the log.
    waiting: Option<(State, Covered)>,
    /// What a checkpoint under way will cover.
    pub(super) covered: Option<Covered>,
    not_before: Duration,
    pub(super) index: u64,
    pub(super) bytes: u64,
    pub(super) seconds: Histogram,
}

/// What the end of a checkpoint will mean.
pub(super) struct Covered {
    log_bytes: u64,
    held_bytes: u64,
}

impl Checkpointing {
    pub(super) fn new(recovered: &Recovered, now: Duration) -> Self {
        Self {
            log_bytes: recovered.log_bytes,
            held_bytes: recovered.state.total_bytes,
            waiting: None,
            covered: None,
            not_before: now,
            index: recovered.state.index,
            bytes: recovered.checkpoint_bytes,
            seconds: Histogram::seconds(),
        }
    }

    /// A received snapshot is the newest checkpoint.
    pub(super) fn covers_all(&mut self, state: &State) {
        self.log_bytes = 0;
        self.held_bytes = state.total_bytes;
        self.waiting = None;
        self.index = state.index;
    }

    /// What a checkpoint of `state` as it is now will cover.
    fn covering(&self, state: &State) -> Covered {
        Covered { log_bytes: self.log_bytes, held_bytes: state.total_bytes }
    }

    /// Log bytes at which the next checkpoint is due: the log may take as much room as the newest checkpoint does. Of that
    /// room goes what a new checkpoint would give back, because its state is deleted and compacted since.
    fn due(&self, state: &State, config: &Config) -> u64 {
        let expected = u128::from(self.bytes) * u128::from(state.total_bytes) / u128::from(self.held_bytes.max(1));
        let expected = u64::try_from(expected).unwrap_or(u64::MAX).min(self.bytes);
        (config.checkpoint_log_bytes + 2 * expected).saturating_sub(self.bytes)
    }
}

impl Driver {
    /// The last look at the clock was a tick ago; under load no silence reminds of it.
    pub(crate) fn is_tick_due(&self) -> bool {
        self.clock.monotonic().saturating_sub(self.last_tick) >= self.tick_interval()
    }

    /// How often the driver must look at its clock.
    pub(crate) fn tick_interval(&self) -> Duration {
        let alone = self.machine.state().cluster.is_alone(self.identity.member);
        if alone { self.config.tick_interval } else { self.config.tick_interval.min(super::RAFT_TICK) }
    }

    /// More cleaning up is to be done: don't sleep.
    pub(crate) fn is_busy(&self) -> bool {
        self.machine.has_garbage()
    }

    /// Nothing is under way and nothing more will come.
    pub(crate) fn is_finished(&self) -> bool {
        let Some(since) = self.stopping else { return false };
        let alone = self.machine.state().cluster.is_sole_voter(self.identity.member);
        let is_late = !alone && self.clock.monotonic().saturating_sub(since) >= STOP_MAX;
        let is_needed = self.member.is_leader() && !alone && self.stopped_reason().is_none();
        let is_idle = self.proposals.len() == 0 && !is_needed;
        (is_idle || is_late) && self.checkpoint.covered.is_none()
    }

    pub(super) fn begin_to_stop(&mut self) {
        self.stopping.get_or_insert(self.clock.monotonic());
        if self.member.is_leader() {
            self.hand_over("its process ends");
        }
    }

    pub(super) fn tick(&mut self) {
        let now = self.clock.monotonic();
        self.last_tick = now;
        if self.stopped_reason().is_some() {
            return;
        }
        self.tick_cluster(now);
        self.tick_proposals(now);
        self.tick_reads(now);
        if self.stopping.is_some() {
            return;
        }
        if self.lessor_term.is_some() {
            self.tick_leader(now);
        }
        if self.space.wants_reserve(now) {
            self.outbox.push(Output::HoldReserve);
        }
    }

    /// What the leader alone decides.
    fn tick_leader(&mut self, now: Duration) {
        for id in self.lessor.tick(now) {
            if !self.propose_own(&Command::LeaseRevoke { id }) {
                self.lessor.still_lives(id);
            }
        }
        if self.member.is_transferring() {
            return;
        }
        if let Some(revision) = self.compactor.tick(now, self.machine.state(), &self.config) {
            // If it comes to nothing, the next interval makes up for it.
            self.propose_own(&Command::Compact { revision });
        }
    }

    pub(super) fn log_report(&mut self, report: LogReport) {
        match report {
            LogReport::Durable { ticket, entries, bytes, took } => {
                self.fsync_seconds.observe(took.as_secs_f64());
                self.batch_entries.observe(entries as f64);
                self.checkpoint.log_bytes += bytes;
                self.durable(ticket);
            }
            LogReport::Full { detail } => {
                if !self.space.is_disk_full() {
                    tracing::error!(%detail, "the disk is full: only deletes and compaction are accepted");
                }
                if self.space.disk_is_full(detail, self.clock.monotonic()) {
                    self.outbox.push(Output::ReleaseReserve);
                }
            }
            LogReport::Broken { reason } => self.stop(&reason),
            LogReport::Reserved(held) => self.space.reserved(held, self.clock.monotonic()),
        }
    }

    fn durable(&mut self, ticket: u64) {
        let now = self.clock.monotonic();
        let mut since = None;
        while let Some((_, began)) = self.write_since.pop_front_if(|(last, _)| *last <= ticket) {
            since.get_or_insert(began);
        }
        if let Some(since) = since {
            // A batch that was queued behind another has waited for that one's sync, too.
            self.disk.observe(now.saturating_sub(since.max(self.last_durable)), now);
        }
        self.last_durable = now;
        self.run_is_durable = true;
        let messages = self.member.durable(ticket);
        if let Some((_, state)) = self.installing.take_if(|(installing, _)| *installing <= ticket) {
            self.adopt(state);
        }
        self.send_messages(messages);
    }

    /// The disk has taken what was given to it before its log was left: the log goes on, or a checkpoint follows, behind which it
    /// begins anew.
    fn plan_return(&mut self) {
        if !self.member.has_left_log() || !self.write_since.is_empty() || self.stopping.is_some() {
            return;
        }
        if let Some(batches) = self.member.return_at_once() {
            tracing::info!("this disk is back: its log goes on");
            return batches.into_iter().for_each(|batch| self.append(batch));
        }
        let is_free = self.checkpoint.covered.is_none() && self.clock.monotonic() >= self.checkpoint.not_before;
        if !is_free || !self.member.has_left_log() {
            return;
        }
        let state = self.machine.state().clone();
        // A larger state takes longer to write, and its machine has more room.
        let kept_bytes = usize::try_from(state.total_bytes / 2).unwrap_or(usize::MAX);
        self.member.prepare_return(state.index, kept_bytes);
        self.checkpoint.waiting = None;
        let covered = self.checkpoint.covering(&state);
        self.begin_checkpoint(state, covered);
    }

    fn begin_checkpoint(&mut self, state: State, covered: Covered) {
        self.checkpoint.covered = Some(covered);
        let kept = if self.space.is_disk_full() { 1 } else { CHECKPOINTS_KEPT };
        self.outbox.push(Output::Checkpoint(Job { state, kept }));
    }

    /// Begins a checkpoint when enough log has gathered since the last one, or when it gives much space back.
    pub(super) fn plan_checkpoint(&mut self) {
        self.plan_return();
        let state = self.machine.state();
        let full = self.space.is_disk_full();
        // While it is being compacted, the state shrinks further.
        let mut due = if self.machine.has_garbage() {
            self.config.checkpoint_log_bytes + self.checkpoint.bytes
        } else {
            self.checkpoint.due(state, &self.config)
        };
        if full {
            // A checkpoint that is smaller than the log it replaces gives space back.
            due = due.min(state.total_bytes + 1);
        }
        if self.checkpoint.covered.is_some() || self.stopping.is_some() {
            return;
        }
        let is_due = self.checkpoint.log_bytes >= due;
        if self.checkpoint.waiting.is_none() && is_due && self.clock.monotonic() >= self.checkpoint.not_before {
            self.checkpoint.waiting = Some((state.clone(), self.checkpoint.covering(state)));
        }
        let persisted = self.member.persisted();
        if let Some((state, covered)) = self.checkpoint.waiting.take_if(|(state, _)| state.index <= persisted) {
            self.begin_checkpoint(state, covered);
        }
    }

    pub(super) fn checkpoint_report(&mut self, report: CheckpointReport) {
        let covered = self.checkpoint.covered.take();
        match report {
            CheckpointReport::Written { index, bytes, took } => {
                if let Some(Covered { log_bytes, held_bytes }) = covered {
                    self.checkpoint.log_bytes = self.checkpoint.log_bytes.saturating_sub(log_bytes);
                    self.checkpoint.held_bytes = held_bytes;
                }
                self.checkpoint.index = self.checkpoint.index.max(index);
                self.checkpoint.bytes = bytes;
                self.checkpoint.seconds.observe(took.as_secs_f64());
                // The batch is of one moment: what was said since the last step must not be in its vitals alone.
                self.take_effects();
                let is_awaited = self.member.returns_after(index);
                if let Some(batches) = self.member.return_to_log(index) {
                    tracing::info!(index, "this disk is back: its log begins anew behind a checkpoint");
                    self.outbox.push(Output::RestartLog);
                    batches.into_iter().for_each(|batch| self.append(batch));
                } else if is_awaited {
                    tracing::warn!(
                        ?took,
                        "while this disk took a checkpoint, more was written than is kept for its log, and another one \
                         is begun: until the disk is as fast as the writes, the cluster works without it"
                    );
                }
            }
            CheckpointReport::Failed { reason } => {
                tracing::warn!(reason, "cannot write a checkpoint; the log is kept and it will be tried again");
                self.checkpoint.not_before = self.clock.monotonic() + CHECKPOINT_RETRY;
            }
        }
    }

    /// What is told to whoever closes the store while it waits for others.
    pub(crate) fn give_up(&mut self) {
        let error = KvError::Stopped { reason: "the store is closed".into() };
        self.proposals.fail_all(&error);
        self.reads.fail_all(&error);
    }
}

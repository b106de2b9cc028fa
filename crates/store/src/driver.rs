//! The driver: messages in, steps of consensus, state machine and housekeeping, outputs out.
//!
//! Synchronous and without IO: what it wants of the log and of the checkpoint writer it puts into its outbox, and their
//! reports come back as messages, so nothing here ever waits for a disk. [`crate::threads`] runs it on a thread; tests and
//! simulations call [`Driver::handle`] themselves.
//!
//! Invariant [I10]: a reply to a write is sent only after its entry was reported durable, applied and published.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::checkpoint::Job;
use crate::command::Command;
use crate::config::Config;
use crate::error::KvError;
use crate::frame::Identity;
use crate::housekeeping::{Compactor, Space};
use crate::kv::LeaseStatus;
use crate::lease::Lessor;
use crate::machine::{Machine, Outcome};
use crate::member::{Member, Unwritten};
use crate::record::encode_command;
use crate::recovery::Recovered;
use crate::status::{Histogram, Status};
use crate::txn::growth;
use crate::watchers::Published;

/// Events whose keys are pruned between two looks at the inbox.
const CLEAN_UP_EVENTS: usize = 1000;
/// Checkpoints that are kept while the disk has room.
const CHECKPOINTS_KEPT: usize = 2;
/// A failed checkpoint is tried again after this.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(10);

pub(crate) type Reply<T> = oneshot::Sender<Result<T, KvError>>;

/// What the driver is told.
pub(crate) enum Message {
    /// `body` is the encoded command; `permit` is held until the answer.
    Propose {
        command: Command,
        body: Vec<u8>,
        permit: Option<OwnedSemaphorePermit>,
        reply: Reply<Outcome>,
    },
    KeepAlive {
        id: i64,
        reply: Reply<i64>,
    },
    TimeToLive {
        id: i64,
        reply: Reply<LeaseStatus>,
    },
    Status {
        reply: Reply<Status>,
    },
    Log(LogReport),
    Checkpoint(CheckpointReport),
    /// Look at the clock.
    Tick {
        reply: Option<oneshot::Sender<()>>,
    },
    /// Accept nothing more; finish what is under way.
    Stop,
}

/// What the log thread tells.
#[derive(Debug)]
pub(crate) enum LogReport {
    /// Entries up to `last_index` are durable.
    Durable { last_index: u64, entries: u64, bytes: u64, took: Duration },
    /// The disk is full: this entry and all later ones of this and earlier epochs were not written.
    Full { epoch: u64, first_index: u64, detail: Arc<str> },
    /// The log will write nothing more.
    Broken { reason: Arc<str> },
    /// Whether disk space could be reserved.
    Reserved(bool),
}

/// What the checkpoint thread tells.
#[derive(Debug)]
pub(crate) enum CheckpointReport {
    Written { index: u64, bytes: u64, took: Duration },
    Failed { reason: String },
}

/// What the driver wants done.
#[derive(Debug)]
pub(crate) enum Output {
    Append { epoch: u64, batch: Unwritten },
    HoldReserve,
    ReleaseReserve,
    Checkpoint(Job),
}

/// The state behind a store.
pub(crate) struct Driver {
    config: Config,
    identity: Identity,
    clock: Arc<dyn Clock>,
    published: Arc<Published>,
    member: Member,
    machine: Machine,
    lessor: Lessor,
    compactor: Compactor,
    space: Space,
    waiting: VecDeque<Waiting>,
    outbox: Vec<Output>,
    /// Counts refusals by the log; batches of earlier epochs are void.
    epoch: u64,
    /// Something was applied or pruned that readers have not been shown.
    unpublished: bool,
    stopping: bool,
    stopped: watch::Sender<Option<Arc<str>>>,
    checkpoint: Checkpointing,
    fsync_seconds: Histogram,
    batch_entries: Histogram,
    last_tick: Duration,
    /// Last index of each batch that is at the log, and since when.
    write_since: VecDeque<(u64, Duration)>,
}

struct Waiting {
    index: u64,
    reply: Option<Reply<Outcome>>,
    _permit: Option<OwnedSemaphorePermit>,
}

struct Checkpointing {
    /// Log bytes since the state that the newest checkpoint holds.
    log_bytes: u64,
    /// Those that a checkpoint under way will cover.
    covered: Option<u64>,
    not_before: Duration,
    index: u64,
    bytes: u64,
    seconds: Histogram,
}

impl Driver {
    pub(crate) fn new(config: Config, clock: Arc<dyn Clock>, recovered: Recovered, published: Arc<Published>) -> Self {
        let now = clock.monotonic();
        let state = recovered.machine.state();
        let mut lessor = Lessor::default();
        for (id, ttl) in &state.leases {
            lessor.grant(*id, *ttl, now);
        }
        let compactor = Compactor::new(&config, state.revision, now);
        let member = Member::new(recovered.term, state.index, recovered.identity.member);
        let checkpoint = Checkpointing {
            log_bytes: recovered.log_bytes,
            covered: None,
            not_before: now,
            index: recovered.checkpoint_index,
            bytes: recovered.checkpoint_bytes,
            seconds: Histogram::seconds(),
        };
        Self {
            config,
            identity: recovered.identity,
            clock,
            published,
            member,
            machine: recovered.machine,
            lessor,
            compactor,
            space: Space::default(),
            waiting: VecDeque::new(),
            outbox: vec![Output::HoldReserve],
            epoch: 0,
            unpublished: false,
            stopping: false,
            stopped: watch::Sender::new(None),
            checkpoint,
            fsync_seconds: Histogram::seconds(),
            batch_entries: Histogram::entries(),
            last_tick: now,
            write_since: VecDeque::new(),
        }
    }

    /// Tells why the store stopped writing, once it has.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.stopped.subscribe()
    }

    /// Takes one message. Call [`Self::flush`] once the messages at hand are taken.
    pub(crate) fn handle(&mut self, message: Message) {
        match message {
            Message::Propose { command, body, permit, reply } => self.propose(command, &body, permit, reply),
            Message::KeepAlive { id, reply } => {
                let renewed = self.lessor.keep_alive(id, self.clock.monotonic());
                answer(reply, renewed.ok_or(KvError::LeaseNotFound { id }));
            }
            Message::TimeToLive { id, reply } => answer(reply, self.time_to_live(id)),
            Message::Status { reply } => answer(reply, Ok(self.status())),
            Message::Log(report) => self.log_report(report),
            Message::Checkpoint(report) => self.checkpoint_report(report),
            Message::Tick { reply } => {
                self.tick();
                if let Some(reply) = reply {
                    // Whoever asked for the tick may have gone.
                    reply.send(()).ok();
                }
            }
            Message::Stop => self.stopping = true,
        }
    }

    /// Applies what is committed, shows it to readers, answers, and says what is to be done. Returns the outputs.
    pub(crate) fn flush(&mut self) -> Vec<Output> {
        self.apply_committed();
        if self.machine.has_garbage() {
            self.machine.clean_up(CLEAN_UP_EVENTS);
            self.unpublished = true;
            self.publish();
        }
        if self.stopped_reason().is_none()
            && let Some(batch) = self.member.take_unwritten()
        {
            self.write_since.push_back((batch.last_index, self.clock.monotonic()));
            self.outbox.push(Output::Append { epoch: self.epoch, batch });
        }
        self.plan_checkpoint();
        std::mem::take(&mut self.outbox)
    }

    /// The last look at the clock was a tick interval ago; under load no silence reminds of it.
    pub(crate) fn is_tick_due(&self) -> bool {
        self.clock.monotonic().saturating_sub(self.last_tick) >= self.config.tick_interval
    }

    /// More cleaning up is to be done: don't sleep.
    pub(crate) fn is_busy(&self) -> bool {
        self.machine.has_garbage()
    }

    /// Nothing is under way and nothing more will come.
    pub(crate) fn is_finished(&self) -> bool {
        self.stopping && self.waiting.is_empty() && self.checkpoint.covered.is_none()
    }

    fn propose(&mut self, command: Command, body: &[u8], permit: Option<OwnedSemaphorePermit>, reply: Reply<Outcome>) {
        match self.admit(&command) {
            Ok(()) => {
                let index = self.member.propose(command, body);
                self.waiting.push_back(Waiting { index, reply: Some(reply), _permit: permit });
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// A command of the store's own.
    fn propose_own(&mut self, command: Command) {
        let body = encode_command(&command);
        let index = self.member.propose(command, &body);
        self.waiting.push_back(Waiting { index, reply: None, _permit: None });
    }

    fn admit(&self, command: &Command) -> Result<(), KvError> {
        if let Some(reason) = self.stopped_reason() {
            return Err(KvError::Stopped { reason });
        }
        if self.stopping {
            return Err(KvError::Stopped { reason: "the store is being closed".into() });
        }
        let state = self.machine.state();
        if self.space.is_ample(state, &self.config) {
            return Ok(());
        }
        match command {
            Command::Txn(txn) => self.space.admit(growth(state, txn), state, &self.config),
            Command::LeaseGrant { .. } => self.space.admit(crate::txn::Growth::of_lease(), state, &self.config),
            Command::Nothing | Command::Compact { .. } | Command::LeaseRevoke { .. } => Ok(()),
        }
    }

    fn apply_committed(&mut self) {
        let mut answers = Vec::new();
        while let Some(entry) = self.member.next_committed() {
            let outcome = self.machine.apply(entry.index, entry.term, &entry.command);
            self.unpublished = true;
            self.follow_up(&entry.command, &outcome);
            if let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.index <= entry.index) {
                answers.push((waiting, outcome));
            }
        }
        self.publish();
        for (waiting, outcome) in answers {
            if let Some(reply) = waiting.reply {
                answer(reply, outcome);
            }
        }
    }

    /// What an applied command means for this member's own bookkeeping.
    fn follow_up(&mut self, command: &Command, outcome: &Result<Outcome, KvError>) {
        match (command, outcome) {
            (Command::LeaseGrant { .. }, Ok(Outcome::Granted(lease))) => {
                self.lessor.grant(lease.id, lease.ttl_seconds, self.clock.monotonic());
            }
            (Command::LeaseRevoke { id }, _) => self.lessor.revoke(*id),
            _ => {}
        }
    }

    fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.published.publish(self.machine.state().clone());
        }
    }

    fn log_report(&mut self, report: LogReport) {
        match report {
            LogReport::Durable { last_index, entries, bytes, took } => {
                self.fsync_seconds.observe(took.as_secs_f64());
                self.batch_entries.observe(entries as f64);
                self.checkpoint.log_bytes += bytes;
                while self.write_since.pop_front_if(|(index, _)| *index <= last_index).is_some() {}
                self.member.persisted(last_index);
            }
            LogReport::Full { epoch, first_index, detail } => {
                tracing::error!(%detail, "the disk is full: only deletes and compaction are accepted");
                self.epoch = epoch + 1;
                self.write_since.clear();
                self.space.disk_is_full(detail, self.clock.monotonic());
                self.outbox.push(Output::ReleaseReserve);
                // What was durable before the refusal must not be withdrawn with the rest.
                self.apply_committed();
                self.withdraw(first_index);
            }
            LogReport::Broken { reason } => self.stop(&reason),
            LogReport::Reserved(held) => self.space.reserved(held, self.clock.monotonic()),
        }
    }

    fn withdraw(&mut self, first_index: u64) {
        for entry in self.member.withdraw(first_index) {
            if let Command::LeaseRevoke { id } = entry.command {
                self.lessor.still_lives(id);
            }
        }
        let kept = self.waiting.partition_point(|waiting| waiting.index < first_index);
        let error = self.space.error();
        for waiting in self.waiting.drain(kept..) {
            if let Some(reply) = waiting.reply {
                answer(reply, Err(error.clone()));
            }
        }
    }

    /// The write path is dead. Reads and watches go on, of what was acknowledged.
    fn stop(&mut self, reason: &Arc<str>) {
        tracing::error!(%reason, "the store can't write any more");
        self.stopped.send_replace(Some(Arc::clone(reason)));
        self.write_since.clear();
        for waiting in self.waiting.drain(..) {
            if let Some(reply) = waiting.reply {
                answer(reply, Err(KvError::Stopped { reason: Arc::clone(reason) }));
            }
        }
    }

    fn stopped_reason(&self) -> Option<Arc<str>> {
        self.stopped.borrow().clone()
    }

    fn tick(&mut self) {
        let now = self.clock.monotonic();
        self.last_tick = now;
        if self.stopping || self.stopped_reason().is_some() {
            return;
        }
        for id in self.lessor.tick(now) {
            self.propose_own(Command::LeaseRevoke { id });
        }
        if let Some(revision) = self.compactor.tick(now, self.machine.state(), &self.config) {
            self.propose_own(Command::Compact { revision });
        }
        if self.space.wants_reserve(now) {
            self.outbox.push(Output::HoldReserve);
        }
    }

    fn plan_checkpoint(&mut self) {
        let full = self.space.is_disk_full();
        let mut due = self.config.checkpoint_log_bytes + self.checkpoint.bytes;
        if full {
            // A checkpoint that is smaller than the log it replaces gives space back.
            due = due.min(self.machine.state().total_bytes + 1);
        }
        let writing = self.checkpoint.covered.is_some();
        if writing
            || self.stopping
            || self.checkpoint.log_bytes < due
            || self.clock.monotonic() < self.checkpoint.not_before
        {
            return;
        }
        self.checkpoint.covered = Some(self.checkpoint.log_bytes);
        let kept = if full { 1 } else { CHECKPOINTS_KEPT };
        self.outbox.push(Output::Checkpoint(Job { state: self.machine.state().clone(), kept }));
    }

    fn checkpoint_report(&mut self, report: CheckpointReport) {
        let covered = self.checkpoint.covered.take().unwrap_or(0);
        match report {
            CheckpointReport::Written { index, bytes, took } => {
                self.checkpoint.log_bytes = self.checkpoint.log_bytes.saturating_sub(covered);
                self.checkpoint.index = index;
                self.checkpoint.bytes = bytes;
                self.checkpoint.seconds.observe(took.as_secs_f64());
            }
            CheckpointReport::Failed { reason } => {
                tracing::warn!(reason, "cannot write a checkpoint; the log is kept and it will be tried again");
                self.checkpoint.not_before = self.clock.monotonic() + CHECKPOINT_RETRY;
            }
        }
    }

    fn time_to_live(&self, id: i64) -> Result<LeaseStatus, KvError> {
        let remaining = self.lessor.remaining(id, self.clock.monotonic()).ok_or(KvError::LeaseNotFound { id })?;
        let granted = self.machine.state().leases.get(&id).copied().ok_or(KvError::LeaseNotFound { id })?;
        Ok(LeaseStatus {
            id,
            granted_ttl_seconds: granted,
            remaining_seconds: remaining.as_secs() as i64,
            keys: self.machine.attached_keys(id),
        })
    }

    fn status(&self) -> Status {
        let state = self.machine.state();
        let positions = self.member.positions();
        let now = self.clock.monotonic();
        Status {
            cluster_id: self.identity.cluster,
            member_id: self.identity.member,
            revision: state.revision,
            compact_revision: state.compact_revision,
            term: positions.term,
            last_index: positions.last,
            persisted_index: positions.persisted,
            committed_index: positions.committed,
            applied_index: positions.applied,
            keys: state.live_keys,
            db_bytes: state.total_bytes,
            live_bytes: state.live_bytes,
            quota_bytes: self.config.quota_bytes,
            leases: state.leases.len() as u64,
            watchers: self.published.watchers.count(),
            pending_proposals: self.waiting.len() as u64,
            wal_fsync_seconds: self.fsync_seconds.clone(),
            wal_batch_entries: self.batch_entries.clone(),
            checkpoint_seconds: self.checkpoint.seconds.clone(),
            checkpoint_index: self.checkpoint.index,
            checkpoint_bytes: self.checkpoint.bytes,
            log_bytes: self.checkpoint.log_bytes,
            disk_full: self.space.is_disk_full(),
            wal_write_pending: self.write_since.front().map_or(Duration::ZERO, |(_, since)| now.saturating_sub(*since)),
            stopped: self.stopped_reason(),
        }
    }
}

/// Whoever asked may have gone: then nobody wants the answer.
fn answer<T>(reply: Reply<T>, value: Result<T, KvError>) {
    reply.send(value).ok();
}

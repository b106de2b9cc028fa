//! The driver: messages in, steps of consensus, state machine and housekeeping, outputs out.
//!
//! Synchronous and without IO: what it wants of the log, of the checkpoint writer and of the network it puts into its outbox,
//! and their reports come back as messages, so nothing here ever waits for a disk. [`crate::threads`] runs it on a thread;
//! tests and simulations call [`Driver::handle`] and [`Driver::flush`] themselves.
//!
//! Its parts: `proposals` (a write from its client to the log), `reads` (what the leader must confirm), `apply` (from the log
//! to the state and the answers), `cluster` (frames, leadership, membership, snapshots), `upkeep` (clock, space,
//! checkpoints), `figures` (status).
//!
//! Invariant [I10]: a reply to a write is sent only after its entry was durable on a majority, applied here and published.

mod apply;
mod cluster;
mod figures;
mod proposals;
mod reads;
mod refusals;
mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use bytes::Bytes;
use raft::eraftpb::Message as RaftMessage;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::checkpoint::Job;
use crate::cluster::Weight;
use crate::command::Command;
use crate::config::Config;
use crate::error::{KvError, OpenError};
use crate::frame::Identity;
use crate::housekeeping::{Compactor, Space};
use crate::kv::LeaseStatus;
use crate::lease::Lessor;
use crate::machine::{Machine, Outcome};
use crate::member::{Member, Rules};
use crate::mvcc::State;
use crate::peer::{LeaderView, MemberInfo, OutgoingSnapshot};
use crate::peer_frame::{Frame, Route, encode_frame};
use crate::record::Batch;
use crate::recovery::Recovered;
use crate::slow_disk::{DiskWatch, Policy, Report};
use crate::status::{Histogram, LeaderMove, Status};
use crate::watchers::Published;

pub(crate) use proposals::NO_LEADER_MAX;
use proposals::Proposals;
use reads::{AskReply, Reads};
use upkeep::Checkpointing;

/// Events whose keys are pruned between two looks at the inbox.
const CLEAN_UP_EVENTS: usize = 1000;
/// One tick of Raft's clock. A member that is alone has none.
pub(crate) const RAFT_TICK: Duration = Duration::from_millis(20);

pub(crate) type Reply<T> = oneshot::Sender<Result<T, KvError>>;

/// What the driver is told.
pub(crate) enum Message {
    /// `body` is the encoded command; `permit` is held until the answer.
    Propose {
        command: Command,
        body: Bytes,
        permit: Option<OwnedSemaphorePermit>,
        reply: Reply<Outcome>,
    },
    /// Answered once everything is applied that was committed anywhere when this was asked.
    Read {
        reply: Reply<()>,
    },
    KeepAlive {
        id: i64,
        reply: Reply<i64>,
    },
    TimeToLive {
        id: i64,
        reply: Reply<LeaseStatus>,
    },
    /// Answered when the leader has begun to hand over.
    Transfer {
        to: u64,
        reply: Reply<()>,
    },
    Status {
        reply: Reply<Status>,
    },
    /// From another member.
    Frame {
        from: u64,
        frame: Frame,
        weight: Option<Weight>,
    },
    Snapshot(Incoming),
    SnapshotSent {
        to: u64,
        ok: bool,
    },
    Unreachable {
        id: u64,
    },
    /// A hint: the process of this member has ended.
    Ended {
        id: u64,
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

/// A snapshot of the leader, whole and durable in a file.
pub(crate) struct Incoming {
    pub(crate) message: Box<RaftMessage>,
    pub(crate) state: State,
    pub(crate) file: String,
}

/// What the log thread tells.
#[derive(Debug)]
pub(crate) enum LogReport {
    /// Everything up to this ticket is durable.
    Durable { ticket: u64, entries: u64, bytes: u64, took: Duration },
    /// The disk is full: what is not reported durable waits, and is tried again with every request.
    Full { detail: Arc<str> },
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
    Append(Batch),
    /// Make this received snapshot the log's new beginning, before later batches.
    Install {
        file: String,
        index: u64,
    },
    /// Later batches begin the log anew, behind the newest checkpoint.
    RestartLog,
    /// A received snapshot is not wanted.
    Discard {
        file: String,
    },
    HoldReserve,
    ReleaseReserve,
    Checkpoint(Job),
    Send {
        to: u64,
        frame: Bytes,
    },
    SendSnapshot {
        to: u64,
        snapshot: OutgoingSnapshot,
    },
    Members(Vec<MemberInfo>),
}

/// The state behind a store.
pub(crate) struct Driver {
    config: Config,
    identity: Identity,
    clock: Arc<dyn Clock>,
    published: Arc<Published>,
    member: Member,
    machine: Machine,
    proposals: Proposals,
    reads: Reads,
    lessor: Lessor,
    /// This member decides when leases end: the term in which it does.
    lessor_term: Option<u64>,
    /// Since when it does.
    led_since: Duration,
    compactor: Compactor,
    space: Space,
    outbox: Vec<Output>,
    /// Something was applied or pruned that readers have not been shown.
    unpublished: bool,
    stopping: Option<Duration>,
    stopped: watch::Sender<Option<Arc<str>>>,
    checkpoint: Checkpointing,
    fsync_seconds: Histogram,
    batch_entries: Histogram,
    last_tick: Duration,
    last_raft_tick: Duration,
    last_health: Duration,
    /// Last ticket of each batch that is at the log, and since when.
    write_since: VecDeque<(u64, Duration)>,
    last_ticket: u64,
    last_durable: Duration,
    /// The record of this run is durable: proposals may be numbered.
    run_is_durable: bool,
    incoming: Option<Incoming>,
    installing: Option<(u64, State)>,
    disk: DiskWatch,
    reports: HashMap<u64, Report>,
    policy: Policy,
    leader: watch::Sender<LeaderView>,
    no_leader_since: Option<Duration>,
    leader_changes: u64,
    last_move: Option<LeaderMove>,
}

impl Driver {
    /// Goes on after recovery: applies what is known to be committed and shows it. `seed` scatters election timeouts.
    pub(crate) fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        mut recovered: Recovered,
        published: Arc<Published>,
        seed: u64,
    ) -> Result<Self, OpenError> {
        let now = clock.monotonic();
        let member = Member::new(&mut recovered, seed, &config)
            .map_err(|source| OpenError::Consensus { detail: source.to_string().into() })?;
        let compactor = Compactor::new(&config, recovered.state.revision, now);
        let mut driver = Self {
            identity: recovered.identity,
            proposals: Proposals::new(recovered.identity.member, member.run()),
            reads: Reads::new(recovered.identity.member, member.run()),
            checkpoint: Checkpointing::new(&recovered, now),
            machine: Machine::new(recovered.state),
            config,
            clock,
            published,
            member,
            lessor: Lessor::default(),
            lessor_term: None,
            led_since: now,
            compactor,
            space: Space::default(),
            outbox: vec![Output::HoldReserve],
            unpublished: true,
            stopping: None,
            stopped: watch::Sender::new(None),
            fsync_seconds: Histogram::seconds(),
            batch_entries: Histogram::entries(),
            last_tick: now,
            last_raft_tick: now,
            last_health: now,
            write_since: VecDeque::new(),
            last_ticket: 0,
            last_durable: now,
            run_is_durable: false,
            incoming: None,
            installing: None,
            disk: DiskWatch::default(),
            reports: HashMap::new(),
            policy: Policy::default(),
            leader: watch::Sender::new(LeaderView::default()),
            no_leader_since: Some(now),
            leader_changes: 0,
            last_move: None,
        };
        driver.begin();
        Ok(driver)
    }

    fn begin(&mut self) {
        if self.machine.state().cluster.is_removed(self.identity.member) {
            self.removed();
        }
        self.outbox.push(Output::Members(self.machine.state().cluster.list()));
        // Makes the number of this run durable.
        self.append(self.member.probe());
        self.take_effects();
        if self.machine.state().cluster.is_sole_voter(self.identity.member) {
            self.member.campaign();
        }
        self.take_effects();
        while self.machine.clean_up(usize::MAX) {}
        self.publish();
    }

    /// Breaks a rule, as a negative control of the simulation.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.member.set_rules(rules);
    }

    /// Tells why the store stopped writing, once it has.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.stopped.subscribe()
    }

    /// Tells who leads.
    pub(crate) fn leader(&self) -> watch::Receiver<LeaderView> {
        self.leader.subscribe()
    }

    /// Takes one message. Call [`Self::flush`] once the messages at hand are taken.
    pub(crate) fn handle(&mut self, message: Message) {
        match message {
            Message::Propose { command, body, permit, reply } => self.take_proposal(command, body, permit, reply),
            Message::Read { reply } => self.take_read(reply),
            Message::KeepAlive { id, reply } => self.ask_leader(AskReply::KeepAlive { id, reply }),
            Message::TimeToLive { id, reply } => self.ask_leader(AskReply::TimeToLive { id, reply }),
            Message::Transfer { to, reply } => self.ask_leader(AskReply::Transfer { to, reply }),
            Message::Status { reply } => answer(reply, Ok(self.status())),
            Message::Frame { from, frame, weight } => {
                drop(weight);
                self.take_frame(from, frame);
            }
            Message::Snapshot(incoming) => self.take_snapshot(incoming),
            Message::SnapshotSent { to, ok } => self.member.report_snapshot(to, ok),
            Message::Unreachable { id } => self.member.report_unreachable(id),
            Message::Ended { id } => self.member.process_ended(id),
            Message::Log(report) => self.log_report(report),
            Message::Checkpoint(report) => self.checkpoint_report(report),
            Message::Tick { reply } => {
                self.tick();
                if let Some(reply) = reply {
                    // Whoever asked for the tick may have gone.
                    reply.send(()).ok();
                }
            }
            Message::Stop => self.begin_to_stop(),
        }
    }

    /// Carries on as far as it goes without the outside, shows readers what was applied, answers, and returns what is to be
    /// done.
    pub(crate) fn flush(&mut self) -> Vec<Output> {
        if self.stopped_reason().is_none() {
            self.send_proposals();
            self.begin_reads();
            self.take_effects();
        }
        if self.machine.has_garbage() {
            self.machine.clean_up(CLEAN_UP_EVENTS);
            self.unpublished = true;
            self.publish();
        }
        self.plan_checkpoint();
        std::mem::take(&mut self.outbox)
    }

    /// Steps consensus until it wants nothing more of this member.
    fn take_effects(&mut self) {
        let mut answers = Vec::new();
        while self.stopped_reason().is_none()
            && let Some(effects) = self.member.take_effects()
        {
            if let Some((ticket, index)) = effects.snapshot {
                self.install(ticket, index);
            }
            if let Some(batch) = effects.batch {
                self.append(batch);
            }
            self.send_messages(effects.messages);
            self.reads.confirm(effects.reads);
            self.apply(effects.committed, &mut answers);
            self.note_leader();
            self.answer_reads();
            self.send_proposals();
        }
        self.publish();
        for (reply, outcome) in answers {
            answer(reply, outcome);
        }
        self.release_reads();
    }

    fn append(&mut self, batch: Batch) {
        let now = self.clock.monotonic();
        self.last_ticket = self.last_ticket.max(batch.ticket);
        self.write_since.push_back((batch.ticket, now));
        self.outbox.push(Output::Append(batch));
    }

    fn send(&mut self, to: u64, frame: &Frame) {
        let route = Route { cluster: self.identity.cluster, from: self.identity.member, to };
        self.outbox.push(Output::Send { to, frame: encode_frame(route, frame) });
    }

    fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            let state = self.machine.state().clone();
            let alone = state.cluster.is_sole_voter(self.identity.member);
            self.published.publish(state, alone);
        }
    }

    /// The write path is dead. Reads and watches go on, of what was acknowledged.
    fn stop(&mut self, reason: &Arc<str>) {
        tracing::error!(%reason, "the store can't write any more");
        self.stopped.send_replace(Some(Arc::clone(reason)));
        self.write_since.clear();
        self.leader.send_replace(LeaderView { leader: 0, term: self.member.term() });
        let error = KvError::Stopped { reason: Arc::clone(reason) };
        self.proposals.fail_all(&error);
        self.reads.fail_all(&error);
    }

    fn stopped_reason(&self) -> Option<Arc<str>> {
        self.stopped.borrow().clone()
    }
}

/// Whoever asked may have gone: then nobody wants the answer.
fn answer<T>(reply: Reply<T>, value: Result<T, KvError>) {
    reply.send(value).ok();
}

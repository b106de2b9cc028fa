//! The world: simulated time, the events in it, and what passes between members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, ManualClock, Rng, SeededRng};
use bytes::Bytes;

use super::clients::Clients;
use super::faults::Faults;
use super::node::Node;
use super::oracle::Oracle;
use super::rot;
use super::watcher::Watcher;
use super::{Broken, Figures};
use crate::checkpoint::{remove_if_there, write_checkpoint};
use crate::cluster::{frame_for, receive};
use crate::config::Config;
use crate::driver::{CheckpointReport, Message, Output, RAFT_TICK};
use crate::log_worker::LogRequest;

/// What a checkpoint takes at least.
const CHECKPOINT_MIN: Duration = Duration::from_millis(20);

/// What happens at a time.
pub(super) enum Event {
    Tick {
        node: u64,
        life: u64,
    },
    Frame {
        to: u64,
        from: u64,
        frame: Bytes,
    },
    Snapshot {
        to: u64,
        from: u64,
        /// The sender's.
        life: u64,
        header: Bytes,
        body: Vec<u8>,
    },
    Written {
        node: u64,
        life: u64,
    },
    Checkpoint {
        node: u64,
        life: u64,
    },
    Start {
        node: u64,
    },
    /// A member's network supposes that the process of another has ended.
    /// A member is told that messages to another one were lost.
    Unreachable {
        to: u64,
        id: u64,
    },
    Hint {
        to: u64,
        ended: u64,
    },
    DiskHeals {
        node: u64,
    },
    Fault,
}

pub(super) struct World {
    clock: Arc<ManualClock>,
    events: BTreeMap<(Duration, u64), Event>,
    numbered: u64,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) clients: Clients,
    pub(super) faults: Faults,
    pub(super) oracle: Oracle,
    pub(super) figures: Figures,
    watchers: Vec<Watcher>,
    pub(super) broken: Broken,
    /// How many entries may wait for a disk.
    waiting_max: u64,
    /// What a checkpoint takes, at most.
    pub(super) checkpoint_max: Duration,
    /// Members take several messages in one turn now and then.
    pub(super) are_busy: bool,
    pace: SeededRng,
    seed: u64,
    founders: Vec<u64>,
    /// Who leads or led last, and in which term.
    last_leader: (u64, u64),
    /// Since when.
    pub(super) led_since: Duration,
}

impl World {
    pub(super) fn new(seed: u64, members: u64, broken: Broken) -> Self {
        let waiting_max = Config::default().log_entries_waiting_max;
        let founders: Vec<u64> = (1..=members).collect();
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let mut world = Self {
            events: BTreeMap::new(),
            numbered: 0,
            nodes: founders.iter().map(|id| (*id, Node::new(*id, &founders, (waiting_max, broken), &clock))).collect(),
            clients: Clients::new(seed),
            faults: Faults::new(seed),
            oracle: Oracle::default(),
            figures: Figures::default(),
            watchers: (0..3).map(|_| Watcher::new()).collect(),
            broken,
            waiting_max,
            checkpoint_max: CHECKPOINT_MIN,
            are_busy: false,
            pace: SeededRng::new(seed ^ 0xbace),
            seed,
            founders,
            last_leader: (0, 0),
            led_since: Duration::ZERO,
            clock,
        };
        for id in world.founders.clone() {
            world.schedule(Duration::ZERO, Event::Start { node: id });
        }
        world.schedule(Duration::from_secs(1), Event::Fault);
        world
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn schedule(&mut self, after: Duration, event: Event) {
        self.numbered += 1;
        self.events.insert((self.now() + after, self.numbered), event);
    }

    /// Lets so much time pass.
    pub(super) fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now() + time;
        while let Some(entry) = self.events.first_entry() {
            let at = entry.key().0;
            if at > end {
                break;
            }
            let event = entry.remove();
            self.clock.advance(at.saturating_sub(self.now()));
            self.happen(event).map_err(|error| format!("at {:?}: {error}; {}", self.now(), self.describe()))?;
        }
        self.clock.advance(end.saturating_sub(self.now()));
        Ok(())
    }

    /// Where everybody stands, for a report.
    pub(super) fn describe(&mut self) -> String {
        let mut text = String::new();
        for (id, node) in &mut self.nodes {
            let Some(running) = node.running.as_mut() else { continue };
            let (reply, mut answer) = tokio::sync::oneshot::channel();
            running.driver.handle(Message::Status { reply });
            if let Ok(Ok(status)) = answer.try_recv() {
                let positions =
                    (status.persisted_index, status.applied_index, status.committed_index, status.last_index);
                text.push_str(&format!("[{id}: leader {} term {} {positions:?}] ", status.leader, status.term));
            }
        }
        text
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Start { node } => self.start(node),
            Event::Unreachable { to, id } => self.deliver(to, Message::Unreachable { id }),
            Event::Hint { to, ended } => self.deliver(to, Message::Ended { id: ended }),
            Event::Tick { node, life } => self.tick(node, life),
            Event::Frame { to, from, frame } => {
                match self.nodes.get(&to).and_then(|n| frame_for(n.identity(), from, &frame)) {
                    Some(frame) => self.deliver(to, Message::Frame { from, frame, weight: None }),
                    None => Ok(()),
                }
            }
            Event::Snapshot { to, from, life, header, body } => self.snapshot(to, (from, life), &header, &body),
            Event::Written { node, life } => self.written(node, life),
            Event::Checkpoint { node, life } => self.checkpoint(node, life),
            Event::DiskHeals { node } => {
                self.heal_disk(node);
                Ok(())
            }
            Event::Fault => self.next_fault(),
        }
    }

    fn start(&mut self, id: u64) -> Result<(), String> {
        let (now, seed) = (self.now(), self.seed);
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.running.is_none() && !node.is_gone) else {
            return Ok(());
        };
        if node.sync == Duration::MAX || node.disk.fails_syncs() {
            // Not from a disk that does not answer, or fails.
            self.schedule(Duration::from_millis(500), Event::Start { node: id });
            return Ok(());
        }
        node.start(seed ^ node.life)?;
        if node.is_ruined {
            self.figures.ruined += 1;
            return Ok(());
        }
        node.paused_until = now;
        let life = node.life;
        self.schedule(RAFT_TICK, Event::Tick { node: id, life });
        self.pump(id)
    }

    fn tick(&mut self, id: u64, life: u64) -> Result<(), String> {
        let now = self.now();
        let Some(node) = self.nodes.get(&id).filter(|node| node.life == life && node.running.is_some()) else {
            return Ok(());
        };
        if node.paused_until > now {
            let rest = node.paused_until - now;
            self.schedule(rest, Event::Tick { node: id, life });
            return Ok(());
        }
        self.schedule(RAFT_TICK / 2, Event::Tick { node: id, life });
        self.connect();
        for message in self.clients.requests(id, now) {
            self.tell(id, message);
        }
        let is_due = self.nodes.get(&id).and_then(|n| n.running.as_ref()).is_some_and(|r| r.driver.is_tick_due());
        if is_due { self.deliver(id, Message::Tick { reply: None }) } else { self.pump(id) }
    }

    fn connect(&mut self) {
        let up = self.nodes.values().filter(|node| node.running.as_ref().is_some_and(|r| r.seen_index > 0));
        let up: Vec<u64> = up.map(|node| node.id).collect();
        self.clients.connect(&up);
    }

    /// Hands a message to a member that is up; to a process that is stopped, not.
    pub(super) fn tell(&mut self, id: u64, message: Message) {
        let now = self.now();
        let node = self.nodes.get_mut(&id).filter(|node| node.paused_until <= now);
        if let Some(running) = node.and_then(|node| node.running.as_mut()) {
            running.driver.handle(message);
        }
    }

    fn deliver(&mut self, id: u64, message: Message) -> Result<(), String> {
        self.tell(id, message);
        self.pump(id)
    }

    /// Carries out what a member wants, and looks at what it shows. One that is busy does so later.
    fn pump(&mut self, id: u64) -> Result<(), String> {
        if self.are_busy && self.pace.below(3) == 0 {
            return Ok(());
        }
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.paused_until <= now) else { return Ok(()) };
        let Some(running) = node.running.as_mut() else { return Ok(()) };
        let outputs = running.driver.flush();
        for output in outputs {
            self.carry_out(id, output);
        }
        self.begin_write(id);
        self.observe(id)
    }

    fn carry_out(&mut self, id: u64, output: Output) {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let life = node.life;
        let Some(running) = node.running.as_mut() else { return };
        match output {
            Output::Append(batch) => running.queue.push_back(LogRequest::Append(batch)),
            Output::Install { file, index } => running.queue.push_back(LogRequest::Install { file, index }),
            Output::RestartLog => {
                self.figures.returns += 1;
                running.queue.push_back(LogRequest::Restart);
            }
            Output::HoldReserve => running.queue.push_back(LogRequest::HoldReserve),
            Output::ReleaseReserve => running.queue.push_back(LogRequest::ReleaseReserve),
            Output::Discard { file } => remove_if_there(&node.disk, &file),
            Output::Checkpoint(job) => {
                running.checkpoint = Some(job);
                let more = self.checkpoint_max.saturating_sub(CHECKPOINT_MIN).as_millis() as u64;
                let more = Duration::from_millis(self.pace.below(more + 1));
                self.schedule(CHECKPOINT_MIN + more, Event::Checkpoint { node: id, life });
            }
            Output::Send { to, frame } => {
                for delay in self.faults.arrivals(id, to, now) {
                    self.schedule(delay, Event::Frame { to, from: id, frame: frame.clone() });
                }
            }
            Output::SendSnapshot { to, snapshot } => {
                let mut body = Vec::new();
                let arrival = self.faults.arrivals(id, to, now).first().copied();
                if snapshot.write_to(&mut body).is_ok()
                    && let Some(delay) = arrival
                {
                    let (from, header) = (id, snapshot.header);
                    if self.faults.is_lossy() {
                        rot::spoil(&mut body, &mut self.faults.rng);
                    }
                    self.schedule(delay * 20, Event::Snapshot { to, from, life, header, body });
                } else {
                    self.tell(id, Message::SnapshotSent { to, ok: false });
                }
            }
            Output::Members(_) => {}
        }
    }

    /// The log takes all that waits, of a member that is busy perhaps not, and is done after a sync.
    fn begin_write(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (sync, life) = (node.sync, node.life);
        let Some(running) = node.running.as_mut() else { return };
        if running.writing.is_some() || running.queue.is_empty() {
            return;
        }
        let all = running.queue.len();
        let some = if self.are_busy { 1 + self.pace.below(all as u64) as usize } else { all };
        running.writing = Some(running.queue.drain(..some).collect());
        if sync != Duration::MAX {
            self.schedule(sync, Event::Written { node: id, life });
        }
    }

    fn written(&mut self, id: u64, life: u64) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.life == life) else { return Ok(()) };
        let Some(running) = node.running.as_mut() else { return Ok(()) };
        let Some(writing) = running.writing.take() else { return Ok(()) };
        let mut reports = Vec::new();
        running.log.run(writing, &mut |report| reports.push(report));
        for report in reports {
            running.driver.handle(Message::Log(report));
        }
        self.pump(id)
    }

    /// What a process tells itself: it is there when the process goes on, however long that was stopped.
    fn report(&mut self, (id, life): (u64, u64), message: Message) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).filter(|node| node.life == life);
        if let Some(running) = node.and_then(|node| node.running.as_mut()) {
            running.driver.handle(message);
        }
        self.pump(id)
    }

    fn checkpoint(&mut self, id: u64, life: u64) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.life == life) else { return Ok(()) };
        let identity = node.identity();
        let Some(running) = node.running.as_mut() else { return Ok(()) };
        let Some(job) = running.checkpoint.take() else { return Ok(()) };
        let report = match write_checkpoint(&node.disk, identity, &job) {
            Ok(bytes) => CheckpointReport::Written { index: job.state.index, bytes, took: Duration::ZERO },
            Err(error) => CheckpointReport::Failed { reason: error.to_string() },
        };
        self.report((id, life), Message::Checkpoint(report))
    }

    fn snapshot(&mut self, to: u64, (from, life): (u64, u64), header: &[u8], mut body: &[u8]) -> Result<(), String> {
        let now = self.now();
        let node = self.nodes.get_mut(&to).filter(|node| node.paused_until <= now && node.sync != Duration::MAX);
        let mut ok = false;
        if let Some(node) = node {
            let identity = node.identity();
            let Some(running) = node.running.as_mut() else {
                return self.report((from, life), Message::SnapshotSent { to, ok });
            };
            running.snapshots += 1;
            if let Ok(incoming) = receive(&node.disk, (identity, from), running.snapshots, header, &mut body) {
                ok = true;
                self.figures.snapshots += 1;
                self.deliver(to, Message::Snapshot(incoming))?;
            }
        }
        self.report((from, life), Message::SnapshotSent { to, ok })
    }

    /// What a member shows to its clients.
    fn observe(&mut self, id: u64) -> Result<(), String> {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(running) = node.running.as_mut() else { return Ok(()) };
        let state = running.published.state.load_full();
        if state.index > running.seen_index {
            self.oracle.state(now, id, running.seen_revision, &state)?;
            (running.seen_revision, running.seen_index) = (state.revision, state.index);
        }
        let view = *running.driver.leader().borrow();
        if view.leader == id {
            self.oracle.leads(id, view.term)?;
            self.figures.leaders += u64::from(self.last_leader.0 != id);
            if self.last_leader != (id, view.term) {
                (self.last_leader, self.led_since) = ((id, view.term), now);
            }
        }
        running.leader = view.leader;
        let stopped = running.driver.stopped().borrow().clone();
        let removed = state.cluster.is_removed(id) || stopped.as_ref().is_some_and(|why| why.contains("was removed"));
        if removed && stopped.is_some() {
            node.is_gone = true;
        }
        self.clients.collect(id, running, now, (&mut self.oracle, &mut self.figures))?;
        if stopped.is_some() {
            let again = Duration::from_millis(300);
            self.crash(id, again);
        }
        self.watch(id)
    }

    fn watch(&mut self, id: u64) -> Result<(), String> {
        let Some(running) = self.nodes.get(&id).and_then(|node| node.running.as_ref()) else { return Ok(()) };
        for watcher in &mut self.watchers {
            watcher.connect(id, running);
            if watcher.member == id && self.broken != Broken::WatchesSilent {
                self.figures.watched += watcher.look(&self.oracle)?;
            }
            if watcher.member == id {
                watcher.check_complete(&self.oracle, running.seen_revision)?;
            }
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, id: u64, down: Duration) {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.running.is_none() {
            return;
        }
        node.crash(&mut self.faults.rng);
        self.figures.crashes += 1;
        self.clients.disconnect(id, now, &mut self.figures);
        for watcher in self.watchers.iter_mut().filter(|watcher| watcher.member == id) {
            watcher.disconnect();
        }
        self.schedule(down, Event::Start { node: id });
        self.hint_that_it_ended(id);
    }

    /// Broken connections tell most of the others soon.
    fn hint_that_it_ended(&mut self, id: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        for to in others {
            if !self.faults.arrivals(id, to, self.now()).is_empty() {
                let after = Duration::from_millis(50 + self.faults.rng.below(25));
                self.schedule(after, Event::Hint { to, ended: id });
            }
        }
    }

    /// Who leads, as far as is known.
    pub(super) fn leader(&self) -> u64 {
        self.last_leader.0
    }

    /// So many entries may wait for a disk, by seed; if they are few, members leave their logs.
    pub(super) fn bound_waiting(&mut self, choices: [u64; 3]) {
        self.waiting_max = choices[(self.seed % 3) as usize];
        self.nodes.values_mut().for_each(|node| node.bound_waiting(self.waiting_max));
    }

    /// From now on a sync of this disk takes so long. What a disk that was stuck is writing comes to its end, if it is no longer.
    pub(super) fn slow_down(&mut self, id: u64, sync: Duration) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let was_stuck = std::mem::replace(&mut node.sync, sync) == Duration::MAX;
        let life = node.life;
        if was_stuck && sync != Duration::MAX && node.running.as_ref().is_some_and(|running| running.writing.is_some())
        {
            self.schedule(sync, Event::Written { node: id, life });
        }
    }

    pub(super) fn heal_disk(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.disk.set_capacity(None);
            node.disk.fail_syncs(false);
        }
        self.slow_down(id, Duration::from_millis(1));
    }

    pub(super) fn add_node(&mut self, id: u64) {
        self.nodes.insert(id, Node::new(id, &self.founders, (self.waiting_max, self.broken), &self.clock));
        self.figures.changes += 1;
        self.schedule(Duration::from_millis(100), Event::Start { node: id });
    }

    pub(super) fn expect_speed(&mut self, limit: Option<Duration>) {
        let now = self.now();
        self.clients.expect_speed(now, limit);
    }
}

//! Crash tests: a store that runs on one thread, from a seed, on a simulated disk that loses power again and again.
//!
//! Oracle: after every recovery the state equals that of a prefix of the entries that were given to the log, applied to a
//! fresh state machine, and the prefix contains every acknowledged one. The negative control runs the same with syncs that do
//! nothing and must be caught.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{ManualClock, Rng, SeededRng};
use bytes::Bytes;
use jiff::Timestamp;
use raft::eraftpb::Entry;
use tokio::sync::oneshot;

use crate::checkpoint::{Job, write_checkpoint};
use crate::command::Command;
use crate::config::Config;
use crate::disk::Disk;
use crate::driver::{CheckpointReport, Driver, LogReport, Message, Output};
use crate::error::KvError;
use crate::frame::Identity;
use crate::kv::{Compare, Delete, Op, Put, Txn};
use crate::log_worker::{LogRequest, LogWorker};
use crate::machine::{Machine, Outcome};
use crate::member::command_of;
use crate::mvcc::State;
use crate::peer::MemberInfo;
use crate::proposal::ProposalId;
use crate::record::{Batch, encode_command};
use crate::recovery::{Recovered, recover};
use crate::sim_disk::SimDisk;
use crate::wal::Wal;
use crate::watchers::Published;

const ME: Identity = Identity { cluster: 7, member: 1 };

/// What must be true, across lives.
#[derive(Default)]
struct Oracle {
    /// Entries at index 2, 3, ... as they were given to the log.
    given: Vec<Entry>,
    /// Newest revision that a client was told.
    acknowledged: i64,
    acknowledgements: u64,
    refusals: u64,
}

impl Oracle {
    fn check(&mut self, recovered: &Recovered) -> Result<(), String> {
        let committed = recovered.entries.iter().filter(|entry| entry.index <= recovered.vitals.commit);
        let found = execute(recovered.state.clone(), committed);
        let state = found.state();
        let len = usize::try_from(state.index - 1).unwrap();
        if len > self.given.len() {
            return Err(format!("recovered {len} entries of {}", self.given.len()));
        }
        // What was given to the log and not acknowledged may be lost.
        self.given.truncate(len);
        let model = execute(State::founded(&[MemberInfo { id: ME.member, ..MemberInfo::default() }]), &self.given);
        if state.revision < self.acknowledged {
            return Err(format!("revision {} was acknowledged, {} recovered", self.acknowledged, state.revision));
        }
        same(state, model.state())
    }
}

fn execute<'a>(state: State, entries: impl IntoIterator<Item = &'a Entry>) -> Machine {
    let mut machine = Machine::new(state);
    for entry in entries {
        let id = ProposalId::decode(&entry.context).ok();
        machine.apply((entry.index, entry.term), id.as_ref(), &command_of(entry).unwrap().0);
    }
    while machine.clean_up(usize::MAX) {}
    machine
}

fn same(found: &State, expected: &State) -> Result<(), String> {
    let figures = |s: &State| (s.revision, s.compact_revision, s.live_keys, s.live_bytes, s.total_bytes);
    if figures(found) != figures(expected) {
        return Err(format!("figures {:?}, expected {:?}", figures(found), figures(expected)));
    }
    if found.cluster != expected.cluster {
        return Err("members or sessions differ".into());
    }
    if found.policy != expected.policy {
        return Err("policies differ".into());
    }
    if found.leases != expected.leases {
        return Err("leases differ".into());
    }
    for revision in found.compact_revision.max(1)..=found.revision {
        let at = |state: &State| {
            let mut all = Vec::new();
            state.each_at(revision, |kv| all.push(Arc::clone(kv)));
            all
        };
        // Whole maps of some revisions, the events of all.
        if (found.revision - revision) % 7 == 0 && at(found) != at(expected) {
            return Err(format!("keys at revision {revision} differ"));
        }
        let events = |state: &State| {
            state.events_of(revision).map(|e| e.iter().map(|e| (e.kind, Arc::clone(&e.kv))).collect::<Vec<_>>())
        };
        if events(found) != events(expected) {
            return Err(format!("events of revision {revision} differ: {:?} {:?}", events(found), events(expected)));
        }
    }
    Ok(())
}

/// One life of a store, from recovery to the loss of power.
struct Life {
    disk: Arc<dyn Disk>,
    clock: Arc<ManualClock>,
    driver: Driver,
    log: LogWorker,
    queue: VecDeque<LogRequest>,
    checkpoint: Option<Job>,
    replies: Vec<oneshot::Receiver<Result<Outcome, KvError>>>,
    broken: bool,
}

impl Life {
    fn begin(disk: &SimDisk, config: &Config, oracle: &mut Oracle) -> Result<Self, String> {
        let sim: Arc<dyn Disk> = Arc::new(disk.clone());
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let mut recovered = recover(&sim, config, ME).map_err(|error| error.to_string())?;
        oracle.check(&recovered)?;
        let wal = Wal::new(Arc::clone(&sim), ME, config.segment_bytes, std::mem::take(&mut recovered.log_end));
        let log = LogWorker::new(wal, Arc::clone(&sim), clock.clone(), config.reserve_bytes);
        let published = Published::new(recovered.state.clone());
        let driver = Driver::new(config.clone(), clock.clone(), recovered, published, 1).unwrap();
        let (queue, replies) = (VecDeque::new(), Vec::new());
        Ok(Self { disk: sim, clock, driver, log, queue, checkpoint: None, replies, broken: false })
    }

    fn step(&mut self, rng: &mut dyn Rng, oracle: &mut Oracle) {
        match rng.below(10) {
            0..=4 => self.propose(random_command(rng)),
            5..=7 => self.run_log(rng.below(4) as usize + 1),
            8 => self.run_checkpoint(),
            _ => {
                self.clock.advance(Duration::from_millis(700));
                self.driver.handle(Message::Tick { reply: None });
            }
        }
        for output in self.driver.flush() {
            match output {
                Output::Append(batch) => {
                    note(&batch, oracle);
                    self.queue.push_back(LogRequest::Append(batch));
                }
                Output::HoldReserve => self.queue.push_back(LogRequest::HoldReserve),
                Output::ReleaseReserve => self.queue.push_back(LogRequest::ReleaseReserve),
                Output::Checkpoint(job) => self.checkpoint = Some(job),
                Output::Members(_) => {}
                other => panic!("a member that is alone wants {other:?}"),
            }
        }
        self.collect(oracle);
    }

    fn propose(&mut self, command: Command) {
        let (reply, answer) = oneshot::channel();
        let body = encode_command(&command).into();
        self.driver.handle(Message::Propose { command, body, permit: None, reply });
        self.replies.push(answer);
    }

    fn run_log(&mut self, requests: usize) {
        let requests = self.queue.drain(..requests.min(self.queue.len())).collect();
        let mut reports = Vec::new();
        self.log.run(requests, &mut |report| reports.push(report));
        for report in reports {
            self.broken |= matches!(report, LogReport::Broken { .. });
            self.driver.handle(Message::Log(report));
        }
    }

    fn run_checkpoint(&mut self) {
        let Some(job) = self.checkpoint.take() else { return };
        let report = match write_checkpoint(self.disk.as_ref(), ME, &job) {
            Ok(bytes) => CheckpointReport::Written { index: job.state.index, bytes, took: Duration::ZERO },
            Err(error) => CheckpointReport::Failed { reason: error.to_string() },
        };
        self.driver.handle(Message::Checkpoint(report));
    }

    fn collect(&mut self, oracle: &mut Oracle) {
        self.replies.retain_mut(|reply| match reply.try_recv() {
            Ok(answer) => {
                if let Ok(Outcome::Txn(response)) = &answer {
                    oracle.acknowledged = oracle.acknowledged.max(response.revision);
                    oracle.acknowledgements += 1;
                }
                oracle.refusals += u64::from(matches!(answer, Err(KvError::NoSpace { .. })));
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
    }
}

/// Notes the entries of a batch.
fn note(batch: &Batch, oracle: &mut Oracle) {
    for entry in &batch.entries {
        assert_eq!(entry.index, oracle.given.len() as u64 + 2);
        oracle.given.push(entry.clone());
    }
}

fn random_command(rng: &mut dyn Rng) -> Command {
    let key = |rng: &mut dyn Rng| Bytes::from(format!("key-{}", rng.below(24)));
    let put = |rng: &mut dyn Rng| {
        let value = vec![b'v'; rng.below(900) as usize];
        Op::Put(Put { key: key(rng), value: value.into(), lease: 0, ..Put::default() })
    };
    match rng.below(20) {
        0 => Command::Compact { revision: rng.below(600) as i64 },
        1 => Command::LeaseGrant { id: rng.below(5) as i64, ttl_seconds: 1 + rng.below(3) as i64 },
        2 => {
            let op = Op::Put(Put {
                key: key(rng),
                value: "leased".into(),
                lease: 1 + rng.below(5) as i64,
                ..Put::default()
            });
            Command::Txn(Txn::of(op))
        }
        3..=5 => Command::Txn(Txn::of(Op::Delete(Delete { key: key(rng), end: Some("key-5".into()), prev_kv: false }))),
        6 => {
            let compares = vec![Compare::mod_revision_is(key(rng), 0)];
            Command::Txn(Txn { compares, success: vec![put(rng)], failure: vec![] })
        }
        7 => Command::Policy(vec![(key(rng), (rng.below(2) == 0).then(|| "rule".into()))]),
        8 => Command::Judged { by: rng.below(30), command: Box::new(Command::Txn(Txn::of(put(rng)))) },
        _ => Command::Txn(Txn::of(put(rng))),
    }
}

fn config() -> Config {
    // Small enough that every few lives see a new segment and a checkpoint.
    Config { segment_bytes: 6000, checkpoint_log_bytes: 9000, reserve_bytes: 2000, ..Config::default() }
}

/// Runs `lives` lives from `seed`; `Err` is what the oracle found.
fn run(seed: u64, lives: u32, disk: &SimDisk) -> Result<Oracle, String> {
    let mut rng = SeededRng::new(seed);
    let mut oracle = Oracle::default();
    for _ in 0..lives {
        // The power may also go while recovery works.
        disk.crash_at(disk.operations() + 1 + rng.below(120));
        let mut life = match Life::begin(disk, &config(), &mut oracle) {
            Ok(life) => life,
            Err(_) if disk.has_crashed() => {
                disk.crash(&mut rng);
                continue;
            }
            Err(error) => return Err(error),
        };
        for _ in 0..2000 {
            life.step(&mut rng, &mut oracle);
            if life.broken {
                break;
            }
        }
        disk.crash(&mut rng);
    }
    let recovered = recover(&(Arc::new(disk.clone()) as Arc<dyn Disk>), &config(), ME).map_err(|e| e.to_string())?;
    oracle.check(&recovered)?;
    Ok(oracle)
}

#[test]
fn no_acknowledged_write_is_lost_in_hundreds_of_crashes() {
    let mut acknowledgements = 0;
    for seed in 0..12 {
        match run(seed, 30, &SimDisk::new()) {
            Ok(oracle) => acknowledgements += oracle.acknowledgements,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(acknowledgements > 3_000, "the test did too little: {acknowledgements}");
}

#[test]
fn the_same_test_fails_when_fsync_is_skipped() {
    let caught = (0..6).filter(|seed| {
        let disk = SimDisk::new();
        disk.ignore_syncs(true);
        run(*seed, 30, &disk).is_err()
    });
    assert_eq!(caught.count(), 6, "a disk that ignores fsync must be noticed");
}

#[test]
fn nothing_is_lost_when_the_disk_is_full_time_and_again() {
    let mut refusals = 0;
    for seed in 100..110 {
        let disk = SimDisk::new();
        disk.set_capacity(Some(30_000));
        match run(seed, 30, &disk) {
            Ok(oracle) => refusals += oracle.refusals,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(refusals > 100, "the disk was never full: {refusals}");
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let mut rng = SeededRng::new(5);
    let mut refused = 0;
    for seed in 0..60 {
        let disk = SimDisk::new();
        let mut oracle = run(seed % 6, 8, &disk).unwrap();
        let names = disk.list().unwrap();
        let name = &names[rng.below(names.len() as u64) as usize];
        let len = disk.content(name).unwrap().len() as u64;
        disk.flip_bit(name, rng.below(len.max(1)) as usize, rng.below(8) as u8);
        match recover(&(Arc::new(disk.clone()) as Arc<dyn Disk>), &config(), ME) {
            Err(_) => refused += 1,
            Ok(recovered) => {
                // Damage in the very last batch can't be told from a torn write: that batch alone may be missing.
                oracle.acknowledged = 0;
                oracle.check(&recovered).unwrap();
            }
        }
    }
    assert!(refused > 5, "{refused}");
}

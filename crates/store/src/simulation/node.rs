//! A member of the simulated cluster: its disk, and while it is up, its driver and log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base::{Clock, ManualClock, Rng};
use jiff::{SignedDuration, Timestamp};

use super::Broken;
use crate::checkpoint::Job;
use crate::config::Config;
use crate::disk::Disk;
use crate::driver::{Driver, LogReport};
use crate::error::OpenError;
use crate::frame::Identity;
use crate::log_worker::{LogRequest, LogWorker};
use crate::member::Rules;
use crate::peer::MemberInfo;
use crate::recovery::recover;
use crate::sim_disk::SimDisk;
use crate::wal::Wal;
use crate::watchers::Published;

pub(super) const CLUSTER: u64 = 77;

/// By how many parts in a million a machine's clock is too fast, by its number: as bad as quartz gets.
const DRIFT_PPM: [i64; 5] = [0, 200, -200, 500, -500];

/// A machine's clock: it counts from a start of its own at a pace of its own, and its wall clock is set at will.
pub(super) struct MachineClock {
    world: Arc<ManualClock>,
    ahead: Duration,
    drift_ppm: i64,
    wall_ahead_seconds: AtomicI64,
}

impl MachineClock {
    fn new(world: Arc<ManualClock>, id: u64) -> Arc<Self> {
        let drift_ppm = DRIFT_PPM[(id % DRIFT_PPM.len() as u64) as usize];
        let (ahead, wall_ahead_seconds) = (Duration::from_secs(977 * id), AtomicI64::new(0));
        Arc::new(Self { world, ahead, drift_ppm, wall_ahead_seconds })
    }

    pub(super) fn jump(&self, seconds: i64) {
        self.wall_ahead_seconds.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.wall_ahead_seconds.load(Ordering::Relaxed));
        self.world.now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        let nanos = u64::try_from(self.world.monotonic().as_nanos()).unwrap_or(u64::MAX);
        let drift = (nanos / 1_000_000).cast_signed() * self.drift_ppm;
        self.ahead + Duration::from_nanos(nanos.saturating_add_signed(drift))
    }
}

/// A machine with a disk and a clock.
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) clock: Arc<MachineClock>,
    pub(super) disk: SimDisk,
    pub(super) running: Option<Running>,
    /// What a sync takes; `Duration::MAX` = it never ends.
    pub(super) sync: Duration,
    /// Not scheduled until then: the process is stopped.
    pub(super) paused_until: Duration,
    /// Counts lives; events of an earlier one are void.
    pub(super) life: u64,
    /// It has been removed from the cluster and never comes back.
    pub(super) is_gone: bool,
    /// Its disk has been damaged: it may refuse to start.
    pub(super) is_rotten: bool,
    /// It has refused to, for ever.
    pub(super) is_ruined: bool,
    config: Config,
    broken: Broken,
}

/// A process.
pub(super) struct Running {
    pub(super) driver: Driver,
    pub(super) published: Arc<Published>,
    pub(super) log: LogWorker,
    pub(super) queue: VecDeque<LogRequest>,
    /// What the log is writing at the moment.
    pub(super) writing: Option<Vec<LogRequest>>,
    pub(super) checkpoint: Option<Job>,
    pub(super) seen_revision: i64,
    pub(super) seen_index: u64,
    pub(super) leader: u64,
    pub(super) snapshots: u64,
}

impl Node {
    pub(super) fn new(
        id: u64,
        founders: &[u64],
        (waiting_max, broken): (u64, Broken),
        world: &Arc<ManualClock>,
    ) -> Self {
        let info = |id: &u64| MemberInfo { id: *id, peer_urls: vec![format!("sim:{id}")], ..MemberInfo::default() };
        let config = Config {
            cluster_id: Some(CLUSTER),
            member_id: Some(id),
            joining: !founders.contains(&id),
            initial_members: founders.iter().map(info).collect(),
            segment_bytes: 10_000,
            checkpoint_log_bytes: 15_000,
            log_entries_kept: 30,
            log_entries_waiting_max: waiting_max,
            piece_bytes: 500,
            reserve_bytes: 20_000,
            ..Config::default()
        };
        let disk = SimDisk::new();
        disk.ignore_syncs(broken == Broken::SyncsIgnored);
        let (sync, paused_until) = (Duration::from_millis(1), Duration::ZERO);
        let clock = MachineClock::new(Arc::clone(world), id);
        Self {
            id,
            clock,
            disk,
            running: None,
            sync,
            paused_until,
            life: 0,
            is_gone: false,
            is_rotten: false,
            is_ruined: false,
            config,
            broken,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity { cluster: CLUSTER, member: self.id }
    }

    /// So many entries may wait for the disk, from its next start on.
    pub(super) fn bound_waiting(&mut self, entries: u64) {
        self.config.log_entries_waiting_max = entries;
    }

    /// `Ok` and not running: the disk is damaged, and that was noticed.
    pub(super) fn start(&mut self, seed: u64) -> Result<(), String> {
        let clock = &self.clock;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let mut recovered = match recover(&disk, &self.config, self.identity()) {
            Err(OpenError::Corrupt { .. } | OpenError::Gap { .. }) if self.is_rotten => {
                (self.is_ruined, self.is_gone) = (true, true);
                return Ok(());
            }
            recovered => recovered.map_err(|error| format!("member {} does not start: {error}", self.id))?,
        };
        let log_end = std::mem::take(&mut recovered.log_end);
        let wal = Wal::new(Arc::clone(&disk), self.identity(), self.config.segment_bytes, log_end);
        let log = LogWorker::new(wal, disk, clock.clone(), self.config.reserve_bytes);
        let published = Published::new(recovered.state.clone());
        let mut driver = Driver::new(self.config.clone(), clock.clone(), recovered, Arc::clone(&published), seed)
            .map_err(|error| format!("member {} does not start: {error}", self.id))?;
        driver.set_rules(Rules {
            apply_before_durable: self.broken != Broken::ApplicationWaits,
            hold_votes: self.broken != Broken::VotesNotHeld,
            hold_acknowledgements: self.broken != Broken::AcknowledgementsNotHeld,
            hold_unwritten: self.broken != Broken::UnwrittenNotHeld,
        });
        self.running = Some(Running {
            driver,
            published,
            log,
            queue: VecDeque::new(),
            writing: None,
            checkpoint: None,
            seen_revision: 0,
            seen_index: 0,
            leader: 0,
            snapshots: 0,
        });
        Ok(())
    }

    /// The power goes, perhaps in the middle of a write.
    pub(super) fn crash(&mut self, rng: &mut dyn Rng) {
        if let Some(mut running) = self.running.take()
            && let Some(writing) = running.writing.take()
        {
            self.disk.crash_at(self.disk.operations() + 1 + rng.below(4));
            // Nobody hears the reports any more.
            running.log.run(writing, &mut |_: LogReport| {});
        }
        self.disk.crash(rng);
        self.life += 1;
    }
}

//! A cluster on one thread, from a seed: members, disks, network, clients and their faults, in simulated time.
//!
//! ```text
//! faults, clients --> World (events in the order of their time) --> Driver, LogWorker, SimDisk of each member
//!                        |                                              |
//!                        +---- Oracle <---- answers, applied revisions, watches
//! ```
//!
//! A seed decides everything; the same seed does the same again. [`run`] throws all faults at a cluster and checks that it is
//! linearizable, loses nothing, keeps leases, delivers watches whole and comes back when the faults end. [`run_slow_disk`]
//! checks that one slow or stuck disk of three is not noticed, [`run_long_stuck_disk`] that neither is one that is stuck for long,
//! [`run_slow_return`] nor one that comes back slowly,
//! [`run_power_cuts`] and [`run_lone_voter`] that nothing depends on a disk that has not answered, [`run_killed_leaders`] that a killed leader is followed soon, [`run_false_hints`] that one that lives is not. There are negative controls ([`Broken`]) that they must catch.
//!
//! Reading order: `world`, `node`, `clients`, `watcher`, `faults`, `rot` (damage), `peace` (the end of a run), `oracle`.

mod clients;
mod faults;
mod node;
mod oracle;
mod peace;
mod rot;
mod watcher;
mod world;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::{Rng, SeededRng};

use clients::Purpose;
use world::{Event, World};

use crate::peer::MemberChange;

/// A rule that is broken on purpose: the oracles must find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// Disks forget what they have confirmed.
    SyncsIgnored,
    /// A member applies only what is on its own disk.
    ApplicationWaits,
    /// Votes leave before they are on the disk.
    VotesNotHeld,
    /// Entries are acknowledged before they are on the disk.
    AcknowledgementsNotHeld,
    /// What is not written because the log was left is acknowledged when the disk is back.
    UnwrittenNotHeld,
    /// Leases end before their time.
    LeasesCut,
    /// Leases are renewed that nobody wants.
    LeasesKept,
    /// Watches are told nothing.
    WatchesSilent,
    /// Damage on a disk comes with a checksum that fits it.
    DamageUnnoticed,
    /// No disk gets well when the faults end.
    DisksStayStuck,
}

/// What happened in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub writes: u64,
    pub reads: u64,
    pub unknown: u64,
    pub crashes: u64,
    pub snapshots: u64,
    /// Logs that begun anew because their disk had been too far behind.
    pub returns: u64,
    pub leaders: u64,
    pub changes: u64,
    pub watched: u64,
    /// Members that refused to start because of a damaged disk.
    pub ruined: u64,
}

/// All faults at once for some simulated seconds, then peace, in which everything must work again. `Err`: what an oracle found,
/// with the time.
pub fn run(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| with_all_faults(seed, broken, |_, _| {}))
}

/// The same, with members that are busy and checkpoints that take up to two seconds.
pub fn run_unevenly(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        with_all_faults(seed, broken, |world, rng| {
            world.checkpoint_max = Duration::from_millis([20, 200, 2000][rng.below(3) as usize]);
            world.are_busy = world.checkpoint_max < Duration::from_millis(100) || rng.below(2) == 0;
        })
    })
}

fn with_all_faults(
    seed: u64,
    broken: Broken,
    prepare: impl FnOnce(&mut World, &mut SeededRng),
) -> Result<Figures, String> {
    let mut rng = SeededRng::new(seed);
    let members = [1, 3, 3, 3, 5][rng.below(5) as usize];
    let mut world = World::new(seed, members, broken);
    world.bound_waiting([400_000, 40, 10]);
    prepare(&mut world, &mut rng);
    world.faults.enabled = true;
    world.run_for(Duration::from_secs(7))?;
    world.make_peace();
    world.settle(Duration::from_secs(20))?;
    world.finish()
}

/// Three members whose clients write and read without a pause. `waiting`: how many entries may wait for a disk, by seed.
fn in_steady_use(seed: u64, broken: Broken, waiting: [u64; 3]) -> Result<World, String> {
    let mut world = World::new(seed, 3, broken);
    world.bound_waiting(waiting);
    world.run_for(Duration::from_secs(2))?;
    world.clients.purpose = Purpose::Steady;
    world.run_for(Duration::from_secs(1))?;
    Ok(world)
}

/// Three members, and the disk of one takes 800 ms, 5 s, or for ever. After a second nobody may notice, and leadership does
/// not move again. `Err`: what an oracle found.
pub fn run_slow_disk(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        let mut world = in_steady_use(seed, broken, [400_000, 200, 80])?;
        let slow = 1 + seed % 3;
        let delay = [Duration::from_millis(800), Duration::from_secs(5), Duration::MAX][(seed / 3 % 3) as usize];
        world.slow_down(slow, delay);
        world.run_for(Duration::from_millis(1000))?;
        world.expect_speed(Some(Duration::from_millis(60)));
        let leaders = world.figures.leaders;
        world.run_for(Duration::from_secs(8))?;
        world.expect_speed(None);
        if world.figures.leaders != leaders {
            return Err(format!("leadership moved {} times more", world.figures.leaders - leaders));
        }
        world.make_peace();
        world.settle(Duration::from_secs(12))?;
        world.finish()
    })
}

/// Of three members the one that is neither of these is lost: writes go on, and there is peace.
fn ends_without_another(mut world: World, others: [u64; 2]) -> Result<Figures, String> {
    let lost = (1..=3).find(|id| !others.contains(id)).unwrap_or(others[1]);
    world.crash(lost, Duration::from_secs(4));
    world.run_for(Duration::from_secs(1))?;
    world.expect_speed(Some(Duration::from_millis(60)));
    world.run_for(Duration::from_secs(2))?;
    world.expect_speed(None);
    world.make_peace();
    world.settle(Duration::from_secs(12))?;
    world.finish()
}

/// Three members, and the disk of one is stuck for so long that its log is left behind, while the leader is told now and then that
/// messages to it were lost. Nobody may notice, and when the disk is back, that member must be as good as any: another
/// one is lost, and writes go on. `Err`: what an oracle found.
pub fn run_long_stuck_disk(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        let mut world = in_steady_use(seed, broken, [200, 120, 80])?;
        let stuck = 1 + seed % 3;
        world.slow_down(stuck, Duration::MAX);
        world.run_for(Duration::from_secs(1))?;
        world.expect_speed(Some(Duration::from_millis(60)));
        for _ in 0..6 {
            world.schedule(Duration::ZERO, Event::Unreachable { to: world.leader(), id: stuck });
            world.run_for(Duration::from_millis(1500))?;
        }
        let (snapshots, leader) = (world.figures.snapshots, world.leader());
        world.slow_down(stuck, Duration::from_millis(1));
        world.run_for(Duration::from_secs(2))?;
        world.expect_speed(None);
        if (world.figures.returns, snapshots) != (1, 0) {
            return Err(format!("{} returns to the log, {snapshots} snapshots", world.figures.returns));
        }
        ends_without_another(world, [stuck, leader])
    })
}

/// Three members, and the disk of one is stuck, comes back slow, and is stuck again, while its checkpoints take seconds and the leader
/// is told all the time that messages to it were lost. Nobody may notice, and when the disk is well, that member must be as
/// good as any: another one is lost, and writes go on. `Err`: what an oracle found.
pub fn run_slow_return(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        let mut rng = SeededRng::new(seed ^ 0x510);
        let mut world = in_steady_use(seed, broken, [200, 120, 80])?;
        let slow = 1 + seed % 3;
        world.checkpoint_max = Duration::from_secs(3);
        world.slow_down(slow, Duration::MAX);
        world.run_for(Duration::from_secs(1))?;
        world.expect_speed(Some(Duration::from_millis(60)));
        for _ in 0..8 {
            let delay = [Duration::MAX, Duration::from_millis(800), Duration::from_millis(30)][rng.below(3) as usize];
            world.slow_down(slow, delay);
            for _ in 0..1 + rng.below(10) {
                world.schedule(Duration::ZERO, Event::Unreachable { to: world.leader(), id: slow });
                world.run_for(Duration::from_millis(20 + rng.below(300)))?;
            }
        }
        if world.figures.snapshots > 0 {
            return Err(format!("{} snapshots", world.figures.snapshots));
        }
        world.slow_down(slow, Duration::from_millis(1));
        world.run_for(Duration::from_secs(4))?;
        world.expect_speed(None);
        let leader = world.leader();
        ends_without_another(world, [slow, leader])
    })
}

/// Three members; a disk that was stuck for long comes back, and its member loses power before its log goes on. Or another disk gets
/// slow just then, all lose power, and the leader, who alone has everything, comes back last. `Err`: what an oracle found.
pub fn run_cut_returns(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        let mut rng = SeededRng::new(seed ^ 0x5ee);
        let mut world = World::new(seed, 3, broken);
        world.bound_waiting([200, 120, 80]);
        world.checkpoint_max = Duration::from_millis([20, 300][(seed % 2) as usize]);
        world.run_for(Duration::from_secs(3))?;
        world.clients.purpose = Purpose::Steady;
        for _ in 0..6 {
            let leader = world.leader();
            let (stuck, slow) = (leader % 3 + 1, (leader + 1) % 3 + 1);
            world.slow_down(stuck, Duration::MAX);
            world.run_for(Duration::from_secs(1))?;
            let is_alone = rng.below(2) == 0;
            if !is_alone {
                world.slow_down(slow, Duration::from_millis(600));
            }
            world.slow_down(stuck, Duration::from_millis(1));
            world.run_for(Duration::from_millis(1 + rng.below(30)))?;
            world.crash(stuck, Duration::from_millis(50));
            if !is_alone {
                world.slow_down(slow, Duration::from_millis(1));
                world.crash(slow, Duration::from_millis(100));
                world.crash(leader, Duration::from_secs(3));
            }
            world.run_for(Duration::from_secs(4))?;
        }
        world.make_peace();
        world.settle(Duration::from_secs(20))?;
        world.finish()
    })
}

/// Three members with slow disks lose power all at once, again and again. `Err`: what an oracle found.
pub fn run_power_cuts(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        let mut rng = SeededRng::new(seed ^ 0xc075);
        let mut world = World::new(seed, 3, broken);
        world.bound_waiting([400_000, 40, 10]);
        world.run_for(Duration::from_secs(3))?;
        for _ in 0..6 {
            for member in 1..=3 {
                world.slow_down(member, Duration::from_millis(600));
                world.crash(member, Duration::from_millis(100 + rng.below(100)));
            }
            world.run_for(Duration::from_millis(1300 + rng.below(3000)))?;
        }
        world.make_peace();
        world.settle(Duration::from_secs(20))?;
        world.finish()
    })
}

/// One voter with a slow disk and a member that learns from it. The voter loses power again and again, also before the vote that it
/// leads by is on its disk. `Err`: what an oracle found.
pub fn run_lone_voter(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        let mut rng = SeededRng::new(seed ^ 0x10e);
        let mut world = World::new(seed, 1, broken);
        world.run_for(Duration::from_secs(1))?;
        world.add_member(1, |id, peer_urls| MemberChange::AddLearner { id, peer_urls });
        world.run_for(Duration::from_secs(2))?;
        for _ in 0..12 {
            world.slow_down(1, Duration::from_millis(300));
            world.crash(1, Duration::from_millis(50));
            world.run_for(Duration::from_millis(100 + rng.below(1200)))?;
        }
        world.make_peace();
        world.settle(Duration::from_secs(20))?;
        world.finish()
    })
}

/// Three members, and the process of whoever leads is killed, again and again. `Err`: what an oracle found, or a client that
/// waited for more than 400 ms.
pub fn run_killed_leaders(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        let mut world = World::new(seed, 3, broken);
        world.run_for(Duration::from_secs(4))?;
        world.clients.purpose = Purpose::Steady;
        world.expect_speed(Some(Duration::from_millis(400)));
        for _ in 0..10 {
            world.crash(world.leader(), Duration::from_millis(1500));
            world.run_for(Duration::from_secs(3))?;
        }
        world.settle(Duration::from_secs(5))?;
        world.finish()
    })
}

/// Three members, and one is told again and again that the leader has ended, which is not so. `Err`: leadership moved, or what
/// an oracle found.
pub fn run_false_hints(seed: u64, broken: Broken) -> Result<Figures, String> {
    guarded(|| {
        let mut world = World::new(seed, 3, broken);
        world.run_for(Duration::from_secs(4))?;
        let (ended, leaders) = (world.leader(), world.figures.leaders);
        let to = ended % 3 + 1;
        for _ in 0..150 {
            world.schedule(Duration::ZERO, Event::Hint { to, ended });
            world.run_for(Duration::from_millis(70))?;
        }
        if world.figures.leaders != leaders {
            return Err(format!("leadership moved {} times for nothing", world.figures.leaders - leaders));
        }
        world.settle(Duration::from_secs(5))?;
        world.finish()
    })
}

/// Runs seeds on all processors, in any order. Those that failed, with what an oracle found, by seed.
pub fn sweep(seeds: Range<u64>, scenario: impl Fn(u64) -> Result<Figures, String> + Sync) -> BTreeMap<u64, String> {
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                for seed in numbers.take_while(|seed| *seed < seeds.end) {
                    if let Err(error) = scenario(seed) {
                        found.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, error);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The library's own assertions count as findings.
fn guarded(run: impl FnOnce() -> Result<Figures, String>) -> Result<Figures, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

//! Faults: what goes wrong, when, and for how long; drawn from the seed.

use std::collections::HashMap;
use std::time::Duration;

use base::{Rng, SeededRng};
use tokio::sync::oneshot;

use super::world::{Event, World};
use super::{Broken, rot};
use crate::driver::Message;
use crate::peer::MemberChange;

/// What a frame takes at most in a network that is well.
const WELL: Duration = Duration::from_micros(800);

/// The state of the network, and whether anything goes wrong at all.
pub(super) struct Faults {
    pub(super) enabled: bool,
    pub(super) rng: SeededRng,
    /// Of a hundred frames, so many are lost.
    loss: u64,
    /// Members on one side of a cut; the others are on the other.
    side: Vec<u64>,
    /// What the other side sends arrives all the same.
    one_way: bool,
    /// Frames take up to so long.
    delay_max: Duration,
    /// A network that is well keeps the order of frames: when the last one arrives.
    last: HashMap<(u64, u64), Duration>,
    /// In such a run the disk of one member takes damage, and its operator is the only one who changes the membership.
    rots: bool,
    rotten: Option<u64>,
    /// The member with the damaged disk has a successor.
    pub(super) is_replaced: bool,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = SeededRng::new(seed ^ 0xfa17);
        let rots = rng.below(4) == 0;
        Self {
            enabled: false,
            rng,
            loss: 0,
            side: Vec::new(),
            one_way: false,
            delay_max: WELL,
            last: HashMap::new(),
            rots,
            rotten: None,
            is_replaced: false,
        }
    }

    /// When the copies of a frame arrive; none if it is lost.
    pub(super) fn arrivals(&mut self, from: u64, to: u64, now: Duration) -> Vec<Duration> {
        let (leaves, enters) = (self.side.contains(&from), self.side.contains(&to));
        let is_cut = leaves != enters && !(self.one_way && enters);
        if is_cut || self.rng.below(100) < self.loss {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.loss > 0 && self.rng.below(20) == 0);
        let most = u64::try_from(self.delay_max.as_micros()).unwrap_or(u64::MAX);
        // Most frames are quick even in a bad network.
        let mut delay = || {
            let most = if self.rng.below(4) == 0 { most } else { most.min(1000) };
            Duration::from_micros(100 + self.rng.below(most))
        };
        let mut arrivals: Vec<Duration> = (0..copies).map(|_| delay()).collect();
        if self.loss == 0 && self.delay_max == WELL {
            let last = self.last.entry((from, to)).or_default();
            for delay in &mut arrivals {
                *delay = (*delay).max(last.saturating_sub(now));
                *last = now + *delay;
            }
        }
        arrivals
    }

    /// Whether what is under way now is damaged.
    pub(super) fn is_lossy(&mut self) -> bool {
        self.loss > 0 && self.rng.below(4) == 0
    }

    pub(super) fn heal(&mut self) {
        self.loss = 0;
        self.side.clear();
        self.delay_max = WELL;
    }
}

impl World {
    /// One more thing goes wrong, or a network is well again.
    pub(super) fn next_fault(&mut self) -> Result<(), String> {
        if !self.faults.enabled {
            return Ok(());
        }
        let next = Duration::from_millis(50 + self.faults.rng.below(700));
        self.schedule(next, Event::Fault);
        let ids: Vec<u64> = self.nodes.values().filter(|node| !node.is_gone).map(|node| node.id).collect();
        let Some(&victim) = ids.get(self.faults.rng.below(ids.len() as u64) as usize) else { return Ok(()) };
        let some = Duration::from_millis(100 + self.faults.rng.below(2500));
        self.break_leases();
        match self.faults.rng.below(24) {
            0..=3 => self.crash(victim, some),
            4 if self.faults.rng.below(3) == 0 => ids.iter().for_each(|id| self.crash(*id, some)),
            5..=6 => {
                let cut = 1 + self.faults.rng.below(ids.len() as u64 / 2 + 1) as usize;
                let from = self.faults.rng.below(ids.len() as u64) as usize;
                self.faults.side = ids.iter().cycle().skip(from).take(cut).copied().collect();
                self.faults.one_way = self.faults.rng.below(3) == 0;
            }
            7..=8 => {
                self.faults.loss = self.faults.rng.below(30);
                self.faults.delay_max = Duration::from_millis(1 + self.faults.rng.below(300));
            }
            9..=11 => self.faults.heal(),
            12..=13 => {
                let sync = [Duration::from_millis(800), Duration::from_millis(30), Duration::MAX];
                let sync = sync[self.faults.rng.below(3) as usize];
                self.slow_down(victim, sync);
                self.schedule(some, Event::DiskHeals { node: victim });
            }
            14 => self.fill_disk(victim, some),
            15 => self.pause(victim, some * 2),
            16 => self.transfer(victim, &ids),
            17 => self.schedule(Duration::ZERO, Event::Hint { to: victim, ended: self.leader() }),
            18 => self.set_clock(victim),
            19 => self.fail_syncs(victim, some),
            20 if self.faults.rots => self.damage(victim, some),
            _ if self.faults.rots => self.replace_ruined(),
            _ => self.change_membership(victim, &ids),
        }
        Ok(())
    }

    fn fill_disk(&mut self, victim: u64, time: Duration) {
        if let Some(node) = self.nodes.get(&victim) {
            node.disk.set_capacity(Some(node.disk.used() + self.faults.rng.below(2000)));
            self.schedule(time, Event::DiskHeals { node: victim });
        }
    }

    fn fail_syncs(&mut self, victim: u64, time: Duration) {
        if let Some(node) = self.nodes.get(&victim) {
            node.disk.fail_syncs(true);
            self.schedule(time, Event::DiskHeals { node: victim });
        }
    }

    /// The machine goes down, and something on its disk is not what it was when it comes back: of one machine alone, so that
    /// the others can do without it.
    fn damage(&mut self, victim: u64, down: Duration) {
        let is_spare = self.leading().is_some_and(|(_, state)| state.cluster.voters().len() > 2);
        if !is_spare || *self.faults.rotten.get_or_insert(victim) != victim {
            return;
        }
        self.crash(victim, down);
        if let Some(node) = self.nodes.get_mut(&victim).filter(|node| node.running.is_none()) {
            node.is_rotten = true;
            rot::damage(&node.disk, &mut self.faults.rng, self.broken == Broken::DamageUnnoticed);
        }
    }

    fn set_clock(&mut self, victim: u64) {
        let year = 365 * 24 * 3600;
        let seconds = self.faults.rng.below(4 * year).cast_signed() - 2 * year.cast_signed();
        if let Some(node) = self.nodes.get(&victim) {
            node.clock.jump(seconds);
        }
    }

    fn pause(&mut self, victim: u64, time: Duration) {
        let until = self.now() + time;
        if let Some(node) = self.nodes.get_mut(&victim) {
            node.paused_until = until;
        }
    }

    fn transfer(&mut self, at: u64, ids: &[u64]) {
        let to = ids[self.faults.rng.below(ids.len() as u64) as usize];
        // Whoever asked is not interested.
        let (reply, _) = oneshot::channel();
        self.tell(at, Message::Transfer { to, reply });
    }

    fn change_membership(&mut self, at: u64, ids: &[u64]) {
        let some = ids[self.faults.rng.below(ids.len() as u64) as usize];
        match self.faults.rng.below(6) {
            0..=1 if ids.len() < 6 => {
                self.add_member(at, |id, peer_urls| MemberChange::AddLearner { id, peer_urls });
            }
            2 if ids.len() < 5 => self.add_member(at, |id, peer_urls| MemberChange::AddVoter { id, peer_urls }),
            3..=4 => self.propose_change(at, MemberChange::Promote { id: ids.last().copied().unwrap_or(some) }),
            _ if ids.len() > 2 => self.propose_change(at, MemberChange::Remove { id: some }),
            _ => {}
        }
    }
}

//! When leases end. The set of leases is replicated state; their deadlines are this member's alone and never on disk.
//!
//! Pure: time comes in as the monotonic clock's reading. A lease lives at least its time to live after the last keep-alive,
//! and longer when this process could not have heard one: after recovery every lease starts anew, and a pause of the
//! process (see [`Lessor::tick`]) counts for none.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// A gap between two ticks that is longer than this means that the process was stopped: no client could renew meanwhile.
const PAUSE: Duration = Duration::from_secs(2);

/// Deadlines of all leases.
#[derive(Debug, Default)]
pub(crate) struct Lessor {
    leases: HashMap<i64, Lease>,
    by_deadline: BTreeSet<(Duration, i64)>,
    last_tick: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl: Duration,
    deadline: Duration,
    /// Its end has been proposed: it can't be renewed any more.
    ending: bool,
}

impl Lessor {
    /// A lease begins; also one that was recovered.
    pub(crate) fn grant(&mut self, id: i64, ttl_seconds: i64, now: Duration) {
        let ttl = Duration::from_secs(ttl_seconds.max(1) as u64);
        self.set(id, Lease { ttl, deadline: now + ttl, ending: false });
    }

    pub(crate) fn revoke(&mut self, id: i64) {
        if let Some(lease) = self.leases.remove(&id) {
            self.by_deadline.remove(&(lease.deadline, id));
        }
    }

    /// Starts the time to live again. `None` if the lease does not exist or is ending.
    pub(crate) fn keep_alive(&mut self, id: i64, now: Duration) -> Option<i64> {
        let lease = *self.leases.get(&id).filter(|lease| !lease.ending)?;
        self.set(id, Lease { deadline: now + lease.ttl, ..lease });
        Some(lease.ttl.as_secs() as i64)
    }

    /// Time left; `None` if the lease does not exist.
    pub(crate) fn remaining(&self, id: i64, now: Duration) -> Option<Duration> {
        self.leases.get(&id).map(|lease| lease.deadline.saturating_sub(now))
    }

    /// The proposal to end this lease failed: propose it again at the next tick.
    pub(crate) fn still_lives(&mut self, id: i64) {
        if let Some(lease) = self.leases.get(&id).copied() {
            self.set(id, Lease { ending: false, ..lease });
        }
    }

    /// Leases whose time is over and whose end is to be proposed now; each is reported once.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<i64> {
        let paused = self.last_tick.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.last_tick = Some(now);
        if paused > PAUSE {
            self.postpone(paused);
        }
        let due: Vec<i64> = self.by_deadline.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in &due {
            if let Some(lease) = self.leases.get_mut(id) {
                lease.ending = true;
                self.by_deadline.remove(&(lease.deadline, *id));
            }
        }
        due
    }

    fn postpone(&mut self, by: Duration) {
        let lasting: Vec<_> = self.leases.iter().filter(|(_, lease)| !lease.ending).map(|(id, l)| (*id, *l)).collect();
        for (id, lease) in lasting {
            self.set(id, Lease { deadline: lease.deadline + by, ..lease });
        }
    }

    fn set(&mut self, id: i64, lease: Lease) {
        if let Some(old) = self.leases.insert(id, lease) {
            self.by_deadline.remove(&(old.deadline, id));
        }
        self.by_deadline.insert((lease.deadline, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_ends_once_and_only_when_it_was_not_renewed() {
        let mut lessor = Lessor::default();
        lessor.grant(1, 3, s(0));
        lessor.grant(2, 3, s(0));
        assert_eq!(lessor.tick(s(2)), [0; 0]);
        assert_eq!(lessor.keep_alive(2, s(2)), Some(3));
        assert_eq!(lessor.tick(s(3)), [1]);
        assert_eq!(lessor.keep_alive(1, s(3)), None);
        assert_eq!(lessor.tick(s(4)), [0; 0]);
        assert_eq!(lessor.remaining(2, s(4)), Some(s(1)));
        lessor.still_lives(1);
        assert_eq!(lessor.tick(s(5)), [1, 2]);
    }

    #[test]
    fn a_pause_of_the_process_ends_no_lease() {
        let mut lessor = Lessor::default();
        lessor.grant(1, 3, s(0));
        lessor.tick(s(0));
        assert_eq!(lessor.tick(s(100)), [0; 0]);
        assert_eq!(lessor.tick(s(102)), [0; 0]);
        assert_eq!(lessor.tick(s(103)), [1]);
    }
}

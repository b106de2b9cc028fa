//! Which Pod is tried next: a sans-io queue of Pods that wait for a node.
//!
//! Order: priority (high first), then arrival. A Pod that fits nowhere is *parked*; an event that could help (a node
//! appeared or changed, a Pod went away) moves the parked ones back, each after its back-off (1 s doubling to 10 s, as
//! upstream). Invariant: a key is in exactly one place. Bound: one entry a Pod; the API bounds the Pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A parked Pod is tried again after this long without any event: a safety net, as upstream has it.
const PARKED_MAX: Duration = Duration::from_secs(300);

/// What happened in the cluster that could let a parked Pod fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueEvent {
    /// A node was added, or changed in labels, taints, allocatable or its cordon.
    NodeChanged,
    /// A Pod that held resources ended or went away.
    PodGone,
}

#[derive(Debug, Clone)]
enum Place {
    /// Waits for its turn.
    Active { rank: Rank },
    /// May be tried from this time on.
    Backoff { until: Duration },
    /// Waits for an event.
    Parked { since: Duration },
}

/// Sorts by descending priority, then arrival.
type Rank = (i64, u64);

#[derive(Debug)]
struct Entry {
    priority: i64,
    failures: u32,
    /// When the last try failed; zero for never.
    failed_at: Duration,
    place: Place,
}

/// The queue; times are monotonic.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    backoff: BTreeSet<(Duration, String)>,
    arrivals: u64,
}

impl Queue {
    /// Adds a Pod, or moves a known one to the front of its waiting (its spec changed: try again at once).
    pub fn push(&mut self, key: &str, priority: i64) {
        let (failures, failed_at) = self.take_out(key).map_or((0, Duration::ZERO), |e| (e.failures, e.failed_at));
        let rank = self.activate(key, priority);
        self.entries.insert(key.to_owned(), Entry { priority, failures, failed_at, place: Place::Active { rank } });
    }

    /// The Pod is bound, gone or no longer ours.
    pub fn remove(&mut self, key: &str) {
        self.take_out(key);
    }

    /// The next Pod to try at `now`. It leaves the queue; report back with [`Queue::failed`] if it found no node.
    pub fn pop(&mut self, now: Duration) -> Option<String> {
        self.wake(now);
        let (_, key) = self.active.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.place = Place::Parked { since: now };
        }
        Some(key)
    }

    /// The try failed. `parked`: no node fits, wait for an event; otherwise (an API error) try again after the back-off.
    pub fn failed(&mut self, key: &str, now: Duration, parked: bool) {
        let Some(mut entry) = self.take_out(key) else { return };
        let event_came_during_the_try = !matches!(entry.place, Place::Parked { .. });
        entry.failures = entry.failures.saturating_add(1);
        entry.failed_at = now;
        entry.place = if parked && !event_came_during_the_try {
            Place::Parked { since: now }
        } else {
            let until = now + backoff(entry.failures);
            self.backoff.insert((until, key.to_owned()));
            Place::Backoff { until }
        };
        self.entries.insert(key.to_owned(), entry);
    }

    /// An event that could help all parked Pods.
    pub fn event(&mut self, _event: QueueEvent, now: Duration) {
        self.unpark(now, |_| true);
    }

    /// When [`Queue::pop`] could next have something although nothing happens; `None` = only an event can help.
    pub fn next_wake(&self) -> Option<Duration> {
        let parked = self.entries.values().filter_map(|e| match e.place {
            Place::Parked { since } => Some(since + PARKED_MAX),
            _ => None,
        });
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let ready = (!self.active.is_empty()).then_some(Duration::ZERO);
        parked.chain(backoff).chain(ready).min()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn wake(&mut self, now: Duration) {
        self.unpark(now, |since| since + PARKED_MAX <= now);
        while self.backoff.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, key)) = self.backoff.pop_first() else { return };
            let Some(priority) = self.entries.get(&key).map(|e| e.priority) else { continue };
            let rank = self.activate(&key, priority);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::Active { rank };
            }
        }
    }

    fn unpark(&mut self, now: Duration, which: impl Fn(Duration) -> bool) {
        for (key, entry) in &mut self.entries {
            if let Place::Parked { since } = entry.place
                && which(since)
            {
                let until = if entry.failures == 0 { now } else { entry.failed_at + backoff(entry.failures) };
                entry.place = Place::Backoff { until };
                self.backoff.insert((until, key.clone()));
            }
        }
    }

    fn activate(&mut self, key: &str, priority: i64) -> Rank {
        self.arrivals += 1;
        let rank = (-priority, self.arrivals);
        self.active.insert(rank, key.to_owned());
        rank
    }

    fn take_out(&mut self, key: &str) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        match &entry.place {
            Place::Active { rank } => {
                self.active.remove(rank);
            }
            Place::Backoff { until } => {
                self.backoff.remove(&(*until, key.to_owned()));
            }
            Place::Parked { .. } => {}
        }
        Some(entry)
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn priority_goes_first_then_arrival() {
        let mut q = Queue::default();
        q.push("a", 0);
        q.push("b", 0);
        q.push("urgent", 100);
        let order: Vec<_> = std::iter::from_fn(|| q.pop(s(0))).collect();
        assert_eq!(order, ["urgent", "a", "b"]);
    }

    #[test]
    fn parked_pod_waits_for_an_event_and_its_backoff() {
        let mut q = Queue::default();
        q.push("a", 0);
        assert_eq!(q.pop(s(0)).as_deref(), Some("a"));
        q.failed("a", s(0), true);
        assert_eq!(q.pop(s(100)), None);
        q.event(QueueEvent::NodeChanged, s(100));
        assert_eq!(q.pop(s(100)).as_deref(), Some("a"));
        q.failed("a", s(100), true);
        q.event(QueueEvent::PodGone, s(100));
        assert_eq!(q.pop(s(101)), None, "second failure: 2 s");
        assert_eq!(q.pop(s(102)).as_deref(), Some("a"));
    }

    #[test]
    fn event_during_a_try_is_not_lost() {
        let mut q = Queue::default();
        q.push("a", 0);
        q.pop(s(0));
        q.event(QueueEvent::NodeChanged, s(0));
        q.failed("a", s(0), true);
        assert_eq!(q.pop(s(0)), None);
        assert_eq!(q.pop(s(1)).as_deref(), Some("a"));
        assert_eq!(q.pop(s(1)), None);
    }

    #[test]
    fn api_error_is_tried_again_after_the_backoff_without_an_event() {
        let mut q = Queue::default();
        q.push("a", 0);
        q.pop(s(0));
        q.failed("a", s(0), false);
        assert_eq!(q.next_wake(), Some(s(1)));
        assert_eq!(q.pop(s(1)).as_deref(), Some("a"));
    }

    #[test]
    fn removed_pod_never_comes_back() {
        let mut q = Queue::default();
        q.push("a", 0);
        q.pop(s(0));
        q.failed("a", s(0), false);
        q.remove("a");
        assert_eq!(q.pop(s(1000)), None);
        assert!(q.is_empty());
    }

    #[test]
    fn parked_pod_is_tried_after_five_minutes_without_events() {
        let mut q = Queue::default();
        q.push("a", 0);
        q.pop(s(0));
        q.failed("a", s(0), true);
        assert_eq!(q.pop(s(300)).as_deref(), Some("a"));
    }
}

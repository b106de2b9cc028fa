//! The work queue, sans IO: keys to do, keys being done, keys due later, and their back-off.
//!
//! Invariants: a key is never handed out twice at the same time; a key added while it is being done is handed out
//! again afterwards; the queue holds each key at most once, so it is bounded by the number of objects. Does not sleep:
//! the caller asks [`Queue::next_due`] how long it may.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use base::Rng;

/// Exponential back-off per key: `base * 2^failures`, at most `max`, spread by up to a tenth.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub base: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    /// Upstream's controller rate limiter: 5 ms to 1000 s.
    fn default() -> Self {
        Self { base: Duration::from_millis(5), max: Duration::from_secs(1000) }
    }
}

impl Backoff {
    /// The delay after so many earlier failures.
    pub fn delay(&self, failures: u32, rng: &mut dyn Rng) -> Duration {
        let factor = 1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX);
        let delay = self.base.checked_mul(factor).map_or(self.max, |delay| delay.min(self.max));
        let spread_us = u64::try_from(delay.as_micros() / 10).unwrap_or(u64::MAX);
        delay + Duration::from_micros(rng.below(spread_us))
    }
}

/// See the module's text. Times are [`base::Clock::monotonic`] ones.
#[derive(Debug)]
pub struct Queue<K> {
    backoff: Backoff,
    ready: VecDeque<K>,
    /// Keys that must be done: those in `ready`, and those that changed while being done.
    dirty: HashSet<K>,
    active: HashSet<K>,
    /// Keys due later. A key's true due time is in `due`; other heap entries of it are stale.
    heap: BinaryHeap<Reverse<(Duration, u64)>>,
    due: HashMap<K, (Duration, u64)>,
    by_ticket: HashMap<u64, K>,
    next_ticket: u64,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            active: HashSet::new(),
            heap: BinaryHeap::new(),
            due: HashMap::new(),
            by_ticket: HashMap::new(),
            next_ticket: 0,
            failures: HashMap::new(),
        }
    }

    /// Marks a key as to be done. A later due time of it is kept: it may stand for a timer.
    pub fn add(&mut self, key: K) {
        if self.dirty.insert(key.clone()) && !self.active.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Marks a key as to be done at `at`; the earlier of two due times wins.
    pub fn add_at(&mut self, key: K, at: Duration) {
        if self.due.get(&key).is_some_and(|(earlier, _)| *earlier <= at) {
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some((_, stale)) = self.due.insert(key.clone(), (at, ticket)) {
            self.by_ticket.remove(&stale);
        }
        self.by_ticket.insert(ticket, key);
        self.heap.push(Reverse((at, ticket)));
    }

    /// Marks a failed key as to be done again after its back-off, which is returned.
    pub fn retry(&mut self, key: K, now: Duration, rng: &mut dyn Rng) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = self.backoff.delay(*failures, rng);
        *failures = failures.saturating_add(1);
        self.add_at(key, now + delay);
        delay
    }

    /// Forgets a key's failures: it succeeded.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// Takes the next key to do; the caller must call [`Queue::done`] with it.
    pub fn pop(&mut self, now: Duration) -> Option<K> {
        self.release_due(now);
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.active.insert(key.clone());
        Some(key)
    }

    /// Ends what [`Queue::pop`] began. If the key was added meanwhile it is ready again.
    pub fn done(&mut self, key: &K) {
        if self.active.remove(key) && self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    /// When the next delayed key falls due; none if no key is delayed.
    pub fn next_due(&mut self) -> Option<Duration> {
        self.drop_stale();
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Keys waiting to be done now, for metrics.
    pub fn depth(&self) -> usize {
        self.ready.len()
    }

    /// Whether nothing is ready, active or delayed.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.active.is_empty() && self.due.is_empty()
    }

    fn release_due(&mut self, now: Duration) {
        while self.next_due().is_some_and(|at| at <= now) {
            if let Some(Reverse((_, ticket))) = self.heap.pop()
                && let Some(key) = self.by_ticket.remove(&ticket)
            {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn drop_stale(&mut self) {
        while let Some(Reverse((_, ticket))) = self.heap.peek() {
            if self.by_ticket.contains_key(ticket) {
                return;
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use base::SeededRng;
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_key_added_while_active_comes_again_after_done() {
        let mut queue = Queue::new(Backoff::default());
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(ms(0)), Some("a"));
        queue.add("a");
        assert_eq!(queue.pop(ms(0)), None);
        queue.done(&"a");
        assert_eq!(queue.pop(ms(0)), Some("a"));
        queue.done(&"a");
        assert!(queue.is_idle());
    }

    #[test]
    fn the_earlier_due_time_wins() {
        let mut queue = Queue::new(Backoff::default());
        queue.add_at("a", ms(50));
        queue.add_at("a", ms(10));
        queue.add_at("a", ms(90));
        assert_eq!(queue.next_due(), Some(ms(10)));
        assert_eq!(queue.pop(ms(9)), None);
        assert_eq!(queue.pop(ms(10)), Some("a"));
        queue.done(&"a");
        assert!(queue.is_idle());
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn back_off_doubles_up_to_the_limit_and_forgets() {
        let mut queue = Queue::new(Backoff::default());
        let mut rng = SeededRng::new(1);
        let delays: Vec<_> = (0..30).map(|_| queue.retry("a", ms(0), &mut rng)).collect();
        assert!(delays[0] >= ms(5) && delays[0] < ms(6), "{:?}", delays[0]);
        assert!(delays[4] >= ms(80) && delays[4] < ms(89), "{:?}", delays[4]);
        assert!(delays[29] >= Duration::from_secs(1000) && delays[29] < Duration::from_secs(1101));
        queue.forget(&"a");
        assert!(queue.retry("a", ms(0), &mut rng) < ms(6));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8),
        AddAt(u8, u64),
        Pop,
        Done(u8),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..4u8).prop_map(Step::Add),
            ((0..4u8), (0..50u64)).prop_map(|(k, t)| Step::AddAt(k, t)),
            Just(Step::Pop),
            (0..4u8).prop_map(Step::Done),
            (0..20u64).prop_map(Step::Pass),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// No key is active twice, and every key added is handed out in the end.
        #[test]
        fn serial_per_key_and_nothing_lost(steps in steps()) {
            let mut queue = Queue::new(Backoff::default());
            let (mut now, mut active, mut owed) = (0u64, HashSet::new(), HashSet::new());
            for step in steps {
                match step {
                    Step::Add(key) => { queue.add(key); owed.insert(key); }
                    Step::AddAt(key, after) => { queue.add_at(key, ms(now + after)); owed.insert(key); }
                    Step::Pop => if let Some(key) = queue.pop(ms(now)) {
                        prop_assert!(active.insert(key));
                        // A due time may still be pending for this key, so only a drained queue proves delivery.
                        owed.remove(&key);
                    },
                    Step::Done(key) => { queue.done(&key); active.remove(&key); }
                    Step::Pass(time) => now += time,
                }
            }
            for key in active { queue.done(&key); }
            now += 1000;
            while let Some(key) = queue.pop(ms(now)) { owed.remove(&key); queue.done(&key); }
            prop_assert!(owed.is_empty());
            prop_assert!(queue.is_idle());
        }
    }
}

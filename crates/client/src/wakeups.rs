//! A controller's queue with an alarm bell: keys come in from caches, timers and workers; workers wait for them.
//!
//! Invariants: a key to do wakes a worker; a key that waits for the caches to see its own writes is looked at when any of
//! them comes further. Does not know what is done with a key.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::Clock;
use reconcile::{Backoff, Key, Queue};
use tokio::sync::Notify;

/// The queue with its alarm bell.
pub(crate) struct Wakeups {
    queue: Mutex<Queue<Key>>,
    /// Keys that wait for the caches to see their writes: looked at again when any of the caches comes further.
    unseen: Mutex<HashSet<Key>>,
    bell: Notify,
}

impl Wakeups {
    pub(crate) fn new() -> Self {
        Self { queue: Mutex::new(Queue::new(Backoff::default())), unseen: Mutex::default(), bell: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue<Key>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_all(&self, keys: impl IntoIterator<Item = Key>) {
        let mut queue = self.lock();
        let mut any = false;
        for key in keys {
            queue.add(key);
            any = true;
        }
        drop(queue);
        if any {
            self.bell.notify_one();
        }
    }

    pub(crate) fn unseen(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some cache came further.
    pub(crate) fn wake_unseen(&self) {
        let woken = std::mem::take(&mut *self.unseen());
        self.add_all(woken);
    }

    /// Something about the queue changed: a worker looks.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits for a key to do. One bell wakes one worker, so a worker that leaves work behind rings again.
    pub(crate) async fn next(&self, clock: &dyn Clock) -> Key {
        loop {
            let (key, more, due) = {
                let mut queue = self.lock();
                let key = queue.pop(clock.monotonic());
                (key, queue.has_ready(), queue.next_due())
            };
            if let Some(key) = key {
                if more {
                    self.bell.notify_one();
                }
                return key;
            }
            match due {
                None => self.bell.notified().await,
                Some(at) => {
                    let wait = at.saturating_sub(clock.monotonic());
                    tokio::select! {
                        () = self.bell.notified() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::SystemClock;

    use super::*;

    #[tokio::test]
    async fn progress_wakes_each_waiting_key_once() {
        let (wakeups, clock) = (Wakeups::new(), SystemClock::new());
        wakeups.wake_unseen();
        assert!(!wakeups.lock().has_ready());
        let key = Key::cluster("a");
        wakeups.unseen().insert(key.clone());
        wakeups.wake_unseen();
        wakeups.wake_unseen();
        assert_eq!(wakeups.next(&clock).await, key);
        wakeups.lock().done(&key);
        assert!(!wakeups.lock().has_ready());
    }
}

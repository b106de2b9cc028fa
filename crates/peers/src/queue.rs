//! The frames that wait for one lane to one peer. Bounded; pushing never blocks.
//!
//! At the bound the urgent lane drops its OLDEST frames: a newer heartbeat, vote or answer says what the older one said, and more.
//! The bulk lane drops the NEWEST: what is queued stays a run without gaps, which the follower can accept; the store sends the
//! rest again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What goes when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drops {
    Oldest,
    Newest,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    pub(crate) drops: Drops,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    bell: Notify,
    closed: CancellationToken,
    bounds: Bounds,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Taken out of the queue and not written yet.
    under_way: usize,
    dropped: u64,
}

impl Queue {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { state: Mutex::default(), bell: Notify::new(), closed: CancellationToken::new(), bounds }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues `frame`. False when a frame was dropped for want of room. A closed queue takes nothing.
    pub(crate) fn push(&self, frame: Bytes) -> bool {
        if self.is_closed() {
            return false;
        }
        let mut state = self.lock();
        let before = state.dropped;
        if self.bounds.drops == Drops::Newest && !self.has_room(&state, frame.len()) {
            state.dropped += 1;
            return false;
        }
        while !self.has_room(&state, frame.len())
            && let Some(oldest) = state.frames.pop_front()
        {
            state.bytes -= oldest.len();
            state.dropped += 1;
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        let kept_all = state.dropped == before;
        drop(state);
        self.bell.notify_one();
        kept_all
    }

    /// A single frame always has room.
    fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.frames.is_empty() || (state.frames.len() < self.bounds.frames && state.bytes + bytes <= self.bounds.bytes)
    }

    /// The next frame, if one waits; it counts as under way until [`Self::written`].
    pub(crate) fn try_pop(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let frame = state.frames.pop_front()?;
        state.bytes -= frame.len();
        state.under_way += 1;
        Some(frame)
    }

    /// Waits for the next frame; `None` once the queue is closed and empty.
    pub(crate) async fn pop(&self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.try_pop() {
                return Some(frame);
            }
            if self.is_closed() {
                return None;
            }
            tokio::select! {
                () = self.bell.notified() => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    /// Everything that was popped has left.
    pub(crate) fn written(&self) {
        self.lock().under_way = 0;
    }

    /// True while frames wait or are being written.
    pub(crate) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.under_way > 0 || !state.frames.is_empty()
    }

    /// Forgets what waits: the connection is gone, and it is out of date.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.dropped += state.frames.len() as u64;
        state.frames.clear();
        (state.bytes, state.under_way) = (0, 0);
    }

    /// Takes no more frames; those that wait can still be popped.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until the queue takes no more.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_of(drops: Drops, bounds: (usize, usize), pushed: &[&'static str]) -> (Vec<String>, u64) {
        let queue = Queue::new(Bounds { frames: bounds.0, bytes: bounds.1, drops });
        pushed.iter().for_each(|frame| {
            queue.push(Bytes::from_static(frame.as_bytes()));
        });
        let left = std::iter::from_fn(|| queue.try_pop()).map(|frame| String::from_utf8_lossy(&frame).into_owned());
        (left.collect(), queue.dropped())
    }

    #[test]
    fn at_the_bound_the_urgent_lane_drops_the_oldest_and_the_bulk_lane_the_newest() {
        let check = |drops, bounds, expect: &[&str], dropped| {
            let (left, count) = left_of(drops, bounds, &["aa", "bb", "cc", "dddd"]);
            assert_eq!((left.iter().map(String::as_str).collect::<Vec<_>>(), count), (expect.to_vec(), dropped));
        };
        check(Drops::Oldest, (2, 100), &["cc", "dddd"], 2);
        check(Drops::Newest, (2, 100), &["aa", "bb"], 2);
        check(Drops::Oldest, (9, 5), &["dddd"], 3);
        check(Drops::Newest, (9, 5), &["aa", "bb"], 2);
        check(Drops::Oldest, (9, 100), &["aa", "bb", "cc", "dddd"], 0);
        // One frame always fits, or it would never go.
        check(Drops::Newest, (9, 1), &["aa"], 3);
    }

    #[test]
    fn it_is_busy_until_what_was_popped_is_written() {
        let queue = Queue::new(Bounds { frames: 2, bytes: 10, drops: Drops::Newest });
        assert!(!queue.is_busy());
        queue.push(Bytes::from_static(b"a"));
        queue.try_pop();
        assert!(queue.is_busy());
        queue.written();
        assert!(!queue.is_busy());
        queue.close();
        assert!(!queue.push(Bytes::from_static(b"b")));
    }
}

//! The open watches of this process: who must wake for which key, and the source that feeds a [`Watch`] from the history.
//!
//! The applier publishes a new state and then calls [`Watchers::notify`], which compares each event with each distinct range
//! once and marks the slots that are concerned. A source whose slot is not marked skips everything up to the notified
//! revision without looking; a marked one reads the history from the first revision that concerns it. Nothing is queued.
//!
//! Lock order: none; the registry's lock is held for the comparison alone and never while the disk or a reader works.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::task::AtomicWaker;

use crate::error::KvError;
use crate::kv::in_range;
use crate::mvcc::State;
use crate::watch::{Event, Watch, WatchBatch, WatchRequest, WatchSource};

/// A batch is closed after so many events, at the end of a revision.
const BATCH_EVENTS: usize = 512;
/// A poll looks at so many revisions and then lets other tasks run.
const POLL_REVISIONS: i64 = 4096;
const NOTHING: i64 = i64::MAX;

/// What the applier and all readers share.
#[derive(Debug)]
pub(crate) struct Published {
    /// The newest applied state.
    pub(crate) state: ArcSwap<State>,
    /// Nobody else can have committed anything: what is applied here is all there is, and a read need not ask.
    pub(crate) reads_locally: AtomicBool,
    /// The cluster has removed this member.
    pub(crate) is_removed: AtomicBool,
    pub(crate) watchers: Watchers,
}

/// Registry of open watches.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    ranges: Mutex<Ranges>,
    /// Slots are marked for every revision up to this one.
    notified: AtomicI64,
}

#[derive(Debug, Default)]
struct Ranges {
    /// Watches of one key.
    keys: HashMap<Bytes, Vec<Arc<Slot>>>,
    /// Watches of a range; those with the same range share an element.
    spans: Vec<Span>,
    count: u64,
    stopped: Option<Arc<str>>,
}

#[derive(Debug)]
struct Span {
    key: Bytes,
    end: Bytes,
    slots: Vec<Arc<Slot>>,
}

#[derive(Debug)]
struct Slot {
    /// First revision that concerns the watch and that it has not yet taken notice of; [`NOTHING`] = none.
    pending: AtomicI64,
    waker: AtomicWaker,
}

impl Published {
    pub(crate) fn new(state: State) -> Arc<Self> {
        let watchers = Watchers { notified: AtomicI64::new(state.revision), ..Watchers::default() };
        Arc::new(Self {
            state: ArcSwap::from_pointee(state),
            reads_locally: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            watchers,
        })
    }

    /// Makes `state` what readers see, then wakes the watches that its new revisions concern.
    pub(crate) fn publish(&self, state: State, reads_locally: bool) {
        let state = Arc::new(state);
        if !reads_locally {
            self.reads_locally.store(false, Ordering::Release);
        }
        let before = self.watchers.notified.load(Ordering::Acquire);
        self.state.store(Arc::clone(&state));
        if state.revision > before {
            self.watchers.notify(&state, before + 1);
        }
        if reads_locally {
            self.reads_locally.store(true, Ordering::Release);
        }
    }

    /// Opens a watch, or says why its history is gone.
    pub(crate) fn watch(self: &Arc<Self>, request: WatchRequest) -> Result<Watch, KvError> {
        if request.key.is_empty() {
            return Err(KvError::EmptyKey);
        }
        let state = self.state.load();
        let next = if request.start_revision <= 0 { state.revision + 1 } else { request.start_revision };
        if next < state.compact_revision {
            return Err(KvError::Compacted { compact_revision: state.compact_revision });
        }
        let slot = self.watchers.add(&request, next)?;
        let source = LocalSource { published: Arc::clone(self), request, slot, next, until: 0, progress: false };
        Ok(Watch::new(Box::new(source)))
    }
}

impl Watchers {
    /// Number of open watches.
    pub(crate) fn count(&self) -> u64 {
        self.lock().count
    }

    /// Ends all watches, now and in future.
    pub(crate) fn stop(&self, reason: &Arc<str>) {
        let mut ranges = self.lock();
        ranges.stopped = Some(Arc::clone(reason));
        let slots = ranges.keys.values().flatten().chain(ranges.spans.iter().flat_map(|span| &span.slots));
        for slot in slots {
            slot.waker.wake();
        }
    }

    fn stopped(&self) -> Option<Arc<str>> {
        self.lock().stopped.clone()
    }

    fn notify(&self, state: &State, first: i64) {
        let ranges = self.lock();
        let mut woken: Vec<&Arc<Slot>> = Vec::new();
        if first < state.log_start() {
            // A snapshot has skipped revisions: whoever waited for one of them must learn that it is gone.
            let slots = ranges.keys.values().flatten().chain(ranges.spans.iter().flat_map(|span| &span.slots));
            woken.extend(slots.filter(|slot| slot.pending.fetch_min(first, Ordering::AcqRel) == NOTHING));
        }
        for revision in first.max(state.log_start())..=state.revision {
            let Some(events) = state.events_of(revision) else { continue };
            for event in events.iter() {
                ranges.each_concerned(&event.kv.key, |slot| {
                    // Always a write, so that whoever takes the mark also sees the state that was published before it.
                    if slot.pending.fetch_min(revision, Ordering::AcqRel) == NOTHING {
                        woken.push(slot);
                    }
                });
            }
        }
        self.notified.store(state.revision, Ordering::Release);
        for slot in woken {
            slot.waker.wake();
        }
    }

    fn add(&self, request: &WatchRequest, first: i64) -> Result<Arc<Slot>, KvError> {
        // Whether history concerns the watch is not known yet: let it look.
        let slot = Arc::new(Slot { pending: AtomicI64::new(first), waker: AtomicWaker::new() });
        let mut ranges = self.lock();
        if let Some(reason) = &ranges.stopped {
            return Err(KvError::Stopped { reason: Arc::clone(reason) });
        }
        ranges.count += 1;
        match &request.end {
            None => ranges.keys.entry(request.key.clone()).or_default().push(Arc::clone(&slot)),
            Some(end) => match ranges.spans.iter_mut().find(|span| span.key == request.key && span.end == *end) {
                Some(span) => span.slots.push(Arc::clone(&slot)),
                None => {
                    let (key, end) = (request.key.clone(), end.clone());
                    ranges.spans.push(Span { key, end, slots: vec![Arc::clone(&slot)] });
                }
            },
        }
        Ok(slot)
    }

    fn remove(&self, request: &WatchRequest, slot: &Arc<Slot>) {
        let mut ranges = self.lock();
        ranges.count -= 1;
        let Some(end) = &request.end else {
            if let Some(slots) = ranges.keys.get_mut(&request.key) {
                slots.retain(|other| !Arc::ptr_eq(other, slot));
                if slots.is_empty() {
                    ranges.keys.remove(&request.key);
                }
            }
            return;
        };
        for span in ranges.spans.iter_mut().filter(|span| span.key == request.key && span.end == *end) {
            span.slots.retain(|other| !Arc::ptr_eq(other, slot));
        }
        ranges.spans.retain(|span| !span.slots.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ranges {
    fn each_concerned<'a>(&'a self, key: &Bytes, mut visit: impl FnMut(&'a Arc<Slot>)) {
        self.keys.get(key).into_iter().flatten().for_each(&mut visit);
        let spans = self.spans.iter().filter(|span| in_range(key, &span.key, Some(&span.end)));
        spans.flat_map(|span| &span.slots).for_each(visit);
    }
}

/// Feeds a watch from the shared history.
struct LocalSource {
    published: Arc<Published>,
    request: WatchRequest,
    slot: Arc<Slot>,
    /// First revision that has not been looked at.
    next: i64,
    /// The history is to be read up to here, because something there concerns the watch; 0 = nothing is known to.
    until: i64,
    progress: bool,
}

impl WatchSource for LocalSource {
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchBatch, KvError>> {
        self.slot.waker.register(context.waker());
        let first_look = self.next;
        loop {
            self.take_notice();
            if self.next > self.until {
                break;
            }
            match self.read() {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(events) if !events.is_empty() => {
                    return Poll::Ready(Ok(WatchBatch { revision: self.next - 1, events }));
                }
                Ok(_) if self.next - first_look > POLL_REVISIONS => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(_) => {}
            }
        }
        if let Some(reason) = self.published.watchers.stopped() {
            return Poll::Ready(Err(KvError::Stopped { reason }));
        }
        if self.progress {
            self.progress = false;
            // A watch that starts in the future has nothing to say about the present.
            let revision = self.published.state.load().revision.min(self.next - 1);
            return Poll::Ready(Ok(WatchBatch { revision, events: Vec::new() }));
        }
        Poll::Pending
    }

    fn request_progress(&mut self) {
        self.progress = true;
        self.slot.waker.wake();
    }
}

impl LocalSource {
    /// Learns from the slot how far the history concerns this watch.
    fn take_notice(&mut self) {
        // Order matters: every revision up to `notified` has left its mark before we look at the mark.
        let notified = self.published.watchers.notified.load(Ordering::Acquire);
        let pending = self.slot.pending.swap(NOTHING, Ordering::AcqRel);
        if pending != NOTHING {
            if self.next > self.until {
                self.next = self.next.max(pending);
            }
            self.until = self.published.state.load().revision;
        } else if self.next > self.until {
            self.next = self.next.max(notified + 1);
        }
    }

    /// The next events in `next..=until`, whole revisions.
    fn read(&mut self) -> Result<Vec<Event>, KvError> {
        let state = self.published.state.load();
        let mut events = Vec::new();
        let stop = self.until.min(self.next + POLL_REVISIONS);
        while self.next <= stop && events.len() < BATCH_EVENTS {
            if self.next < state.compact_revision {
                return Err(KvError::Compacted { compact_revision: state.compact_revision });
            }
            // Revision 1, of the empty store, has no events.
            let revision = state.events_of(self.next).into_iter().flat_map(|events| events.iter());
            let concerned = revision.filter(|event| self.concerns(event));
            events.extend(concerned.map(|event| self.deliver(event)));
            self.next += 1;
        }
        Ok(events)
    }

    fn concerns(&self, event: &Event) -> bool {
        in_range(&event.kv.key, &self.request.key, self.request.end.as_deref())
    }

    fn deliver(&self, event: &Event) -> Event {
        let prev_kv = if self.request.prev_kv { event.prev_kv.clone() } else { None };
        Event { kind: event.kind, kv: Arc::clone(&event.kv), prev_kv }
    }
}

impl Drop for LocalSource {
    fn drop(&mut self) {
        self.published.watchers.remove(&self.request, &self.slot);
    }
}

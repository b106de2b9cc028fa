//! The watch cache of one resource: its objects as wire bytes in an immutable snapshot, and its recent changes.
//!
//! ```text
//! store watch -> feed (one task, revision order) -> ResourceCache::apply -> snapshot (lists, gets)
//!                                                                      \-> history (watches read it by cursor)
//! ```
//!
//! Input: key-value changes. Output: [`Snapshot`]s and [`Change`]s.
//! Invariants: a snapshot holds exactly the state after `snapshot.revision`; readers never wait for writers; history is
//! bounded in number and bytes, and a reader that falls out of it is told so, never fed a gap.
//! Not here: encoding (`encode`), selecting (`select`), reading the store (`feed`).

pub mod entry;
pub mod feed;
pub mod history;
pub mod json_copies;

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
use tokio::sync::watch;

pub use entry::Entry;
pub use history::{Change, Cursor, CursorError, History};
pub use json_copies::JsonCopies;

/// All objects of a resource at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub entries: OrdMap<Bytes, Arc<Entry>>,
    /// The revision of the last change contained.
    pub revision: i64,
    /// Number of the first change in the history that is not contained.
    pub next_change: u64,
}

impl Snapshot {
    /// Entries whose key starts with `prefix` and is not below `from`, in key order.
    pub fn range<'a>(&'a self, prefix: &'a [u8], from: Option<&[u8]>) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let start = Bytes::copy_from_slice(from.filter(|from| *from > prefix).unwrap_or(prefix));
        self.entries
            .range((Bound::Included(start), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry)
    }

    pub fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }
}

/// See the module.
#[derive(Debug)]
pub struct ResourceCache {
    /// Store keys of the resource start with it; ends with a slash.
    pub prefix: Bytes,
    snapshot: ArcSwap<Snapshot>,
    history: Mutex<History>,
    /// The number of changes ever applied; watchers wait on it.
    changed: watch::Sender<u64>,
    /// Shared with all caches of the server.
    pub json_copies: Arc<JsonCopies>,
}

impl ResourceCache {
    pub fn new(prefix: Bytes, json_copies: Arc<JsonCopies>) -> Self {
        Self {
            prefix,
            json_copies,
            snapshot: ArcSwap::default(),
            history: Mutex::new(History::default()),
            changed: watch::Sender::new(0),
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.snapshot.load().get(key).cloned()
    }

    /// Replaces everything with the state at `revision`. Open watches end: their events are lost.
    pub fn reset(&self, entries: OrdMap<Bytes, Arc<Entry>>, revision: i64) {
        let mut history = self.lock();
        history.reset(revision);
        let next_change = history.next_number();
        self.snapshot.store(Arc::new(Snapshot { entries, revision, next_change }));
        drop(history);
        self.changed.send_replace(next_change);
    }

    /// Applies changes in order. All changes of one revision must come in one call.
    pub fn apply(&self, changes: Vec<Change>) {
        let Some(revision) = changes.last().map(|change| change.revision) else { return };
        let mut history = self.lock();
        let mut entries = self.snapshot.load().entries.clone();
        for change in changes {
            match &change.entry {
                Some(entry) => entries.insert(entry.key.clone(), entry.clone()),
                None => change.previous.as_ref().and_then(|previous| entries.remove(&previous.key)),
            };
            history.push(change);
        }
        let next_change = history.next_number();
        self.snapshot.store(Arc::new(Snapshot { entries, revision, next_change }));
        drop(history);
        self.changed.send_replace(next_change);
    }

    /// A cursor that starts with the first change after `revision`. Errors: those changes are no longer all known.
    pub fn watch_from(&self, revision: i64) -> Result<Cursor, CursorError> {
        let number = self.lock().number_after(revision)?;
        Ok(self.cursor(number))
    }

    /// A cursor that goes on where `snapshot` ends.
    pub fn watch_after(&self, snapshot: &Snapshot) -> Cursor {
        self.cursor(snapshot.next_change)
    }

    fn cursor(&self, number: u64) -> Cursor {
        Cursor { next: number, changed: self.changed.subscribe() }
    }

    /// Changes from the cursor on, at most `count_max`; empty when there is nothing new. Moves the cursor.
    pub fn read(&self, cursor: &mut Cursor, count_max: usize) -> Result<Vec<Arc<Change>>, CursorError> {
        let changes = self.lock().read(cursor.next, count_max)?;
        cursor.next += changes.len() as u64;
        Ok(changes)
    }

    /// Whether the cursor has read everything.
    pub fn is_at_end(&self, cursor: &Cursor) -> bool {
        self.lock().next_number() == cursor.next
    }

    /// Forgets changes up to `revision` that are not among the newest few.
    pub fn forget_until(&self, revision: i64) {
        self.lock().forget_until(revision);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Multi-version state as one immutable value: what it is, and how it is read.
//!
//! A [`State`] is built of persistent maps: a clone costs nothing, shares all structure and never changes, so a list, a
//! watch and a checkpoint each read the state that they took while writes go on. Per key there is a list of versions, and per
//! revision a list of events; versions and events share the same values.
//!
//! Invariants: revisions are contiguous; `log` holds exactly the revisions from `max(compact_revision, first kept)` to
//! `revision`; a key whose only version is old enough is stored as that version alone.
//! Changes are made in [`crate::machine`] only.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, Vector};

use crate::error::KvError;
use crate::kv::{KeyValue, RangeRequest, RangeResponse, is_unbounded};
use crate::membership::Cluster;
use crate::peer::MemberInfo;
use crate::policy::Policy;
use crate::watch::Event;

/// Memory that one version takes beside its payload: the shared record, the two byte handles and their headers, and its
/// part of a map node and of the event log.
pub(crate) const VERSION_OVERHEAD: u64 = 256;

/// Everything that applied entries have made, as of one log index.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) keys: OrdMap<Bytes, Versions>,
    /// Events of one revision per element.
    pub(crate) log: Vector<Arc<[Event]>>,
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    /// Lease id -> granted time to live in seconds.
    pub(crate) leases: OrdMap<i64, i64>,
    /// Who the members are, and which of their proposals are settled.
    pub(crate) cluster: Cluster,
    pub(crate) policy: Policy,
    /// Position of the last applied entry.
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) live_keys: u64,
    pub(crate) live_bytes: u64,
    /// Live and historic versions.
    pub(crate) total_bytes: u64,
}

/// The versions of a key. The newest lies in the map itself, so that a pass over what exists now follows no pointer.
#[derive(Debug, Clone)]
pub(crate) enum Versions {
    /// The common case: the key exists and has no history.
    One(Arc<KeyValue>),
    /// Anything else. `older`, oldest first, is a persistent vector, because a key that is written all the time has a very long
    /// history.
    Many { newest: Version, older: Arc<Vector<Version>> },
}

#[derive(Debug, Clone)]
pub(crate) enum Version {
    Put(Arc<KeyValue>),
    /// Deleted at this revision.
    Deleted(i64),
}

/// Which version of each key a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Newest,
    Revision(i64),
}

impl State {
    /// As etcd, an empty store is at revision 1.
    pub(crate) fn new() -> Self {
        Self {
            keys: OrdMap::new(),
            log: Vector::new(),
            revision: 1,
            compact_revision: 0,
            leases: OrdMap::new(),
            cluster: Cluster::default(),
            policy: Policy::default(),
            index: 0,
            term: 0,
            live_keys: 0,
            live_bytes: 0,
            total_bytes: 0,
        }
    }

    /// What every member of a new cluster begins with. It stands at position 1, so that the log itself begins behind it and a
    /// member that joins later is sent a state instead of a log that does not name the first members.
    pub(crate) fn founded(members: &[MemberInfo]) -> Self {
        Self { cluster: Cluster::of(members), index: 1, term: 1, ..Self::new() }
    }

    /// Reads as of now or of an older revision.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.check_revision(request.revision)?;
        if request.key.is_empty() {
            return Err(KvError::EmptyKey);
        }
        let at = match request.revision {
            ..=0 => At::Newest,
            revision if revision == self.revision => At::Newest,
            revision => At::Revision(revision),
        };
        Ok(self.range_at(request, at))
    }

    /// As [`Self::range`] inside a transaction, whose own writes count as newest.
    pub(crate) fn range_in_txn(&self, request: &RangeRequest) -> RangeResponse {
        let at = if request.revision <= 0 { At::Newest } else { At::Revision(request.revision) };
        self.range_at(request, at)
    }

    /// Whether the state as of `revision` can still be read; 0 = the newest.
    pub(crate) fn check_revision(&self, revision: i64) -> Result<(), KvError> {
        if revision > self.revision {
            return Err(KvError::FutureRevision { revision: self.revision });
        }
        if revision > 0 && revision < self.compact_revision {
            return Err(KvError::Compacted { compact_revision: self.compact_revision });
        }
        Ok(())
    }

    fn range_at(&self, request: &RangeRequest, at: At) -> RangeResponse {
        let mut response = RangeResponse { revision: self.revision, ..RangeResponse::default() };
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        self.each(&request.key, request.end.as_deref(), at, |kv| {
            response.count += 1;
            if request.count_only {
            } else if response.kvs.len() == limit {
                response.more = true;
            } else if request.keys_only {
                response.kvs.push(Arc::new(KeyValue { value: Bytes::new(), ..KeyValue::clone(kv) }));
            } else {
                response.kvs.push(Arc::clone(kv));
            }
        });
        response
    }

    /// Calls `visit` for every key of the range that exists now, in key order.
    pub(crate) fn each_newest<'a>(&'a self, key: &[u8], end: Option<&[u8]>, visit: impl FnMut(&'a Arc<KeyValue>)) {
        self.each(key, end, At::Newest, visit);
    }

    /// The state as of `revision` (which must be readable), in key order.
    pub(crate) fn each_at<'a>(&'a self, revision: i64, visit: impl FnMut(&'a Arc<KeyValue>)) {
        self.each(&[], Some(&[]), At::Revision(revision), visit);
    }

    fn each<'a>(&'a self, key: &[u8], end: Option<&[u8]>, at: At, mut visit: impl FnMut(&'a Arc<KeyValue>)) {
        let Some(end) = end else {
            if let Some(kv) = self.keys.get(key).and_then(|versions| versions.at(at)) {
                visit(kv);
            }
            return;
        };
        if !is_unbounded(end) && end <= key {
            return;
        }
        let upper = if is_unbounded(end) { Bound::Unbounded } else { Bound::Excluded(end) };
        for (_, versions) in self.keys.range::<_, [u8]>((Bound::Included(key), upper)) {
            if let Some(kv) = versions.at(at) {
                visit(kv);
            }
        }
    }

    /// The newest version of `key`, if it exists.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.keys.get(key).and_then(Versions::newest)
    }

    /// First revision whose events are kept.
    pub(crate) fn log_start(&self) -> i64 {
        self.revision - self.log.len() as i64 + 1
    }

    /// Events of `revision`, if it is in the history.
    pub(crate) fn events_of(&self, revision: i64) -> Option<&Arc<[Event]>> {
        let offset = usize::try_from(revision - self.log_start()).ok()?;
        self.log.get(offset)
    }
}

impl Versions {
    /// The newest version, if the key exists.
    pub(crate) fn newest(&self) -> Option<&Arc<KeyValue>> {
        self.at(At::Newest)
    }

    fn at(&self, at: At) -> Option<&Arc<KeyValue>> {
        match (self, at) {
            (Self::One(kv), At::Newest) => Some(kv),
            (Self::One(kv), At::Revision(revision)) => (kv.mod_revision <= revision).then_some(kv),
            (Self::Many { newest, .. }, At::Newest) => newest.kv(),
            (Self::Many { newest, .. }, At::Revision(revision)) if newest.revision() <= revision => newest.kv(),
            (Self::Many { older, .. }, At::Revision(revision)) => {
                let after = match older.binary_search_by(|version| version.revision().cmp(&revision)) {
                    Ok(found) => found + 1,
                    Err(insertion) => insertion,
                };
                after.checked_sub(1).and_then(|last| older.get(last)).and_then(Version::kv)
            }
        }
    }

    /// Adds a version that is newer than all others.
    pub(crate) fn push(&mut self, version: Version) {
        match self {
            Self::One(kv) => {
                let older = Arc::new(Vector::unit(Version::Put(Arc::clone(kv))));
                *self = Self::Many { newest: version, older };
            }
            Self::Many { newest, older } => Arc::make_mut(older).push_back(std::mem::replace(newest, version)),
        }
    }

    /// Drops what no read at or after `compact_revision` can see. Returns the bytes freed, and whether nothing is left.
    pub(crate) fn prune(&mut self, key_len: u64, compact_revision: i64) -> (u64, bool) {
        let Self::Many { newest, older } = self else { return (0, false) };
        let is_newest_seen = newest.revision() <= compact_revision;
        let superseded = if is_newest_seen {
            older.len()
        } else {
            let seen = older.iter().take_while(|version| version.revision() <= compact_revision).count();
            // The newest of them is still seen, unless it says that the key does not exist: so says its absence.
            let needed = seen > 0 && older.get(seen - 1).is_some_and(|version| version.kv().is_some());
            seen - usize::from(needed)
        };
        let mut freed = 0;
        if superseded > 0 {
            let older = Arc::make_mut(older);
            for _ in 0..superseded {
                freed += older.pop_front().map_or(0, |version| version.bytes(key_len));
            }
        }
        if !older.is_empty() {
            return (freed, false);
        }
        match newest {
            Version::Put(kv) => *self = Self::One(Arc::clone(kv)),
            Version::Deleted(_) if is_newest_seen => return (freed + newest.bytes(key_len), true),
            Version::Deleted(_) => {}
        }
        (freed, false)
    }
}

impl Version {
    pub(crate) fn kv(&self) -> Option<&Arc<KeyValue>> {
        match self {
            Self::Put(kv) => Some(kv),
            Self::Deleted(_) => None,
        }
    }

    fn revision(&self) -> i64 {
        match self {
            Self::Put(kv) => kv.mod_revision,
            Self::Deleted(revision) => *revision,
        }
    }

    /// Memory that this version accounts for.
    pub(crate) fn bytes(&self, key_len: u64) -> u64 {
        key_len + self.kv().map_or(0, |kv| kv.value.len() as u64) + VERSION_OVERHEAD
    }
}

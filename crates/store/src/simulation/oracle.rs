//! What must be true. Every violation is an `Err` with a sentence.
//!
//! Revisions order all writes, so linearizability is checked against that order: each answer names its place in it, places
//! respect real time, and values are those of the one history that all members agree on.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;

use crate::membership::Cluster;
use crate::mvcc::State;
use crate::watch::{Event, EventKind};

/// A change of a key: key, value (`None`: deleted).
pub(super) type Change = (Bytes, Option<Bytes>);

/// What a client did and was told.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) invoked: Duration,
    pub(super) returned: Duration,
    /// Its place: at this revision; a write makes it, a read sees it.
    pub(super) revision: i64,
    pub(super) is_write: bool,
    pub(super) key: Bytes,
    /// What was written, or read (`None`: nothing there).
    pub(super) value: Option<Bytes>,
    /// The write took place because the key's last change was at this revision (0: not there).
    pub(super) compared: Option<i64>,
}

#[derive(Default)]
pub(super) struct Oracle {
    /// Revision -> its changes, as the first member that applied it did.
    pub(super) history: BTreeMap<i64, Vec<Change>>,
    /// Index -> a summary of the state there.
    summaries: HashMap<u64, Summary>,
    done: Vec<Done>,
    leases: BTreeMap<i64, Lease>,
    /// Lease -> the first entry after which a member was seen to have it.
    seen: HashMap<i64, u64>,
    /// Term -> its leader.
    leaders: HashMap<u64, u64>,
    /// Values whose writes were refused for certain.
    refused: Vec<Bytes>,
}

/// What must be the same on every member at the same index, beside the history. Copies share their content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Summary {
    revision: i64,
    compact_revision: i64,
    live: (u64, u64),
    leases: OrdMap<i64, i64>,
    cluster: Cluster,
}

impl Summary {
    fn of(state: &State) -> Self {
        Self {
            revision: state.revision,
            compact_revision: state.compact_revision,
            live: (state.live_keys, state.live_bytes),
            leases: state.leases.clone(),
            cluster: state.cluster.clone(),
        }
    }
}

struct Lease {
    ttl: Duration,
    /// When the last renewal that was answered had been asked for.
    renewed: Duration,
    ended: Option<Duration>,
}

impl Lease {
    /// Until then at least, by the clock of a leader that is a little too fast.
    fn lives_until(&self) -> Duration {
        self.renewed + self.ttl - self.ttl / 1000
    }
}

impl Oracle {
    /// A member shows this state.
    pub(super) fn state(&mut self, now: Duration, member: u64, seen: i64, state: &State) -> Result<(), String> {
        let summary = Summary::of(state);
        let known = self.summaries.entry(state.index).or_insert_with(|| summary.clone());
        if *known != summary {
            return Err(format!("member {member} differs at entry {}: {summary:?}, not {known:?}", state.index));
        }
        for revision in (seen + 1).max(state.log_start())..=state.revision {
            // Of the revision of a compaction, the events may have lost their values.
            if revision <= state.compact_revision {
                continue;
            }
            let changes: Vec<_> = state.events_of(revision).into_iter().flat_map(|e| e.iter().map(change)).collect();
            let known = self.history.entry(revision).or_insert_with(|| changes.clone());
            if *known != changes {
                return Err(format!("member {member} has {changes:?} at revision {revision}, others {known:?}"));
            }
        }
        let mut orphan = None;
        state.each_newest(b"k/", Some(b"k0"), |kv| {
            if kv.lease != 0 && !state.leases.contains_key(&kv.lease) {
                orphan = Some(kv.key.clone());
            }
        });
        if let Some(key) = orphan {
            return Err(format!("member {member} keeps {key:?}, whose lease has ended"));
        }
        self.lease_ends(now, state)
    }

    fn lease_ends(&mut self, now: Duration, state: &State) -> Result<(), String> {
        for id in state.leases.keys() {
            let seen = self.seen.entry(*id).or_insert(state.index);
            *seen = state.index.min(*seen);
        }
        let gone =
            self.leases.iter_mut().filter(|(id, lease)| lease.ended.is_none() && !state.leases.contains_key(*id));
        for (id, lease) in gone {
            // A member that lags does not know it yet.
            if self.seen.get(id).is_none_or(|seen| state.index <= *seen) {
                continue;
            }
            lease.ended = Some(now);
            if now < lease.lives_until() {
                return Err(format!("lease {id} ended at {now:?}, renewed at {:?} for {:?}", lease.renewed, lease.ttl));
            }
        }
        Ok(())
    }

    /// A member says that it leads.
    pub(super) fn leads(&mut self, member: u64, term: u64) -> Result<(), String> {
        match *self.leaders.entry(term).or_insert(member) {
            known if known != member => Err(format!("members {known} and {member} both lead in term {term}")),
            _ => Ok(()),
        }
    }

    pub(super) fn granted(&mut self, id: i64, ttl: Duration, asked: Duration) {
        self.leases.insert(id, Lease { ttl, renewed: asked, ended: None });
    }

    pub(super) fn renewed(&mut self, id: i64, asked: Duration) -> Result<(), String> {
        let Some(lease) = self.leases.get_mut(&id) else { return Ok(()) };
        lease.renewed = lease.renewed.max(asked);
        match lease.ended {
            Some(ended) if ended < lease.lives_until() => {
                Err(format!("lease {id} ended at {ended:?} although it was renewed at {asked:?}"))
            }
            _ => Ok(()),
        }
    }

    /// A client was told for certain that its write did not happen.
    pub(super) fn refused(&mut self, value: Bytes) {
        self.refused.push(value);
    }

    pub(super) fn done(&mut self, done: Done) {
        self.done.push(done);
    }

    /// Everything is over: the answers against the history.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let mut per_key: HashMap<&Bytes, BTreeMap<i64, Option<&Bytes>>> = HashMap::new();
        for (revision, changes) in &self.history {
            for (key, value) in changes {
                per_key.entry(key).or_default().insert(*revision, value.as_ref());
            }
        }
        let mut values = HashMap::new();
        for (revision, changes) in &self.history {
            for value in changes.iter().filter_map(|(_, value)| value.as_ref()) {
                if let Some(before) = values.insert(value, revision) {
                    return Err(format!("{value:?} was written at {before} and again at {revision}"));
                }
            }
        }
        if let Some(value) = self.refused.iter().find(|value| values.contains_key(value)) {
            return Err(format!("{value:?} was refused and is there nevertheless"));
        }
        for done in &self.done {
            let newest = per_key.get(&done.key).and_then(|changes| changes.range(..=done.revision).next_back());
            let found = newest.and_then(|(_, value)| value.cloned());
            if found != done.value {
                return Err(format!("{done:?}, but the history says {found:?}"));
            }
            if done.is_write && newest.is_none_or(|(revision, _)| *revision != done.revision) {
                return Err(format!("an acknowledged write is lost: {done:?}"));
            }
            let before = per_key.get(&done.key).and_then(|changes| changes.range(..done.revision).next_back());
            let before = before.map_or(0, |(revision, value)| if value.is_some() { *revision } else { 0 });
            if done.compared.is_some_and(|compared| compared != before) {
                return Err(format!("{done:?} was compared with the state at {before}"));
            }
        }
        self.check_real_time()
    }

    /// What began after something had returned comes after it.
    fn check_real_time(&mut self) -> Result<(), String> {
        let mut by_return: Vec<&Done> = self.done.iter().collect();
        by_return.sort_by_key(|done| done.returned);
        let mut by_invocation: Vec<&Done> = self.done.iter().collect();
        by_invocation.sort_by_key(|done| done.invoked);
        let (mut newest, mut ended) = (0, by_return.into_iter().peekable());
        for done in by_invocation {
            while let Some(before) = ended.next_if(|before| before.returned < done.invoked) {
                newest = newest.max(before.revision);
            }
            if done.revision < newest || done.is_write && done.revision == newest {
                return Err(format!("{done:?} began when revision {newest} had been answered"));
            }
        }
        Ok(())
    }

    /// The changes of a revision that concern a prefix, as a watch must deliver them.
    pub(super) fn expected(&self, revision: i64, prefix: &[u8]) -> Vec<Change> {
        let changes = self.history.get(&revision).into_iter().flatten();
        changes.filter(|(key, _)| key.starts_with(prefix)).cloned().collect()
    }
}

pub(super) fn change(event: &Event) -> Change {
    let value = (event.kind == EventKind::Put).then(|| event.kv.value.clone());
    (event.kv.key.clone(), value)
}

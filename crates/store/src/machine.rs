//! The state machine: a command and the state before -> the state after and the outcome.
//!
//! Deterministic: the outcome depends on the entries applied so far and on nothing else (no clock, no randomness), so every
//! member arrives at the same state. A command either takes effect as a whole or, with an error, not at all.
//! The cleaning up after a compaction is done in steps of bounded size ([`Machine::clean_up`]); it changes what is kept in
//! memory, never what can be read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use imbl::Vector;

use crate::command::Command;
use crate::error::KvError;
use crate::kv::{KeyValue, LeaseGranted, Op, OpResult, Put, RangeRequest, Txn, TxnResponse};
use crate::membership::Cluster;
use crate::mvcc::{State, Version, Versions};
use crate::peer::{MemberChangeError, MemberInfo};
use crate::policy::Policy;
use crate::proposal::ProposalId;
use crate::txn::{Chosen, Step, choose};
use crate::watch::{Event, EventKind};

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Txn(TxnResponse),
    Granted(LeaseGranted),
    /// The store's revision after a lease has ended.
    Revoked(i64),
    Members(Result<Vec<MemberInfo>, MemberChangeError>),
    /// The policy's new revision.
    Policy(u64),
    Done,
}

/// The newest state, and what belongs to it but no reader needs.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    /// Lease -> its keys. Derived from the keys' `lease`.
    attached: HashMap<i64, BTreeSet<Bytes>>,
    /// Revisions cut from the log, whose keys are still to be pruned.
    garbage: Vector<Arc<[Event]>>,
}

impl Machine {
    pub(crate) fn new(state: State) -> Self {
        let mut attached: HashMap<i64, BTreeSet<Bytes>> = HashMap::new();
        state.each_newest(&[], Some(&[]), |kv| {
            if kv.lease != 0 {
                attached.entry(kv.lease).or_default().insert(kv.key.clone());
            }
        });
        Self { state, attached, garbage: Vector::new() }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Keys of a lease, in order.
    pub(crate) fn attached_keys(&self, lease: i64) -> Vec<Bytes> {
        self.attached.get(&lease).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// Executes the entry at a position (index, term). `None`: it is a copy of one that was executed before, and changes
    /// nothing.
    pub(crate) fn apply(
        &mut self,
        (index, term): (u64, u64),
        id: Option<&ProposalId>,
        command: &Command,
    ) -> Option<Result<Outcome, KvError>> {
        self.state.index = index;
        self.state.term = term;
        if let Some(id) = id
            && !(self.state.cluster.contains(id.member) && self.state.cluster.sessions.settle(id))
        {
            return None;
        }
        Some(self.execute(index, command))
    }

    fn execute(&mut self, index: u64, command: &Command) -> Result<Outcome, KvError> {
        match command {
            Command::Nothing => Ok(Outcome::Done),
            Command::Txn(txn) => self.apply_txn(txn).map(Outcome::Txn),
            Command::Compact { revision } => self.apply_compact(*revision),
            Command::LeaseGrant { id, ttl_seconds } => self.apply_grant(index, *id, *ttl_seconds),
            Command::LeaseRevoke { id } => self.apply_revoke(*id),
            Command::Member(change) => {
                let cluster = &mut self.state.cluster;
                Ok(Outcome::Members(cluster.apply(change).map(|()| cluster.list())))
            }
            Command::Policy(changes) => self.state.policy.apply(changes).map(Outcome::Policy),
            Command::Judged { by, .. } if *by != self.state.policy.revision => Err(KvError::PolicyChanged),
            Command::Judged { command, .. } => self.execute(index, command),
        }
    }

    fn apply_txn(&mut self, txn: &Txn) -> Result<TxnResponse, KvError> {
        let chosen = choose(&self.state, txn);
        chosen.check(&self.state)?;
        let mut write = Write::new(self);
        let mut response = write.execute(&chosen);
        let revision = write.finish();
        stamp(&mut response, revision);
        Ok(response)
    }

    fn apply_grant(&mut self, index: u64, id: i64, ttl_seconds: i64) -> Result<Outcome, KvError> {
        if id != 0 && self.state.leases.contains_key(&id) {
            return Err(KvError::LeaseExists { id });
        }
        let mut id = if id == 0 { scatter(index) } else { id };
        while id == 0 || self.state.leases.contains_key(&id) {
            id = (id + 1) & i64::MAX;
        }
        self.state.leases.insert(id, ttl_seconds);
        Ok(Outcome::Granted(LeaseGranted { id, ttl_seconds, revision: self.state.revision }))
    }

    fn apply_revoke(&mut self, id: i64) -> Result<Outcome, KvError> {
        if self.state.leases.remove(&id).is_none() {
            return Err(KvError::LeaseNotFound { id });
        }
        let keys = self.attached.remove(&id).unwrap_or_default();
        let mut write = Write::new(self);
        for key in keys {
            write.delete(&key);
        }
        Ok(Outcome::Revoked(write.finish()))
    }

    fn apply_compact(&mut self, revision: i64) -> Result<Outcome, KvError> {
        if revision <= self.state.compact_revision {
            return Err(KvError::Compacted { compact_revision: self.state.compact_revision });
        }
        if revision > self.state.revision {
            return Err(KvError::FutureRevision { revision: self.state.revision });
        }
        // The events of `revision` itself stay readable, but its keys lose their older versions.
        let cut = usize::try_from(revision - self.state.log_start()).unwrap_or(0).min(self.state.log.len());
        let kept = self.state.log.split_off(cut);
        let trimmed = std::mem::replace(&mut self.state.log, kept);
        self.garbage.append(trimmed);
        if let Some(events) = self.state.events_of(revision) {
            self.garbage.push_back(Arc::clone(events));
        }
        self.state.compact_revision = revision;
        Ok(Outcome::Done)
    }

    /// Prunes the keys of about `events` events that compaction has left behind. Returns whether more is to be done.
    pub(crate) fn clean_up(&mut self, events: usize) -> bool {
        let mut done = 0;
        while done < events {
            let Some(revision) = self.garbage.pop_front() else { return false };
            for event in revision.iter() {
                self.prune(&event.kv.key);
            }
            done += revision.len();
        }
        !self.garbage.is_empty()
    }

    /// Whether [`Self::clean_up`] has something to do.
    pub(crate) fn has_garbage(&self) -> bool {
        !self.garbage.is_empty()
    }

    fn prune(&mut self, key: &[u8]) {
        // Most keys have nothing to prune; looking first spares copying shared nodes.
        if !matches!(self.state.keys.get(key), Some(Versions::Many { .. })) {
            return;
        }
        let Some(versions) = self.state.keys.get_mut(key) else { return };
        let (freed, gone) = versions.prune(key.len() as u64, self.state.compact_revision);
        self.state.total_bytes = self.state.total_bytes.saturating_sub(freed);
        if gone {
            self.state.keys.remove(key);
        }
    }

    fn attach(&mut self, key: &Bytes, from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(keys) = self.attached.get_mut(&from) {
            keys.remove(key);
            if keys.is_empty() {
                self.attached.remove(&from);
            }
        }
        if to != 0 {
            self.attached.entry(to).or_default().insert(key.clone());
        }
    }
}

/// The writes of one revision, while they are made.
struct Write<'m> {
    machine: &'m mut Machine,
    revision: i64,
    events: Vec<Event>,
}

impl<'m> Write<'m> {
    fn new(machine: &'m mut Machine) -> Self {
        let revision = machine.state.revision + 1;
        Self { machine, revision, events: Vec::new() }
    }

    /// Appends the revision to the log, if anything was written. Returns the store's revision then.
    fn finish(self) -> i64 {
        let state = &mut self.machine.state;
        if !self.events.is_empty() {
            state.revision = self.revision;
            state.log.push_back(self.events.into());
        }
        state.revision
    }

    fn execute(&mut self, chosen: &Chosen<'_>) -> TxnResponse {
        let results = chosen
            .steps
            .iter()
            .map(|step| match step {
                Step::Op(Op::Put(put)) => OpResult::Put { prev_kv: self.put(put).filter(|_| put.prev_kv) },
                Step::Op(Op::Delete(delete)) => self.delete_range(&delete.key, delete.end.as_deref(), delete.prev_kv),
                Step::Op(Op::Range(range)) => OpResult::Range(self.machine.state.range_in_txn(range)),
                // `choose` has resolved nested transactions.
                Step::Op(Op::Txn(_)) => OpResult::Txn(TxnResponse::default()),
                Step::Txn(nested) => OpResult::Txn(self.execute(nested)),
            })
            .collect();
        TxnResponse { revision: 0, succeeded: chosen.succeeded, results }
    }

    fn put(&mut self, put: &Put) -> Option<Arc<KeyValue>> {
        let known = self.machine.state.keys.get_key_value(put.key.as_ref());
        // A known key is shared between the map and all its versions.
        let (key, prev) = match known {
            Some((key, versions)) => (key.clone(), versions.newest().cloned()),
            None => (Bytes::copy_from_slice(&put.key), None),
        };
        let is_known = known.is_some();
        let kv = Arc::new(KeyValue {
            value: if put.ignore_value {
                prev.as_ref().map_or_else(Bytes::new, |p| p.value.clone())
            } else {
                put.value.clone()
            },
            create_revision: prev.as_ref().map_or(self.revision, |p| p.create_revision),
            mod_revision: self.revision,
            version: prev.as_ref().map_or(0, |p| p.version) + 1,
            lease: if put.ignore_lease { prev.as_ref().map_or(0, |p| p.lease) } else { put.lease },
            key: key.clone(),
        });
        let version = Version::Put(Arc::clone(&kv));
        self.account(&key, prev.as_deref(), &version);
        match self.machine.state.keys.get_mut(key.as_ref()) {
            Some(versions) if is_known => versions.push(version),
            _ => {
                self.machine.state.keys.insert(key.clone(), Versions::One(Arc::clone(&kv)));
            }
        }
        self.machine.attach(&key, prev.as_ref().map_or(0, |p| p.lease), kv.lease);
        self.events.push(Event { kind: EventKind::Put, kv, prev_kv: prev.clone() });
        prev
    }

    fn delete_range(&mut self, key: &[u8], end: Option<&[u8]>, prev_kv: bool) -> OpResult {
        let mut doomed = Vec::new();
        self.machine.state.each_newest(key, end, |kv| doomed.push(Arc::clone(kv)));
        for kv in &doomed {
            self.delete(&kv.key);
        }
        let deleted = doomed.len() as i64;
        OpResult::Delete { deleted, prev_kvs: if prev_kv { doomed } else { Vec::new() } }
    }

    fn delete(&mut self, key: &Bytes) {
        let Some(prev) = self.machine.state.newest(key).cloned() else { return };
        let version = Version::Deleted(self.revision);
        self.account(key, Some(&prev), &version);
        if let Some(versions) = self.machine.state.keys.get_mut(key.as_ref()) {
            versions.push(version);
        }
        self.machine.attach(&prev.key, prev.lease, 0);
        let kv = KeyValue { key: prev.key.clone(), mod_revision: self.revision, ..KeyValue::default() };
        self.events.push(Event { kind: EventKind::Delete, kv: Arc::new(kv), prev_kv: Some(prev) });
    }

    fn account(&mut self, key: &Bytes, prev: Option<&KeyValue>, version: &Version) {
        let state = &mut self.machine.state;
        let key_len = key.len() as u64;
        state.total_bytes += version.bytes(key_len);
        if let Some(prev) = prev {
            state.live_keys -= 1;
            state.live_bytes -= kv_bytes(prev);
        }
        if let Some(kv) = version.kv() {
            state.live_keys += 1;
            state.live_bytes += kv_bytes(kv);
        }
    }
}

/// Rebuilds a state from a checkpoint: the keys as of the compaction, then every later revision as it was executed.
#[derive(Debug)]
pub(crate) struct Rebuild {
    state: State,
}

impl Rebuild {
    pub(crate) fn new(compact_revision: i64, leases: imbl::OrdMap<i64, i64>, cluster: Cluster) -> Self {
        let state = State { compact_revision, revision: compact_revision.max(1), leases, cluster, ..State::new() };
        Self { state }
    }

    /// A key as of the compaction.
    pub(crate) fn base(&mut self, kv: Arc<KeyValue>) {
        let bytes = kv_bytes(&kv);
        self.state.live_keys += 1;
        self.state.live_bytes += bytes;
        self.state.total_bytes += bytes;
        self.state.keys.insert(kv.key.clone(), Versions::One(kv));
    }

    /// The events of the compaction revision itself: their effect is in the base, but a watch may still ask for them.
    pub(crate) fn first_events(&mut self, changes: Vec<KeyValue>, revision: i64) {
        let event = |change: KeyValue| match self.state.newest(&change.key).filter(|_| change.version > 0) {
            Some(kv) => Event { kind: EventKind::Put, kv: Arc::clone(kv), prev_kv: None },
            None => {
                let kv = KeyValue { mod_revision: revision, version: 0, ..change };
                Event { kind: EventKind::Delete, kv: Arc::new(kv), prev_kv: None }
            }
        };
        let events: Arc<[Event]> = changes.into_iter().map(event).collect();
        self.state.log.push_back(events);
    }

    /// The next revision. A version of 0 marks a delete.
    pub(crate) fn revision(&mut self, changes: Vec<KeyValue>) {
        let mut machine = Machine { state: self.take(), attached: HashMap::new(), garbage: Vector::new() };
        let mut write = Write::new(&mut machine);
        for change in changes {
            if change.version == 0 {
                write.delete(&change.key);
            } else {
                let (key, value, lease) = (change.key, change.value, change.lease);
                write.put(&Put { key, value, lease, ..Put::default() });
            }
        }
        write.finish();
        self.state = machine.state;
    }

    pub(crate) fn finish(mut self, index: u64, term: u64) -> State {
        self.state.index = index;
        self.state.term = term;
        self.state
    }

    pub(crate) fn policy(&mut self, policy: Policy) {
        self.state.policy = policy;
    }

    pub(crate) fn current_revision(&self) -> i64 {
        self.state.revision
    }

    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::new())
    }
}

fn kv_bytes(kv: &KeyValue) -> u64 {
    (kv.key.len() + kv.value.len()) as u64 + crate::mvcc::VERSION_OVERHEAD
}

/// Writes the final revision into a response and everything nested in it.
fn stamp(response: &mut TxnResponse, revision: i64) {
    response.revision = revision;
    for result in &mut response.results {
        match result {
            OpResult::Txn(nested) => stamp(nested, revision),
            OpResult::Range(range) => range.revision = revision,
            OpResult::Put { .. } | OpResult::Delete { .. } => {}
        }
    }
}

/// A well-spread positive number for an entry's index (the finalizer of SplitMix64).
fn scatter(index: u64) -> i64 {
    let mut z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 1) as i64
}

/// Whether executing `request` needs no log entry.
pub(crate) fn is_read_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Put(_) | Op::Delete(_) => false,
        Op::Range(RangeRequest { .. }) => true,
        Op::Txn(nested) => is_read_only(nested),
    })
}

/// Executes a read-only transaction on a snapshot.
pub(crate) fn read_txn(state: &State, txn: &Txn) -> Result<TxnResponse, KvError> {
    let chosen = choose(state, txn);
    chosen.check(state)?;
    // A snapshot is a value: executing on a clone costs a few reference counts.
    let mut machine = Machine { state: state.clone(), attached: HashMap::new(), garbage: Vector::new() };
    let mut write = Write::new(&mut machine);
    let mut response = write.execute(&chosen);
    stamp(&mut response, state.revision);
    Ok(response)
}

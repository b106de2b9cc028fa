//! Property: the store is indistinguishable from a naive model that keeps every revision as a whole map.
//!
//! Random transactions, compactions, reads of old revisions, restarts and watches; the model answers by looking things up.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ManualClock;
use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use store::{
    Compare, Config, Delete, EventKind, KeyValue, Kv, KvError, Op, OpResult, Put, RangeRequest, RangeResponse,
    Relation, SimDisk, Store, Target, Txn, TxnResponse, Watch, WatchRequest, in_range,
};

type Snapshot = BTreeMap<Bytes, KeyValue>;
type Change = (i64, EventKind, Bytes, Bytes);

/// Every revision is a whole map; index 0 is revision 1.
struct Model {
    revisions: Vec<Snapshot>,
    changes: Vec<Change>,
    compact_revision: i64,
}

impl Model {
    fn revision(&self) -> i64 {
        self.revisions.len() as i64
    }

    fn newest(&self) -> &Snapshot {
        self.revisions.last().unwrap()
    }

    fn range_of(&self, snapshot: &Snapshot, request: &RangeRequest) -> RangeResponse {
        let inside = |kv: &&KeyValue| in_range(&kv.key, &request.key, request.end.as_deref());
        let all: Vec<_> = snapshot.values().filter(inside).cloned().map(Arc::new).collect();
        let count = all.len() as i64;
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let more = all.len() > limit && !request.count_only;
        let mut kvs: Vec<_> = all.into_iter().take(if request.count_only { 0 } else { limit }).collect();
        if request.keys_only {
            kvs = kvs.iter().map(|kv| Arc::new(KeyValue { value: Bytes::new(), ..KeyValue::clone(kv) })).collect();
        }
        RangeResponse { revision: self.revision(), kvs, more, count }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        if request.revision > self.revision() {
            return Err(KvError::FutureRevision { revision: self.revision() });
        }
        if request.revision > 0 && request.revision < self.compact_revision {
            return Err(KvError::Compacted { compact_revision: self.compact_revision });
        }
        let at = if request.revision == 0 { self.revision() } else { request.revision };
        Ok(self.range_of(&self.revisions[at as usize - 1], request))
    }

    fn compact(&mut self, revision: i64) -> Result<(), KvError> {
        if revision <= self.compact_revision {
            return Err(KvError::Compacted { compact_revision: self.compact_revision });
        }
        if revision > self.revision() {
            return Err(KvError::FutureRevision { revision: self.revision() });
        }
        self.compact_revision = revision;
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let inside = |kv: &&KeyValue| in_range(&kv.key, &compare.key, compare.end.as_deref());
        let stored: Vec<_> = self.newest().values().filter(inside).cloned().collect();
        let test = |kv: &KeyValue| {
            let ordering = match &compare.target {
                Target::Version(n) => kv.version.cmp(n),
                Target::CreateRevision(n) => kv.create_revision.cmp(n),
                Target::ModRevision(n) => kv.mod_revision.cmp(n),
                Target::Lease(n) => kv.lease.cmp(n),
                Target::Value(v) => kv.value.cmp(v),
            };
            match compare.relation {
                Relation::Equal => ordering.is_eq(),
                Relation::NotEqual => ordering.is_ne(),
                Relation::Greater => ordering.is_gt(),
                Relation::Less => ordering.is_lt(),
            }
        };
        match (stored.is_empty(), &compare.target) {
            (true, Target::Value(_)) => false,
            (true, _) => test(&KeyValue::default()),
            (false, _) => stored.iter().all(test),
        }
    }

    fn txn(&mut self, txn: &Txn) -> TxnResponse {
        let mut next = self.newest().clone();
        let before = self.changes.len();
        let revision = self.revision() + 1;
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let mut results = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            results.push(self.op(op, revision, &mut next));
        }
        if self.changes.len() > before {
            self.revisions.push(next);
        }
        let revision = self.revision();
        for result in &mut results {
            if let OpResult::Range(range) = result {
                range.revision = revision;
            }
        }
        TxnResponse { revision, succeeded, results }
    }

    fn op(&mut self, op: &Op, revision: i64, next: &mut Snapshot) -> OpResult {
        match op {
            Op::Put(put) => {
                let prev = next.get(&put.key).cloned();
                let kv = KeyValue {
                    key: put.key.clone(),
                    value: put.value.clone(),
                    create_revision: prev.as_ref().map_or(revision, |p| p.create_revision),
                    mod_revision: revision,
                    version: prev.as_ref().map_or(1, |p| p.version + 1),
                    lease: 0,
                };
                self.changes.push((revision, EventKind::Put, put.key.clone(), put.value.clone()));
                next.insert(put.key.clone(), kv);
                OpResult::Put { prev_kv: prev.filter(|_| put.prev_kv).map(Arc::new) }
            }
            Op::Delete(delete) => {
                let inside = |kv: &&KeyValue| in_range(&kv.key, &delete.key, delete.end.as_deref());
                let gone: Vec<_> = next.values().filter(inside).cloned().collect();
                for kv in &gone {
                    next.remove(&kv.key);
                    self.changes.push((revision, EventKind::Delete, kv.key.clone(), Bytes::new()));
                }
                let deleted = gone.len() as i64;
                let prev_kvs = if delete.prev_kv { gone.into_iter().map(Arc::new).collect() } else { vec![] };
                OpResult::Delete { deleted, prev_kvs }
            }
            Op::Range(range) => OpResult::Range(self.range_of(next, range)),
            Op::Txn(_) => unreachable!("not generated"),
        }
    }

    /// What a watch that has seen everything before `from` must deliver up to now.
    fn changes_in(&self, from: i64, request: &WatchRequest) -> Vec<Change> {
        let wanted = |c: &&Change| c.0 >= from && in_range(&c.2, &request.key, request.end.as_deref());
        self.changes.iter().filter(wanted).cloned().collect()
    }

    fn value_before(&self, revision: i64, key: &Bytes) -> Option<KeyValue> {
        self.revisions[revision as usize - 2].get(key).cloned()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Txn(Txn),
    Range(RangeRequest),
    Compact(i64),
    Watch(WatchRequest),
    /// Read the watch with this number to its end.
    Read(usize),
    Reopen,
}

fn key() -> impl Strategy<Value = Bytes> {
    (0..8u8).prop_map(|n| Bytes::from(format!("k{n}")))
}

fn end() -> impl Strategy<Value = Option<Bytes>> {
    prop_oneof![4 => Just(None), 3 => key().prop_map(Some), 1 => Just(Some(Bytes::new())), 1 => Just(Some(Bytes::from_static(b"\0")))]
}

/// Far revisions are drawn relative to the newest when the step is executed; see `resolve`.
fn range() -> impl Strategy<Value = RangeRequest> {
    (key(), end(), prop_oneof![Just(0i64), -12..=1i64], 0..4usize, any::<bool>(), any::<bool>()).prop_map(
        |(key, end, revision, limit, keys_only, count_only)| RangeRequest {
            key,
            end,
            revision,
            limit,
            keys_only,
            count_only,
            serializable: false,
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation =
        prop_oneof![Just(Relation::Equal), Just(Relation::NotEqual), Just(Relation::Greater), Just(Relation::Less)];
    let target = prop_oneof![
        (0..4i64).prop_map(Target::Version),
        (0..30i64).prop_map(Target::CreateRevision),
        (0..30i64).prop_map(Target::ModRevision),
        (0..5u8).prop_map(|n| Target::Value(vec![n].into())),
    ];
    (key(), end(), relation, target).prop_map(|(key, end, relation, target)| Compare { key, end, relation, target })
}

fn op() -> impl Strategy<Value = Op> {
    let put = (key(), 0..5u8, any::<bool>())
        .prop_map(|(key, n, prev_kv)| Op::Put(Put { key, value: vec![n].into(), prev_kv, ..Put::default() }));
    let delete = (key(), end(), any::<bool>()).prop_map(|(key, end, prev_kv)| Op::Delete(Delete { key, end, prev_kv }));
    let read = range().prop_map(|range| Op::Range(RangeRequest { revision: 0, ..range }));
    prop_oneof![4 => put, 2 => delete, 1 => read]
}

fn step() -> impl Strategy<Value = Step> {
    let ops = || prop::collection::vec(op(), 0..4);
    let txn = (prop::collection::vec(compare(), 0..3), ops(), ops())
        .prop_map(|(compares, success, failure)| Step::Txn(Txn { compares, success, failure }));
    let watch = (key(), end(), -12..=3i64, any::<bool>()).prop_map(|(key, end, start_revision, prev_kv)| {
        Step::Watch(WatchRequest { key, end, start_revision, prev_kv })
    });
    prop_oneof![
        12 => txn,
        5 => range().prop_map(Step::Range),
        1 => (-8..=1i64).prop_map(Step::Compact),
        2 => watch,
        4 => (0..6usize).prop_map(Step::Read),
        1 => Just(Step::Reopen),
    ]
}

/// A watch and what it has been told already.
struct Watcher {
    request: WatchRequest,
    watch: Watch,
    next: i64,
}

struct World {
    disk: SimDisk,
    store: Store,
    model: Model,
    watchers: Vec<Watcher>,
}

fn open(disk: &SimDisk) -> Store {
    let config = Config { segment_bytes: 4000, checkpoint_log_bytes: 3000, ..Config::default() };
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    Store::open(config, Arc::new(disk.clone()), Arc::new(clock), Arc::new(store::NoPeers)).unwrap()
}

impl World {
    async fn execute(&mut self, step: Step) {
        match step {
            Step::Txn(txn) => match self.store.txn(txn.clone()).await {
                Err(KvError::DuplicateKey) => {}
                answer => assert_eq!(answer, Ok(self.model.txn(&txn))),
            },
            Step::Range(mut range) => {
                if range.revision != 0 {
                    range.revision = (self.model.revision() + range.revision).max(1);
                }
                assert_eq!(self.store.range(range.clone()).await, self.model.range(&range), "{range:?}");
            }
            Step::Compact(back) => {
                let revision = (self.model.revision() + back).max(1);
                assert_eq!(self.store.compact(revision).await, self.model.compact(revision));
            }
            Step::Watch(request) => self.watch(request).await,
            Step::Read(n) => {
                if n < self.watchers.len() {
                    self.read(n).await;
                }
            }
            Step::Reopen => {
                for n in (0..self.watchers.len()).rev() {
                    self.read(n).await;
                }
                self.store.close();
                self.store = open(&self.disk);
                for watcher in &mut self.watchers {
                    let request = WatchRequest { start_revision: watcher.next, ..watcher.request.clone() };
                    watcher.watch = self.store.watch(request).await.unwrap();
                }
            }
        }
    }

    async fn watch(&mut self, mut request: WatchRequest) {
        request.start_revision = (self.model.revision() + request.start_revision).max(0);
        let next = if request.start_revision == 0 { self.model.revision() + 1 } else { request.start_revision };
        match self.store.watch(request.clone()).await {
            Ok(watch) => self.watchers.push(Watcher { request, watch, next }),
            Err(error) => {
                assert!(next < self.model.compact_revision);
                assert_eq!(error, KvError::Compacted { compact_revision: self.model.compact_revision });
            }
        }
    }

    /// Reads a watch until it says that it is complete, and compares. One that is too late must say so.
    async fn read(&mut self, n: usize) {
        let watcher = &mut self.watchers[n];
        let expected = self.model.changes_in(watcher.next, &watcher.request);
        let mut found = Vec::new();
        watcher.watch.request_progress();
        loop {
            match watcher.watch.next_batch().await {
                Ok(batch) if batch.events.is_empty() => {
                    assert!(batch.revision >= self.model.revision().min(watcher.next - 1));
                    break;
                }
                Ok(batch) => {
                    for event in batch.events {
                        assert!(event.kv.mod_revision <= batch.revision);
                        let before = self.model.value_before(event.kv.mod_revision, &event.kv.key);
                        match &event.prev_kv {
                            Some(prev) => assert_eq!(Some(KeyValue::clone(prev)), before),
                            // After a restart the oldest revision has lost what was before it.
                            None => assert!(
                                !watcher.request.prev_kv
                                    || before.is_none()
                                    || event.kv.mod_revision <= self.model.compact_revision
                                    || found
                                        .iter()
                                        .any(|c: &Change| c.0 == event.kv.mod_revision && c.2 == event.kv.key)
                            ),
                        }
                        found.push((event.kv.mod_revision, event.kind, event.kv.key.clone(), event.kv.value.clone()));
                    }
                }
                Err(error) => {
                    assert_eq!(error, KvError::Compacted { compact_revision: self.model.compact_revision });
                    assert!(watcher.next <= self.model.compact_revision);
                    self.watchers.remove(n);
                    return;
                }
            }
        }
        assert_eq!(found, expected);
        watcher.next = watcher.next.max(self.model.revision() + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_like_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let disk = SimDisk::new();
            let model = Model { revisions: vec![Snapshot::new()], changes: vec![], compact_revision: 0 };
            let mut world = World { store: open(&disk), disk, model, watchers: vec![] };
            for step in steps {
                world.execute(step).await;
            }
            for n in (0..world.watchers.len()).rev() {
                world.read(n).await;
            }
        });
    }
}

//! A slow disk: writes group-commit, and nothing else notices. The clock is ours, the disk's syncs are held by the test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use base::ManualClock;
use futures::future::join_all;
use jiff::Timestamp;
use store::{Config, Kv, KvError, Op, Put, RangeRequest, SimDisk, Store, Txn, WatchRequest};
use tokio::task::JoinHandle;

const SLOW: Duration = Duration::from_millis(800);

struct Slow {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    store: Arc<Store>,
}

fn open(disk: SimDisk) -> Slow {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let store =
        Store::open(Config::default(), Arc::new(disk.clone()), clock.clone(), Arc::new(store::NoPeers)).unwrap();
    Slow { disk, clock, store: Arc::new(store) }
}

fn put(key: &str, value: &str) -> Txn {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Txn::of(Op::Put(Put { key, value, ..Put::default() }))
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

impl Slow {
    fn spawn_put(&self, key: String) -> JoinHandle<Result<i64, KvError>> {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.txn(put(&key, "v")).await.map(|response| response.revision) })
    }

    /// One sync takes 800 ms of the clock.
    async fn one_slow_sync(&self) {
        let disk = self.disk.clone();
        tokio::task::spawn_blocking(move || disk.wait_for_held_sync()).await.unwrap();
        self.clock.advance(SLOW);
        self.disk.pass_sync();
    }
}

#[tokio::test]
async fn writes_group_commit_and_reads_watches_and_leases_go_on() {
    let slow = open(SimDisk::new());
    slow.store.txn(put("before", "1")).await.unwrap();
    let lease = slow.store.lease_grant(0, 10).await.unwrap();
    let mut watch = slow
        .store
        .watch(WatchRequest { key: "a".into(), end: Some("z".into()), start_revision: 2, prev_kv: false })
        .await
        .unwrap();
    assert_eq!(watch.next_batch().await.unwrap().events.len(), 1);

    slow.disk.hold_syncs(true);
    let first = slow.spawn_put("first".into());
    let disk = slow.disk.clone();
    tokio::task::spawn_blocking(move || disk.wait_for_held_sync()).await.unwrap();
    let others: Vec<_> = (0..1000).map(|n| slow.spawn_put(format!("key-{n}"))).collect();

    // The disk is stuck in a sync. Everything that needs no disk answers nevertheless.
    while slow.store.status().await.unwrap().pending_proposals < 1001 {
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.store.range(get("before")).await.unwrap().kvs.len(), 1);
    assert_eq!(slow.store.range(get("first")).await.unwrap().kvs.len(), 0, "not durable, so not visible");
    assert_eq!(slow.store.lease_keep_alive(lease.id).await, Ok(10));
    watch.request_progress();
    let progress = watch.next_batch().await.unwrap();
    assert_eq!((progress.revision, progress.events.len()), (2, 0));
    assert!(!first.is_finished());
    slow.clock.advance(Duration::from_millis(100));
    assert!(slow.store.status().await.unwrap().wal_write_pending >= Duration::from_millis(100));

    let before = slow.disk.syncs();
    slow.one_slow_sync().await;
    first.await.unwrap().unwrap();
    slow.one_slow_sync().await;
    slow.disk.hold_syncs(false);
    let revisions: Vec<_> = join_all(others).await.into_iter().map(|revision| revision.unwrap().unwrap()).collect();
    assert_eq!(revisions.iter().max(), Some(&1003));
    assert!(slow.disk.syncs() - before <= 4, "1001 writes took {} syncs", slow.disk.syncs() - before);
    let status = slow.store.status().await.unwrap();
    assert_eq!(status.wal_fsync_seconds.counts[10], 2, "two syncs of 0.8 s: {:?}", status.wal_fsync_seconds);

    let mut seen = 0;
    while seen < 1001 {
        seen += watch.next_batch().await.unwrap().events.len();
    }
}

#[tokio::test]
async fn a_failed_fsync_stops_the_write_path_with_its_reason_and_reads_go_on() {
    let slow = open(SimDisk::new());
    slow.store.txn(put("a", "1")).await.unwrap();
    slow.disk.fail_syncs(true);
    let error = slow.store.txn(put("b", "1")).await.unwrap_err();
    assert!(matches!(error, KvError::Stopped { .. }), "{error}");
    assert!(error.to_string().contains("cannot sync the log wal-"), "{error}");
    assert!(error.to_string().contains("simulated failure of fsync"), "{error}");
    // Even if the disk claims to be well again: what it did with our data is unknown.
    slow.disk.fail_syncs(false);
    let syncs = slow.disk.syncs();
    assert!(matches!(slow.store.txn(put("c", "1")).await, Err(KvError::Stopped { .. })));
    assert_eq!(slow.disk.syncs(), syncs);
    assert_eq!(slow.store.failed().await.to_string(), slow.store.status().await.unwrap().stopped.unwrap().to_string());
    assert_eq!(slow.store.range(get("a")).await.unwrap().kvs.len(), 1);
    assert_eq!(slow.store.range(get("b")).await.unwrap().kvs.len(), 0);
}

#[tokio::test]
async fn leases_expire_through_the_log_and_only_then() {
    let slow = open(SimDisk::new());
    let lease = slow.store.lease_grant(0, 3).await.unwrap();
    let attached = Put { key: "leased".into(), value: "x".into(), lease: lease.id, ..Put::default() };
    slow.store.txn(Txn::of(Op::Put(attached))).await.unwrap();
    let step = async || {
        slow.clock.advance(Duration::from_secs(1));
        slow.store.tick().await;
    };
    slow.store.tick().await;
    step().await;
    step().await;
    assert_eq!(slow.store.lease_keep_alive(lease.id).await, Ok(3));
    step().await;
    step().await;
    let status = slow.store.lease_time_to_live(lease.id).await.unwrap();
    assert_eq!((status.remaining_seconds, status.keys.len()), (1, 1));
    let mut watch = slow
        .store
        .watch(WatchRequest { key: "leased".into(), prev_kv: true, ..WatchRequest::default() })
        .await
        .unwrap();
    step().await;
    let batch = watch.next_batch().await.unwrap();
    assert_eq!(batch.events[0].kind, store::EventKind::Delete);
    assert_eq!(batch.events[0].prev_kv.as_ref().unwrap().lease, lease.id);
    assert_eq!(slow.store.lease_time_to_live(lease.id).await, Err(KvError::LeaseNotFound { id: lease.id }));
    assert_eq!(slow.store.leases().await, Ok(vec![]));
}

#[tokio::test]
async fn a_busy_store_looks_at_its_clock() {
    let slow = open(SimDisk::new());
    slow.store.lease_grant(7, 3).await.unwrap();
    // Nobody calls for a tick, and between the writes there is no pause.
    for n in 0..2000 {
        slow.clock.advance(Duration::from_millis(10));
        slow.store.txn(put("a", &n.to_string())).await.unwrap();
    }
    assert_eq!(slow.store.leases().await, Ok(vec![]));
}

#[tokio::test]
async fn history_is_compacted_after_one_to_two_intervals() {
    let slow = open(SimDisk::new());
    let old = slow.store.txn(put("a", "1")).await.unwrap().revision;
    slow.store.txn(put("a", "2")).await.unwrap();
    let at = |revision| RangeRequest { revision, ..get("a") };
    for _ in 0..2 {
        assert_eq!(slow.store.range(at(old)).await.unwrap().kvs[0].value, "1");
        slow.clock.advance(Duration::from_secs(300));
        slow.store.tick().await;
    }
    while slow.store.status().await.unwrap().compact_revision < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.store.range(at(old)).await, Err(KvError::Compacted { compact_revision: 3 }));
    assert_eq!(slow.store.range(at(3)).await.unwrap().kvs[0].value, "2");
}

#[tokio::test]
async fn a_slow_watcher_costs_nothing_and_misses_nothing_until_its_history_is_compacted() {
    let slow = open(SimDisk::new());
    let request = WatchRequest { key: "k".into(), end: Some("l".into()), ..WatchRequest::default() };
    let mut late = slow.store.watch(request.clone()).await.unwrap();
    let mut too_late = slow.store.watch(request).await.unwrap();
    for n in 0..3000 {
        slow.store.txn(put(&format!("k{}", n % 7), "v")).await.unwrap();
    }
    let mut next = 2;
    while next <= 3001 {
        let batch = late.next_batch().await.unwrap();
        assert!(batch.events.len() <= 512);
        for event in batch.events {
            assert_eq!(event.kv.mod_revision, next);
            next += 1;
        }
    }
    slow.store.compact(3000).await.unwrap();
    assert_eq!(too_late.next_batch().await, Err(KvError::Compacted { compact_revision: 3000 }));
    assert!(matches!(too_late.next_batch().await, Err(KvError::Stopped { .. })));
}

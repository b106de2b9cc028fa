//! The contract of `Kv` for the embedded store: what every implementation keeps (`by_example`), and what it alone does. The
//! property test's model has the rest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod by_example;

use std::sync::Arc;
use std::time::Duration;

use base::ManualClock;
use by_example::{get, is, put};
use jiff::Timestamp;
use store::{Config, Delete, Kv, KvError, Op, RangeRequest, SimDisk, Store, Target, Txn, WatchRequest};

whole_contract!(fresh);

async fn fresh() -> (Arc<dyn Kv>, ()) {
    (Arc::new(open(&SimDisk::new())), ())
}

fn open(disk: &SimDisk) -> Store {
    let config = Config { checkpoint_log_bytes: 2000, segment_bytes: 2000, ..Config::default() };
    Store::open(
        config,
        Arc::new(disk.clone()),
        Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)),
        Arc::new(store::NoPeers),
    )
    .unwrap()
}

#[tokio::test]
async fn a_transaction_that_only_reads_is_no_revision_and_no_log_entry() {
    let disk = SimDisk::new();
    let store = open(&disk);
    store.txn(Txn::of(put("a", "1", 0))).await.unwrap();
    let operations = disk.operations();
    let txn = Txn { compares: vec![is("a", Target::Version(1))], success: vec![Op::Range(get("a"))], ..Txn::default() };
    let response = store.txn(txn).await.unwrap();
    assert_eq!((response.revision, response.succeeded, disk.operations()), (2, true, operations));
}

#[tokio::test]
async fn history_watches_and_leases_survive_a_restart() {
    let disk = SimDisk::new();
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let config = Config { checkpoint_log_bytes: 1000, segment_bytes: 1000, ..Config::default() };
    let open = || Store::open(config.clone(), Arc::new(disk.clone()), clock.clone(), Arc::new(store::NoPeers)).unwrap();
    let store = open();
    store.lease_grant(7, 60).await.unwrap();
    store.txn(Txn::of(put("leased", "1", 7))).await.unwrap();
    for n in 0..100 {
        store.txn(Txn::of(put("a", &n.to_string(), 0))).await.unwrap();
    }
    store.compact(50).await.unwrap();
    store.close();
    assert!(disk.content(&checkpoint(&disk)).is_some());
    clock.advance(Duration::from_secs(1000));
    let store = open();
    let old = store.range(RangeRequest { revision: 60, ..get("a") }).await.unwrap();
    assert_eq!((old.revision, old.kvs[0].value.as_ref()), (102, &b"57"[..]));
    let request = WatchRequest { key: "a".into(), start_revision: 50, prev_kv: true, ..WatchRequest::default() };
    let batch = store.watch(request).await.unwrap().next_batch().await.unwrap();
    assert_eq!((batch.events.len(), batch.revision, batch.events[0].kv.mod_revision), (53, 102, 50));
    assert_eq!(batch.events[1].prev_kv.as_ref().unwrap(), &batch.events[0].kv);
    // Nobody could renew while the store was down: a full time to live.
    let status = store.lease_time_to_live(7).await.unwrap();
    assert_eq!((status.remaining_seconds, status.keys), (60, vec!["leased".into()]));
    assert_eq!(
        store.range(RangeRequest { revision: 49, ..get("a") }).await,
        Err(KvError::Compacted { compact_revision: 50 })
    );
}

#[tokio::test]
async fn what_is_deleted_and_compacted_gives_its_disk_space_back() {
    let disk = SimDisk::new();
    let store = open(&disk);
    let mut revision = 0;
    for n in 0..200 {
        revision = store.txn(Txn::of(put(&format!("key-{n:03}"), &"v".repeat(100), 0))).await.unwrap().revision;
    }
    let full = store.status().await.unwrap().checkpoint_bytes;
    let most = Delete { key: "key-".into(), end: Some("key-19".into()), ..Delete::default() };
    store.txn(Txn::of(Op::Delete(most))).await.unwrap();
    store.compact(revision + 1).await.unwrap();
    // Nothing is written any more, and the log since the last checkpoint is short.
    let mut looks = 0;
    while store.status().await.unwrap().checkpoint_bytes >= full / 2 {
        looks += 1;
        assert!(looks < 1_000_000, "no checkpoint of the smaller state");
        tokio::task::yield_now().await;
    }
    let left = RangeRequest { end: Some("key.".into()), ..get("key-") };
    assert_eq!(store.range(left).await.unwrap().count, 10);
}

fn checkpoint(disk: &SimDisk) -> String {
    use store::Disk;
    disk.list().unwrap().into_iter().find(|name| name.starts_with("checkpoint-")).unwrap()
}

//! The contract of `Kv` by example: what the property test's model leaves out.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use base::ManualClock;
use jiff::Timestamp;
use store::{
    Compare, Config, Delete, EventKind, Kv, KvError, Op, OpResult, Put, RangeRequest, Relation, SimDisk, Store, Target,
    Txn, WatchRequest, prefix_end,
};

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

fn put(key: &str, value: &str, lease: i64) -> Op {
    Op::Put(Put { key: key.to_owned().into(), value: value.to_owned().into(), lease, ..Put::default() })
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn is(key: &str, target: Target) -> Compare {
    Compare { key: key.to_owned().into(), end: None, relation: Relation::Equal, target }
}

/// `key=value` of all keys.
async fn dump(store: &Store) -> String {
    let all = RangeRequest { key: "\0".into(), end: Some("\0".into()), ..RangeRequest::default() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kvs = store.range(all).await.unwrap().kvs;
    kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value))).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_transaction_is_one_revision_and_sees_its_own_writes() {
    let store = open(&SimDisk::new());
    let txn = Txn { success: vec![put("a", "1", 0), Op::Range(get("a")), put("b", "2", 0)], ..Txn::default() };
    let response = store.txn(txn).await.unwrap();
    assert_eq!((response.revision, response.succeeded), (2, true));
    let OpResult::Range(range) = &response.results[1] else { panic!("{response:?}") };
    assert_eq!((range.revision, range.kvs[0].mod_revision, range.kvs[0].version), (2, 2, 1));
}

#[tokio::test]
async fn nested_transactions_are_decided_on_the_state_before() {
    let store = open(&SimDisk::new());
    store.txn(Txn::of(put("a", "1", 0))).await.unwrap();
    let nested =
        |compare, yes, no| Op::Txn(Box::new(Txn { compares: vec![compare], success: vec![yes], failure: vec![no] }));
    // `a` is overwritten first, yet the nested compare sees the old value.
    let first = put("a", "2", 0);
    let inner = nested(is("a", Target::Value("1".into())), put("b", "old", 0), put("b", "new", 0));
    let other = nested(
        is("c", Target::ModRevision(0)),
        Op::Delete(Delete { key: "x".into(), ..Delete::default() }),
        put("c", "", 0),
    );
    let response = store.txn(Txn { success: vec![first, inner, other], ..Txn::default() }).await.unwrap();
    assert_eq!(dump(&store).await, "a=2 b=old");
    let OpResult::Txn(inner) = &response.results[1] else { panic!("{response:?}") };
    assert_eq!((inner.revision, inner.succeeded), (3, true));
    // The two branches of a nested transaction may write the same key, but not one that is written outside.
    let twice = nested(is("a", Target::Version(9)), put("d", "", 0), put("e", "", 0));
    let duplicate = Txn { success: vec![twice, put("e", "", 0)], ..Txn::default() };
    assert_eq!(store.txn(duplicate).await, Err(KvError::DuplicateKey));
}

#[tokio::test]
async fn a_failed_transaction_changes_nothing() {
    let store = open(&SimDisk::new());
    let txn = Txn { success: vec![put("a", "1", 0), put("b", "1", 42)], ..Txn::default() };
    assert_eq!(store.txn(txn).await, Err(KvError::LeaseNotFound { id: 42 }));
    assert_eq!((dump(&store).await.as_str(), store.status().await.unwrap().revision), ("", 1));
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
async fn put_can_keep_the_value_or_the_lease() {
    let store = open(&SimDisk::new());
    let lease = store.lease_grant(7, 60).await.unwrap().id;
    store.txn(Txn::of(put("a", "1", lease))).await.unwrap();
    let keep_lease = Put { key: "a".into(), value: "2".into(), ignore_lease: true, ..Put::default() };
    store.txn(Txn::of(Op::Put(keep_lease))).await.unwrap();
    let kv = store.range(get("a")).await.unwrap().kvs[0].clone();
    assert_eq!((kv.value.as_ref(), kv.lease), (&b"2"[..], 7));
    let keep_value = Put { key: "a".into(), ignore_value: true, ..Put::default() };
    store.txn(Txn::of(Op::Put(keep_value))).await.unwrap();
    let kv = store.range(get("a")).await.unwrap().kvs[0].clone();
    assert_eq!((kv.value.as_ref(), kv.lease, kv.version), (&b"2"[..], 0, 3));
    assert_eq!(store.lease_time_to_live(7).await.unwrap().keys.len(), 0);
}

#[tokio::test]
async fn revoking_a_lease_deletes_its_keys_in_one_revision() {
    let store = open(&SimDisk::new());
    store.lease_grant(7, 60).await.unwrap();
    assert_eq!(store.lease_grant(7, 60).await, Err(KvError::LeaseExists { id: 7 }));
    for key in ["a", "b", "c"] {
        store.txn(Txn::of(put(key, "1", 7))).await.unwrap();
    }
    store.txn(Txn::of(put("b", "detached", 0))).await.unwrap();
    let request = WatchRequest { key: "a".into(), end: prefix_end(b"z"), start_revision: 6, ..WatchRequest::default() };
    let mut watch = store.watch(request).await.unwrap();
    store.lease_revoke(7).await.unwrap();
    assert_eq!(dump(&store).await, "b=detached");
    let batch = watch.next_batch().await.unwrap();
    let seen: Vec<_> = batch.events.iter().map(|e| (e.kind, e.kv.mod_revision)).collect();
    assert_eq!(seen, [(EventKind::Delete, 6), (EventKind::Delete, 6)]);
    assert_eq!(store.lease_revoke(7).await, Err(KvError::LeaseNotFound { id: 7 }));
    let chosen = store.lease_grant(0, 60).await.unwrap().id;
    assert!(chosen > 0);
    assert_eq!(store.leases().await, Ok(vec![chosen]));
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

fn checkpoint(disk: &SimDisk) -> String {
    use store::Disk;
    disk.list().unwrap().into_iter().find(|name| name.starts_with("checkpoint-")).unwrap()
}

#[tokio::test]
async fn a_watch_may_begin_in_the_future() {
    let store = open(&SimDisk::new());
    let request = WatchRequest { key: "a".into(), start_revision: 4, ..WatchRequest::default() };
    let mut watch = store.watch(request).await.unwrap();
    for value in ["1", "2", "3"] {
        store.txn(Txn::of(put("a", value, 0))).await.unwrap();
    }
    let batch = watch.next_batch().await.unwrap();
    assert_eq!((batch.events.len(), batch.events[0].kv.value.as_ref()), (1, &b"3"[..]));
}

#[tokio::test]
async fn many_writers_and_a_watch_agree() {
    let store = Arc::new(open(&SimDisk::new()));
    let request = WatchRequest { key: "k".into(), end: prefix_end(b"k"), ..WatchRequest::default() };
    let mut watch = store.watch(request).await.unwrap();
    let writers = (0..32).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..50 {
                store.txn(Txn::of(put(&format!("k{writer}"), &n.to_string(), 0))).await.unwrap();
            }
        })
    });
    futures::future::join_all(writers.collect::<Vec<_>>()).await;
    let mut next = 2;
    while next < 2 + 32 * 50 {
        for event in watch.next_batch().await.unwrap().events {
            assert_eq!(event.kv.mod_revision, next);
            next += 1;
        }
    }
    assert_eq!(store.status().await.unwrap().watchers, 1);
    drop(watch);
    assert_eq!(store.status().await.unwrap().watchers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn narrow_watches_miss_nothing_while_others_write() {
    let store = Arc::new(open(&SimDisk::new()));
    let watchers = (0..16).map(|watcher| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            // Half of them watch one key, half a range of two keys; some are opened while writes are under way.
            let key = format!("k{watcher:02}");
            let end = (watcher % 2 == 0).then(|| format!("k{:02}", watcher + 2).into());
            let keys = if end.is_some() { 2 } else { 1 };
            let request = WatchRequest { key: key.into(), end, start_revision: 1, prev_kv: false };
            let mut watch = store.watch(request).await.unwrap();
            let (mut seen, mut last) = (0, 0);
            while seen < keys * 200 {
                watch.request_progress();
                let batch = watch.next_batch().await.unwrap();
                for event in batch.events {
                    assert!(event.kv.mod_revision > last && event.kv.mod_revision <= batch.revision);
                    last = event.kv.mod_revision;
                    seen += 1;
                }
            }
            seen
        })
    });
    let watchers: Vec<_> = watchers.collect();
    let writers = (0..17).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..200 {
                store.txn(Txn::of(put(&format!("k{writer:02}"), &n.to_string(), 0))).await.unwrap();
            }
        })
    });
    futures::future::join_all(writers.collect::<Vec<_>>()).await;
    let seen: i64 = futures::future::join_all(watchers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(seen, 8 * 400 + 8 * 200);
}

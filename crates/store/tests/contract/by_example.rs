//! The contract of `Kv` by example, for every implementation: whoever tests one names it with [`contract!`].
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use store::{
    Compare, Delete, EventKind, Kv, KvError, Op, OpResult, Put, RangeRequest, Relation, Target, Txn, WatchRequest,
    prefix_end,
};

/// One test for each example, on the fresh store that `$open.await` gives together with what must live as long.
macro_rules! contract {
    ($open:path: $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                let (store, _alive) = $open().await;
                by_example::$name(store).await;
            }
        )*
    };
}

/// All examples.
macro_rules! whole_contract {
    ($open:path) => {
        contract! { $open:
            a_transaction_is_one_revision_and_sees_its_own_writes
            nested_transactions_are_decided_on_the_state_before
            a_failed_transaction_changes_nothing
            put_can_keep_the_value_or_the_lease
            revoking_a_lease_deletes_its_keys_in_one_revision
            a_watch_may_begin_in_the_future
            many_writers_and_a_watch_agree
            narrow_watches_miss_nothing_while_others_write
            history_that_is_gone_is_named
            a_range_comes_whole_and_as_of_one_revision
        }
    };
}

pub fn put(key: &str, value: &str, lease: i64) -> Op {
    Op::Put(Put { key: key.to_owned().into(), value: value.to_owned().into(), lease, ..Put::default() })
}

pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

pub fn is(key: &str, target: Target) -> Compare {
    Compare { key: key.to_owned().into(), end: None, relation: Relation::Equal, target }
}

/// `key=value` of all keys.
pub async fn dump(store: &dyn Kv) -> String {
    let all = RangeRequest { key: "\0".into(), end: Some("\0".into()), ..RangeRequest::default() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kvs = store.range(all).await.unwrap().kvs;
    kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value))).collect::<Vec<_>>().join(" ")
}

pub async fn a_transaction_is_one_revision_and_sees_its_own_writes(store: Arc<dyn Kv>) {
    let txn = Txn { success: vec![put("a", "1", 0), Op::Range(get("a")), put("b", "2", 0)], ..Txn::default() };
    let response = store.txn(txn).await.unwrap();
    assert_eq!((response.revision, response.succeeded), (2, true));
    let OpResult::Range(range) = &response.results[1] else { panic!("{response:?}") };
    assert_eq!((range.revision, range.kvs[0].mod_revision, range.kvs[0].version), (2, 2, 1));
}

pub async fn nested_transactions_are_decided_on_the_state_before(store: Arc<dyn Kv>) {
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
    assert_eq!(dump(&*store).await, "a=2 b=old");
    let OpResult::Txn(inner) = &response.results[1] else { panic!("{response:?}") };
    assert_eq!((inner.revision, inner.succeeded), (3, true));
    // The two branches of a nested transaction may write the same key, but not one that is written outside.
    let twice = nested(is("a", Target::Version(9)), put("d", "", 0), put("e", "", 0));
    let duplicate = Txn { success: vec![twice, put("e", "", 0)], ..Txn::default() };
    assert_eq!(store.txn(duplicate).await, Err(KvError::DuplicateKey));
}

pub async fn a_failed_transaction_changes_nothing(store: Arc<dyn Kv>) {
    let txn = Txn { success: vec![put("a", "1", 0), put("b", "1", 42)], ..Txn::default() };
    assert_eq!(store.txn(txn).await, Err(KvError::LeaseNotFound { id: 42 }));
    assert_eq!((dump(&*store).await.as_str(), store.status().await.unwrap().revision), ("", 1));
}

pub async fn put_can_keep_the_value_or_the_lease(store: Arc<dyn Kv>) {
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

pub async fn revoking_a_lease_deletes_its_keys_in_one_revision(store: Arc<dyn Kv>) {
    store.lease_grant(7, 60).await.unwrap();
    assert_eq!(store.lease_grant(7, 60).await, Err(KvError::LeaseExists { id: 7 }));
    for key in ["a", "b", "c"] {
        store.txn(Txn::of(put(key, "1", 7))).await.unwrap();
    }
    store.txn(Txn::of(put("b", "detached", 0))).await.unwrap();
    let request = WatchRequest { key: "a".into(), end: prefix_end(b"z"), start_revision: 6, ..WatchRequest::default() };
    let mut watch = store.watch(request).await.unwrap();
    store.lease_revoke(7).await.unwrap();
    assert_eq!(dump(&*store).await, "b=detached");
    let batch = watch.next_batch().await.unwrap();
    let seen: Vec<_> = batch.events.iter().map(|e| (e.kind, e.kv.mod_revision)).collect();
    assert_eq!(seen, [(EventKind::Delete, 6), (EventKind::Delete, 6)]);
    assert_eq!(store.lease_revoke(7).await, Err(KvError::LeaseNotFound { id: 7 }));
    let chosen = store.lease_grant(0, 60).await.unwrap().id;
    assert!(chosen > 0);
    assert_eq!(store.leases().await, Ok(vec![chosen]));
}

pub async fn a_watch_may_begin_in_the_future(store: Arc<dyn Kv>) {
    let request = WatchRequest { key: "a".into(), start_revision: 4, ..WatchRequest::default() };
    let mut watch = store.watch(request).await.unwrap();
    for value in ["1", "2", "3"] {
        store.txn(Txn::of(put("a", value, 0))).await.unwrap();
    }
    let batch = watch.next_batch().await.unwrap();
    assert_eq!((batch.events.len(), batch.events[0].kv.value.as_ref()), (1, &b"3"[..]));
}

pub async fn many_writers_and_a_watch_agree(store: Arc<dyn Kv>) {
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

pub async fn narrow_watches_miss_nothing_while_others_write(store: Arc<dyn Kv>) {
    const WRITES: i64 = 100;
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
            while seen < keys * WRITES {
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
            for n in 0..WRITES {
                store.txn(Txn::of(put(&format!("k{writer:02}"), &n.to_string(), 0))).await.unwrap();
            }
        })
    });
    futures::future::join_all(writers.collect::<Vec<_>>()).await;
    let seen: i64 = futures::future::join_all(watchers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(seen, 24 * WRITES);
}

pub async fn history_that_is_gone_is_named(store: Arc<dyn Kv>) {
    for n in 0..10 {
        store.txn(Txn::of(put("a", &n.to_string(), 0))).await.unwrap();
    }
    store.compact(5).await.unwrap();
    let gone = KvError::Compacted { compact_revision: 5 };
    assert_eq!(store.range(RangeRequest { revision: 4, ..get("a") }).await, Err(gone.clone()));
    assert_eq!(store.compact(5).await, Err(gone.clone()));
    let from = |start_revision| WatchRequest { key: "a".into(), start_revision, ..WatchRequest::default() };
    assert_eq!(store.watch(from(4)).await.err(), Some(gone));
    let batch = store.watch(from(5)).await.unwrap().next_batch().await.unwrap();
    assert_eq!((batch.events[0].kv.mod_revision, batch.events[0].kv.value.as_ref()), (5, &b"3"[..]));
    let future = store.range(RangeRequest { revision: 99, ..get("a") }).await;
    assert_eq!(future, Err(KvError::FutureRevision { revision: 11 }));
    assert_eq!(store.status().await.unwrap().compact_revision, 5);
}

/// More keys than anybody sends at once.
pub async fn a_range_comes_whole_and_as_of_one_revision(store: Arc<dyn Kv>) {
    for batch in 0..50 {
        let success = (0..100).map(|n| put(&format!("k{batch:02}{n:02}"), "v", 0)).collect();
        store.txn(Txn { success, ..Txn::default() }).await.unwrap();
    }
    let all = RangeRequest { key: "k".into(), end: prefix_end(b"k"), ..RangeRequest::default() };
    let whole = store.range(all.clone()).await.unwrap();
    assert_eq!((whole.kvs.len(), whole.count, whole.more, whole.revision), (5000, 5000, false, 51));
    assert!(whole.kvs.is_sorted_by(|a, b| a.key < b.key));
    let most = store.range(RangeRequest { limit: 4321, ..all.clone() }).await.unwrap();
    assert_eq!((most.kvs.len(), most.count, most.more), (4321, 5000, true));
    let before = store.range(RangeRequest { revision: 41, ..all.clone() }).await.unwrap();
    assert_eq!((before.kvs.len(), before.revision), (4000, 51));
    let counted = store.range(RangeRequest { count_only: true, ..all }).await.unwrap();
    assert_eq!((counted.kvs.len(), counted.count), (0, 5000));
}

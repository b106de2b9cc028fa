//! The policy: kept like all else, and decisions that count only while it is the one they were made by.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use base::SystemClock;
use store::{Config, Kv as _, KvError, NoPeers, Op, Policy, Put, RangeRequest, SimDisk, Store, Txn};

fn open(disk: &Arc<SimDisk>) -> Store {
    let config = Config { checkpoint_log_bytes: 4000, ..Config::default() };
    Store::open(config, disk.clone(), Arc::new(SystemClock::new()), Arc::new(NoPeers)).unwrap()
}

fn put(key: &str) -> Txn {
    Txn::of(Op::Put(Put { key: key.to_owned().into(), value: vec![b'v'; 500].into(), ..Put::default() }))
}

fn read(key: &str) -> Txn {
    Txn::of(Op::Range(get(key)))
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

#[tokio::test]
async fn a_decision_counts_while_the_policy_is_the_one_it_was_made_by() {
    let store = open(&Arc::new(SimDisk::new()));
    assert_eq!(store.policy(), Policy::default());
    let lease = store.lease_grant(0, 60).await.unwrap().id;
    store.judged(0).txn(put("a")).await.unwrap();
    assert_eq!(store.judged(0).change_policy(vec![("rule".into(), Some("1".into()))]).await, Ok(1));

    let changed = Err(KvError::PolicyChanged);
    assert_eq!(store.judged(0).change_policy(vec![("rule".into(), None)]).await, Err(KvError::PolicyChanged));
    assert_eq!(store.judged(0).txn(put("b")).await, changed);
    assert_eq!(store.judged(0).txn(read("a")).await, changed);
    assert_eq!(store.judged(0).range(&get("a")).await, Err(KvError::PolicyChanged));
    assert_eq!(store.judged(0).lease_revoke(lease).await, Err(KvError::PolicyChanged));
    assert_eq!(store.range(get("b")).await.unwrap().count, 0);
    assert_eq!(store.leases().await.unwrap(), [lease]);

    let judged = store.judged(store.policy().revision);
    judged.txn(put("b")).await.unwrap();
    assert_eq!(judged.range(&get("b")).await.unwrap().count, 1);
    judged.txn(read("a")).await.unwrap();
    judged.lease_revoke(lease).await.unwrap();
    // Who asks in the store's own name is not judged.
    store.txn(put("c")).await.unwrap();
}

#[tokio::test]
async fn the_policy_is_kept_in_log_checkpoint_and_content() {
    let disk = Arc::new(SimDisk::new());
    let store = open(&disk);
    for revision in 0..3 {
        let change = (format!("rule-{revision}").into(), Some("x".into()));
        assert_eq!(store.judged(revision).change_policy(vec![change]).await, Ok(revision + 1));
    }
    store.judged(3).change_policy(vec![("rule-1".into(), None)]).await.unwrap();
    let policy = store.policy();
    assert_eq!(policy.records.keys().collect::<Vec<_>>(), ["rule-0", "rule-2"]);
    drop(store);
    let store = open(&disk);
    assert_eq!(store.policy(), policy);
    // Enough for a checkpoint.
    for _ in 0..20 {
        store.txn(put("k")).await.unwrap();
    }
    drop(store);
    let store = open(&disk);
    assert_eq!(store.policy(), policy);

    let copy = Arc::new(SimDisk::new());
    Store::fill(&*copy, store.content()).unwrap();
    let filled = open(&copy).policy();
    assert_eq!((filled.revision, &filled.records), (1, &policy.records));
}

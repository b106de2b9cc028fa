//! What the store refuses, in which words, and that nothing is lost by it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use base::{ManualClock, SystemClock};
use bytes::Bytes;
use jiff::Timestamp;
use store::{
    Config, Delete, Disk, Kv, KvError, Op, OpenError, Put, RangeRequest, RealDisk, SimDisk, Store, Txn, prefix_end,
};

fn small() -> Config {
    Config { cluster_id: Some(1), member_id: Some(2), segment_bytes: 4000, reserve_bytes: 8000, ..Config::default() }
}

fn open(disk: &SimDisk, config: Config) -> Result<Store, OpenError> {
    Store::open(
        config,
        Arc::new(disk.clone()),
        Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)),
        Arc::new(store::NoPeers),
    )
}

fn put(key: String, bytes: usize) -> Txn {
    Txn::of(Op::Put(Put { key: key.into(), value: vec![b'v'; bytes].into(), ..Put::default() }))
}

fn delete_all() -> Txn {
    Txn::of(Op::Delete(Delete { key: "k".into(), end: prefix_end(b"k"), prev_kv: false }))
}

async fn count(store: &Store) -> i64 {
    let all = RangeRequest { key: "k".into(), end: prefix_end(b"k"), count_only: true, ..RangeRequest::default() };
    store.range(all).await.unwrap().count
}

/// A disk with three segments of twenty keys.
async fn filled() -> SimDisk {
    let disk = SimDisk::new();
    let store = open(&disk, small()).unwrap();
    for n in 0..20 {
        store.txn(put(format!("k{n:02}"), 500)).await.unwrap();
    }
    store.close();
    disk
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("wal-"));
    names.sort();
    names
}

fn refusal(disk: &SimDisk, config: Config) -> String {
    let before: Vec<_> = disk.list().unwrap().into_iter().map(|name| (disk.content(&name), name)).collect();
    let Err(error) = open(disk, config) else { panic!("opened") };
    let after: Vec<_> = disk.list().unwrap().into_iter().map(|name| (disk.content(&name), name)).collect();
    assert!(before == after, "a refused directory was changed");
    error.to_string()
}

#[tokio::test]
async fn a_second_instance_on_the_same_directory_names_the_first() {
    let directory = std::env::temp_dir().join(format!("holdfast-store-lock-{}", std::process::id()));
    let open = || {
        let disk = Arc::new(RealDisk::new(&directory).unwrap());
        Store::open(Config::default(), disk, Arc::new(SystemClock::new()), Arc::new(store::NoPeers))
    };
    let first = open().unwrap();
    let Err(error) = open() else { panic!("opened twice") };
    let expected = format!("the data directory {} is in use by process {}", directory.display(), std::process::id());
    assert_eq!(error.to_string(), expected);
    first.txn(put("k".into(), 10)).await.unwrap();
    first.close();
    let again = open().unwrap();
    assert_eq!(count(&again).await, 1);
    drop(again);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_log_goes_on_behind_it() {
    let disk = filled().await;
    let last = segments(&disk).pop().unwrap();
    disk.edit(&last, |data| data.truncate(data.len() - 7));
    let store = open(&disk, small()).unwrap();
    assert_eq!(count(&store).await, 19);
    store.txn(put("kx".into(), 10)).await.unwrap();
    store.close();
    assert_eq!(count(&open(&disk, small()).unwrap()).await, 20);
}

#[tokio::test]
async fn zeros_behind_the_end_are_cut() {
    let disk = filled().await;
    disk.edit(&segments(&disk).pop().unwrap(), |data| data.extend([0; 5000]));
    assert_eq!(count(&open(&disk, small()).unwrap()).await, 20);
}

#[tokio::test]
async fn corruption_in_the_middle_is_refused_with_file_and_offset() {
    let disk = filled().await;
    let names = segments(&disk);
    assert_eq!(names.len(), 3);
    disk.flip_bit(&names[1], 300, 3);
    let expected = format!(
        "{} is corrupted at offset 64: checksum mismatch; restore this member from a snapshot or a backup",
        names[1]
    );
    assert_eq!(refusal(&disk, small()), expected);
    disk.flip_bit(&names[1], 300, 3);
    // In the last segment, too, if something intact follows.
    disk.flip_bit(&names[2], 300, 3);
    let text = refusal(&disk, small());
    assert!(
        text.starts_with(&format!("{} is corrupted at offset 64: checksum mismatch, but a later batch", names[2])),
        "{text}"
    );
}

#[tokio::test]
async fn an_emptied_segment_is_refused() {
    let disk = filled().await;
    let last = segments(&disk).pop().unwrap();
    for left in [63, 1, 0] {
        disk.edit(&last, |data| data.truncate(left));
        let text = refusal(&disk, small());
        assert!(text.starts_with(&format!("{last} is corrupted at offset 0: no valid header")), "{text}");
    }
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let disk = filled().await;
    disk.remove(&segments(&disk)[1]).unwrap();
    let text = refusal(&disk, small());
    assert!(text.starts_with("the log is incomplete: entries 11 to 18 are missing before wal-"), "{text}");
}

#[tokio::test]
async fn the_log_of_another_cluster_or_member_is_refused() {
    let disk = filled().await;
    let other = Config { cluster_id: Some(9), ..small() };
    let text = refusal(&disk, other);
    assert!(
        text.ends_with("belongs to cluster 0000000000000001 member 0000000000000002, not to cluster 0000000000000009 member 0000000000000002"),
        "{text}"
    );
    assert!(
        refusal(&disk, Config { member_id: Some(9), ..small() })
            .contains("not to cluster 0000000000000001 member 0000000000000009")
    );
    // A foreign segment among our own.
    let foreign = SimDisk::new();
    let store = open(&foreign, Config { cluster_id: Some(9), ..small() }).unwrap();
    store.txn(put("k".into(), 5)).await.unwrap();
    store.close();
    let content = foreign.content(&segments(&foreign)[0]).unwrap();
    disk.edit(&segments(&disk)[2], |data| *data = content);
    assert!(refusal(&disk, Config { cluster_id: None, ..small() }).contains("belongs to cluster 0000000000000009"));
}

#[tokio::test]
async fn files_of_a_later_format_are_refused() {
    let disk = filled().await;
    let name = segments(&disk)[0].clone();
    disk.edit(&name, |data| {
        data[8] = 3;
        let crc = crc32fast::hash(&data[..60]);
        data[60..64].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(refusal(&disk, small()), format!("{name} has format version 3; this version reads 2"));
}

#[tokio::test]
async fn a_damaged_checkpoint_is_replaced_by_the_one_before_and_the_log() {
    let disk = SimDisk::new();
    let config = Config { checkpoint_log_bytes: 2000, ..small() };
    let store = open(&disk, config.clone()).unwrap();
    for n in 0..200 {
        store.txn(put(format!("k{:02}", n % 30), 300)).await.unwrap();
    }
    store.close();
    let mut checkpoints = disk.list().unwrap();
    checkpoints.retain(|name| name.starts_with("checkpoint-"));
    checkpoints.sort();
    assert_eq!(checkpoints.len(), 2, "{checkpoints:?}");
    for name in &checkpoints {
        disk.flip_bit(name, 1000, 1);
    }
    // The log before the older one is gone: both damaged is too much.
    let text = refusal(&disk, config.clone());
    assert!(text.starts_with(&format!("{} is corrupted at offset 64", checkpoints[1])), "{text}");
    disk.flip_bit(&checkpoints[0], 1000, 1);
    let store = open(&disk, config).unwrap();
    assert_eq!((count(&store).await, store.status().await.unwrap().revision), (30, 201));
}

#[tokio::test]
async fn a_full_disk_refuses_growth_allows_deletes_and_recovers_unaided() {
    let disk = SimDisk::new();
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let store = Store::open(small(), Arc::new(disk.clone()), clock.clone(), Arc::new(store::NoPeers)).unwrap();
    let mut stored = 0;
    for n in 0..10 {
        store.txn(put(format!("k{n}"), 500)).await.unwrap();
        stored += 1;
    }
    disk.set_capacity(Some(disk.used() + 1500));
    let error = loop {
        match store.txn(put(format!("k{stored}"), 500)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().starts_with("no space: the disk is full"), "{error}");
    assert_eq!(count(&store).await, stored);
    assert!(matches!(store.txn(put("k0".into(), 1)).await, Err(KvError::NoSpace { .. })));
    assert!(matches!(store.lease_grant(0, 9).await, Err(KvError::NoSpace { .. })));
    assert!(store.status().await.unwrap().disk_full);
    // Deletes and compaction go on, out of the reserve.
    let deleted = store.txn(delete_all()).await.unwrap();
    store.compact(deleted.revision).await.unwrap();
    disk.set_capacity(None);
    clock.advance(Duration::from_secs(2));
    store.tick().await;
    while store.status().await.unwrap().disk_full {
        tokio::task::yield_now().await;
    }
    store.txn(put("k0".into(), 500)).await.unwrap();
    store.close();
    assert_eq!(count(&open(&disk, small()).unwrap()).await, 1);
}

#[tokio::test]
async fn a_disk_that_the_log_has_filled_recovers_once_objects_are_deleted() {
    let disk = SimDisk::new();
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let store = Store::open(small(), Arc::new(disk.clone()), clock.clone(), Arc::new(store::NoPeers)).unwrap();
    disk.set_capacity(Some(40_000));
    let mut stored = 0;
    while store.txn(put(format!("k{stored}"), 500)).await.is_ok() {
        stored += 1;
    }
    let deleted = store.txn(delete_all()).await.unwrap();
    store.compact(deleted.revision).await.unwrap();
    // The capacity stays as it is: the space must come from the log.
    while store.status().await.unwrap().disk_full {
        clock.advance(Duration::from_secs(1));
        store.tick().await;
    }
    for n in 0..stored / 2 {
        store.txn(put(format!("k{n}"), 500)).await.unwrap();
    }
    store.close();
    assert_eq!(count(&open(&disk, small()).unwrap()).await, stored / 2);
}

#[tokio::test]
async fn at_the_quota_growth_is_refused_and_deletes_make_room() {
    let disk = SimDisk::new();
    let store = open(&disk, Config { quota_bytes: 20_000, ..small() }).unwrap();
    let mut stored = 0;
    let error = loop {
        match store.txn(put(format!("k{stored:03}"), 500)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("its quota is 20000; delete objects or raise the quota"), "{error}");
    // Replacing a value by one of the same size is still possible.
    store.txn(put("k000".into(), 500)).await.unwrap();
    let revision = store.txn(delete_all()).await.unwrap().revision;
    store.compact(revision).await.unwrap();
    while store.status().await.unwrap().db_bytes > 1000 {
        tokio::task::yield_now().await;
    }
    store.txn(put("k000".into(), 500)).await.unwrap();
}

#[tokio::test]
async fn malformed_requests_are_refused_before_anything_is_logged() {
    let disk = SimDisk::new();
    let store = open(&disk, Config { request_bytes_max: 1000, operations_max: 3, ..small() }).unwrap();
    let check = async |txn: Txn, expect: KvError| assert_eq!(store.txn(txn).await, Err(expect));
    let op = |key: &str| Op::Put(Put { key: Bytes::from(key.to_owned()), ..Put::default() });
    check(put("k".into(), 1000), KvError::TooLarge { bytes: 1001, bytes_max: 1000 }).await;
    check(put(String::new(), 1), KvError::EmptyKey).await;
    check(Txn { success: vec![op("a"), op("a")], ..Txn::default() }, KvError::DuplicateKey).await;
    let four = vec![op("a"), op("b"), op("c"), op("d")];
    check(Txn { success: four, ..Txn::default() }, KvError::TooManyOperations { operations_max: 3 }).await;
    let mut deep = Txn::of(op("a"));
    for _ in 0..40 {
        deep = Txn::of(Op::Txn(Box::new(deep)));
    }
    assert!(matches!(store.txn(deep).await, Err(KvError::TooManyOperations { .. })));
    let leased = Put { key: "k".into(), lease: 77, ..Put::default() };
    check(Txn::of(Op::Put(leased)), KvError::LeaseNotFound { id: 77 }).await;
    let keep = Put { key: "k".into(), ignore_value: true, ..Put::default() };
    check(Txn::of(Op::Put(keep)), KvError::KeyNotFound).await;
    assert_eq!(store.lease_grant(0, 0).await, Err(KvError::LeaseTtl { ttl_seconds: 0 }));
    assert_eq!(store.lease_keep_alive(5).await, Err(KvError::LeaseNotFound { id: 5 }));
    assert_eq!(store.compact(9).await, Err(KvError::FutureRevision { revision: 1 }));
    assert_eq!(store.status().await.unwrap().revision, 1);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let disk = SimDisk::new();
    let store = open(&disk, small()).unwrap();
    store.txn(put("k".into(), 1)).await.unwrap();
    let request = store::WatchRequest { key: "k".into(), start_revision: 1, ..Default::default() };
    let mut watch = store.watch(request).await.unwrap();
    store.close();
    assert!(matches!(store.txn(put("k".into(), 1)).await, Err(KvError::Stopped { .. })));
    assert_eq!(watch.next_batch().await.unwrap().events.len(), 1);
    assert!(matches!(watch.next_batch().await, Err(KvError::Stopped { .. })));
}

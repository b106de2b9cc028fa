//! A snapshot that etcd made is read whole; what is cut, changed or no snapshot is refused before anything is taken from it.

use std::io::Cursor;

use std::collections::BTreeMap;

use store::KeyValue;

use super::*;
use crate::access::rules::Rules;
use crate::bolt::BoltReader;
use crate::proto::authpb::{AccessState, Permission, Role, User};

fn kv(key: &str, value: &str, revisions: (i64, i64, i64), lease: i64) -> Arc<KeyValue> {
    let (create_revision, mod_revision, version) = revisions;
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Arc::new(KeyValue { key, value, create_revision, mod_revision, version, lease })
}

fn sorted(mut content: Content) -> Content {
    content.keys.sort_by(|a, b| a.key.cmp(&b.key));
    content.leases.sort_unstable();
    content
}

fn content() -> Content {
    let keys = (0..500).map(|n| kv(&format!("key{n:04}"), &"v".repeat(n * 7), (2, 2 + n as i64 / 3, 1), 0));
    let keys = keys.chain([kv("leased", "x", (900, 950, 4), 77)]).collect();
    sorted(Content { revision: 1000, leases: vec![(77, 60), (-5, 3600)], keys, policy: rules() })
}

/// As a snapshot has them: without the key of tokens.
fn rules() -> BTreeMap<Bytes, Bytes> {
    let state = AccessState { enabled: true, revision: 9, token_key: Bytes::new() };
    let ann = User { name: "ann".into(), password: "hash".into(), roles: vec!["reader".into()], options: None };
    let read = Permission { perm_type: 0, key: "a".into(), range_end: "b".into() };
    Rules::records(&state, &[ann], &[Role { name: "reader".into(), key_permission: vec![read] }])
}

#[test]
fn what_is_written_is_read_and_damage_is_noticed() {
    let mut file = Vec::new();
    assert_eq!(write_snapshot(&content(), &mut file).unwrap(), file.len() as u64);
    assert_eq!(sorted(read_snapshot(Cursor::new(&file)).unwrap()), content());
    for at in [0, 20, 5_000, file.len() - 40, file.len() - 1] {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(matches!(read_snapshot(Cursor::new(&damaged)), Err(SnapshotError::Checksum)), "{at}");
    }
    for length in [0, 31, 544, 4096, file.len() - 32, file.len() - 1] {
        assert!(read_snapshot(Cursor::new(&file[..length])).is_err(), "{length}");
    }
}

/// By the last record `etcdutl snapshot status` tells the revision.
#[test]
fn the_last_record_is_of_the_newest_revision() {
    let last = |content: &Content| {
        let mut file = Vec::new();
        let bytes = write_content(content, &mut file).unwrap();
        let mut last = Vec::new();
        let mut take = |key: &[u8], _: &[u8]| {
            last = key.to_vec();
            Ok(())
        };
        BoltReader::open(Cursor::new(&file), bytes).unwrap().each("key", &mut take).unwrap();
        last
    };
    let deleted = content();
    let written = Content { revision: 950, ..content() };
    let empty = Content { revision: 1, keys: Vec::new(), ..content() };
    let record = |revision: i64, tombstone: &[u8]| [&revision.to_be_bytes(), &b"_"[..], &[0; 8], tombstone].concat();
    assert_eq!(last(&deleted), record(1000, b"t"));
    assert_eq!(last(&written), record(950, b""));
    assert!(last(&empty).is_empty());
}

/// The fixture was saved by etcdctl 3.7.3 from etcd 3.7.3 after keys had been put, rewritten, leased and deleted, and their history
/// compacted and defragmented; one value overflows its page.
#[test]
fn a_snapshot_of_etcd_is_read() {
    let file = include_bytes!("../../tests/etcd-3.7.3.snapshot");
    let found = sorted(read_snapshot(Cursor::new(&file[..])).unwrap());
    let get = |key: &str| found.keys.iter().find(|kv| kv.key == key);
    assert_eq!(**get("/registry/rewritten").unwrap(), *kv("/registry/rewritten", "second", (2, 3, 2), 0));
    assert_eq!(get("/registry/deleted"), None);
    assert_eq!(get("/registry/large").unwrap().value.len(), 20_000);
    assert_eq!(get("/registry/leased").unwrap().lease, 0x1234);
    assert_eq!(found.leases, [(0x1234, 3600)]);
    assert_eq!(found.keys.iter().filter(|kv| kv.key.starts_with(b"/registry/many/")).count(), 300);
    // The newest revision deleted a key.
    assert_eq!((found.revision, found.keys.iter().map(|kv| kv.mod_revision).max()), (10, Some(8)));
}

/// Each was saved from an etcd of that version after keys had been put, rewritten, leased and deleted, and half of the history compacted.
#[test]
fn snapshots_of_older_etcds_are_read() {
    let files: [(&str, &[u8]); 3] = [
        ("3.4.23", include_bytes!("../../tests/etcd-3.4.snapshot")),
        ("3.5.21", include_bytes!("../../tests/etcd-3.5.snapshot")),
        ("3.6.5", include_bytes!("../../tests/etcd-3.6.snapshot")),
    ];
    for (version, file) in files {
        let found = sorted(read_snapshot(Cursor::new(file)).unwrap());
        let get = |key: &str| found.keys.iter().find(|kv| kv.key == key);
        assert_eq!(
            **get("/registry/rewritten").unwrap(),
            *kv("/registry/rewritten", "second", (42, 43, 2), 0),
            "{version}"
        );
        assert_eq!(
            (get("/registry/deleted"), get("/registry/large").unwrap().value.len()),
            (None, 20_000),
            "{version}"
        );
        assert_eq!(found.leases, [(get("/registry/leased").unwrap().lease, 3600)], "{version}");
        assert_eq!((found.revision, found.keys.len()), (47, 43), "{version}");
    }
}

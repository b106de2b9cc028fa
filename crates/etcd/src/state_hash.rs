//! The hash of the state as of one revision: equal on members that hold equal data.
//!
//! Not etcd's numbers: those are over the records of its own file format.

use bytes::Bytes;
use store::{KvError, RangeRequest, Store};

/// Hash of all keys as of `revision` (0 = now), and that revision.
pub(crate) fn hash_state(store: &Store, revision: i64) -> Result<(u32, i64), KvError> {
    let (key, end) = (Bytes::from_static(b"\0"), Some(Bytes::from_static(b"\0")));
    let found = store.range_now(&RangeRequest { key, end, revision: revision.max(0), ..RangeRequest::default() })?;
    let mut hasher = crc32fast::Hasher::new();
    for kv in &found.kvs {
        for bytes in [&kv.key, &kv.value] {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
            hasher.update(&number.to_le_bytes());
        }
    }
    Ok((hasher.finalize(), if revision > 0 { revision } else { found.revision }))
}

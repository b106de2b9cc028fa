//! The revisioned key-value contract: what everything above the store may ask of it.
//!
//! Requests in, responses out; one trait, [`Kv`], which the embedded [`crate::Store`] implements and a remote etcd can
//! implement as well. The semantics are etcd v3's (revisions, versions, leases, transactions); names follow its API.
//! Invariant: every response describes applied (= durable) state only [I10]. Nothing here knows what the bytes mean.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::KvError;
use crate::status::Status;
use crate::watch::{Watch, WatchRequest};

/// The store as its clients see it. Object safe; share it as `Arc<dyn Kv>`.
///
/// Guaranteed: a write that was answered `Ok` is durable and visible to every later read and watch. A write whose future
/// was dropped or that failed with [`KvError::Stopped`] or [`KvError::Unavailable`] may or may not have happened; after
/// any other error it did not happen.
pub trait Kv: Send + Sync {
    /// Reads one key or a range, at the newest or at an older revision. Never waits for the disk.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, KvError>>;

    /// Executes a transaction atomically, as at most one new revision. Resolves when it is durable and applied.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, KvError>>;

    /// Opens a watch. Fails with `Compacted` if `start_revision` is older than the history.
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, KvError>>;

    /// Forgets history below `revision`: reads below it fail with `Compacted`. Returns once that is durable; memory is
    /// freed little by little afterwards.
    fn compact(&self, revision: i64) -> BoxFuture<'_, Result<(), KvError>>;

    /// Creates a lease of `ttl_seconds` (at least 1). `id` 0 lets the store choose.
    fn lease_grant(&self, id: i64, ttl_seconds: i64) -> BoxFuture<'_, Result<LeaseGranted, KvError>>;

    /// Ends a lease and deletes the keys attached to it, in one revision. Returns the store's revision after that.
    fn lease_revoke(&self, id: i64) -> BoxFuture<'_, Result<i64, KvError>>;

    /// Restarts the lease's time to live and returns that time in seconds. Needs no disk.
    fn lease_keep_alive(&self, id: i64) -> BoxFuture<'_, Result<i64, KvError>>;

    /// Remaining time and attached keys of a lease.
    fn lease_time_to_live(&self, id: i64) -> BoxFuture<'_, Result<LeaseStatus, KvError>>;

    /// Ids of all leases, ascending.
    fn leases(&self) -> BoxFuture<'_, Result<Vec<i64>, KvError>>;

    /// Figures of the store as plain values; never waits for the disk.
    fn status(&self) -> BoxFuture<'_, Result<Status, KvError>>;
}

/// One key as of one revision. Shared (`Arc`), never copied per reader or watcher.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision of the put that brought the key (back) into being.
    pub create_revision: i64,
    /// Revision of the last put.
    pub mod_revision: i64,
    /// Number of puts since creation; 1 for a new key.
    pub version: i64,
    /// Lease that the key is attached to; 0 = none.
    pub lease: i64,
}

/// Which keys, and as of when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeRequest {
    /// The key, or the first key of the range. Must not be empty.
    pub key: Bytes,
    /// `None`: `key` alone. `Some(end)`: keys in `[key, end)`. `Some` of an empty string or of one zero byte: from `key` to
    /// the last key. See [`prefix_end`].
    pub end: Option<Bytes>,
    /// State as of this revision; 0 = the newest.
    pub revision: i64,
    /// At most so many keys are returned; 0 = all.
    pub limit: usize,
    /// Leave `value` empty.
    pub keys_only: bool,
    /// Return the count alone.
    pub count_only: bool,
    /// Answer from what this member has applied, without asking whether others know more. Inside a transaction, which sees
    /// the state that it is executed on, it means nothing.
    pub serializable: bool,
}

/// Answer to a [`RangeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResponse {
    /// The store's newest revision when the read was made (also when an older revision was read).
    pub revision: i64,
    /// In key order.
    pub kvs: Vec<Arc<KeyValue>>,
    /// The limit cut the answer short.
    pub more: bool,
    /// Keys in the range, regardless of the limit.
    pub count: i64,
}

/// If all `compares` hold, `success` is executed, else `failure`; later operations see the effects of earlier ones.
/// A key may be written once at most in a transaction ([`KvError::DuplicateKey`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

impl Txn {
    /// A transaction that does `op` unconditionally.
    pub fn of(op: Op) -> Self {
        Self { success: vec![op], ..Self::default() }
    }
}

/// A condition on one key, or on every key of a range.
/// Where there is no key, version, revisions and lease are 0 and no comparison of the value holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub key: Bytes,
    /// As in [`RangeRequest::end`].
    pub end: Option<Bytes>,
    pub relation: Relation,
    pub target: Target,
}

impl Compare {
    /// The key's last change happened at `revision`; 0 = the key does not exist.
    pub fn mod_revision_is(key: Bytes, revision: i64) -> Self {
        Self { key, end: None, relation: Relation::Equal, target: Target::ModRevision(revision) }
    }
}

/// `stored RELATION given`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// What is compared, with the given side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Version(i64),
    CreateRevision(i64),
    ModRevision(i64),
    Lease(i64),
    Value(Bytes),
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Put(Put),
    Delete(Delete),
    /// Reads within the transaction; `revision` may name an older one.
    Range(RangeRequest),
    /// A nested transaction. All compares, nested ones included, are evaluated before anything is written.
    Txn(Box<Txn>),
}

/// Stores a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    /// Copied where the key is new.
    pub key: Bytes,
    /// Kept as it is, for as long as the version lives: don't pass a slice that pins a larger buffer.
    pub value: Bytes,
    /// Attach to this lease; 0 = none (and detach from an earlier one).
    pub lease: i64,
    /// Return what was there before.
    pub prev_kv: bool,
    /// Keep the stored value; fails with `KeyNotFound` if there is none.
    pub ignore_value: bool,
    /// Keep the stored lease; fails with `KeyNotFound` if the key does not exist.
    pub ignore_lease: bool,
}

/// Deletes one key or a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delete {
    pub key: Bytes,
    /// As in [`RangeRequest::end`].
    pub end: Option<Bytes>,
    /// Return what was deleted.
    pub prev_kv: bool,
}

/// Answer to a [`Txn`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnResponse {
    /// The store's revision after the transaction: that of its writes, if it wrote.
    pub revision: i64,
    /// The compares held.
    pub succeeded: bool,
    /// One for each operation of the executed branch, in order.
    pub results: Vec<OpResult>,
}

/// Result of one [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    Put { prev_kv: Option<Arc<KeyValue>> },
    Delete { deleted: i64, prev_kvs: Vec<Arc<KeyValue>> },
    Range(RangeResponse),
    Txn(TxnResponse),
}

/// A new lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseGranted {
    pub id: i64,
    pub ttl_seconds: i64,
    /// The store's revision when it was granted.
    pub revision: i64,
}

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStatus {
    pub id: i64,
    pub granted_ttl_seconds: i64,
    /// Rounded down.
    pub remaining_seconds: i64,
    /// In key order.
    pub keys: Vec<Bytes>,
}

/// The `end` of the range of all keys that begin with `prefix`; `Some(empty)` (no bound) if there is no such end.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    Some(Bytes::from(end))
}

/// The smallest key greater than `key`: where a range that was cut short goes on.
pub fn key_after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}

/// Whether `key` lies in the range of `start` and `end` (see [`RangeRequest::end`]).
pub fn in_range(key: &[u8], start: &[u8], end: Option<&[u8]>) -> bool {
    match end {
        None => key == start,
        Some(end) if is_unbounded(end) => key >= start,
        Some(end) => key >= start && key < end,
    }
}

/// Whether an `end` means "to the last key".
pub(crate) fn is_unbounded(end: &[u8]) -> bool {
    end.is_empty() || end == [0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_is_the_next_string_that_is_no_extension() {
        let check = |prefix: &[u8], expect: &[u8]| assert_eq!(prefix_end(prefix).as_deref(), Some(expect));
        check(b"/registry/pods/", b"/registry/pods0");
        check(b"a\xff", b"b");
        check(b"\xff\xff", b"");
        check(b"", b"");
    }

    #[test]
    fn ranges_are_half_open() {
        assert!(in_range(b"a", b"a", None));
        assert!(!in_range(b"aa", b"a", None));
        assert!(in_range(b"aa", b"a", Some(b"b")));
        assert!(!in_range(b"b", b"a", Some(b"b")));
        assert!(in_range(b"zzz", b"a", Some(b"\0")));
        assert!(in_range(b"zzz", b"a", Some(b"")));
    }
}

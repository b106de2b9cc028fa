//! What can go wrong: [`KvError`] for one request, [`OpenError`] for a data directory.
//!
//! Invariant: the variant says whether the request happened (see [`crate::Kv`]); causes are never merged.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, LockError};

/// Why a request was not answered. Cheap to clone: one fault may fail many requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The wanted revision is older than the history that is kept.
    #[error("required revision has been compacted (oldest available is {compact_revision})")]
    Compacted { compact_revision: i64 },
    /// The wanted revision does not exist yet.
    #[error("required revision is a future revision (newest is {revision})")]
    FutureRevision { revision: i64 },
    /// The write would grow the store beyond its quota, or the disk is full. Deletes and compaction are still accepted.
    #[error("no space: {detail}")]
    NoSpace { detail: Arc<str> },
    #[error("request of {bytes} bytes is too large (at most {bytes_max})")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("too many operations in the transaction (at most {operations_max})")]
    TooManyOperations { operations_max: usize },
    #[error("an empty key was given")]
    EmptyKey,
    /// A transaction writes a key twice.
    #[error("duplicate key given in transaction")]
    DuplicateKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    #[error("requested lease not found")]
    LeaseNotFound { id: i64 },
    #[error("lease already exists")]
    LeaseExists { id: i64 },
    #[error("lease time to live {ttl_seconds} s is out of range")]
    LeaseTtl { ttl_seconds: i64 },
    /// It was judged by a policy that has changed meanwhile: nothing has happened; it must be judged again.
    #[error("the policy by which the request was judged has changed")]
    PolicyChanged,
    /// The store no longer writes, because it was closed or because its disk failed. The outcome of a write that was under
    /// way is unknown.
    #[error("store stopped: {reason}")]
    Stopped { reason: Arc<str> },
    /// The cluster (or a remote store) did not answer in time, or has no leader. The outcome of a write is unknown.
    #[error("store unavailable: {reason}")]
    Unavailable { reason: Arc<str> },
}

/// Why a data directory was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {operation} {file} in the data directory")]
    Io {
        operation: &'static str,
        file: String,
        #[source]
        source: io::Error,
    },
    /// A second instance on the same data.
    #[error("the data directory {directory} is in use by process {}", pid.map_or_else(|| "(unknown)".to_owned(), |p| p.to_string()))]
    InUse { directory: String, pid: Option<u32> },
    /// A snapshot is restored into an empty directory only.
    #[error("the data directory {directory} is not empty: it holds {file}; choose another one, or move it away")]
    NotEmpty { directory: String, file: String },
    /// A file fails its checks at a place where no crash can have left it so.
    #[error("{file} is corrupted at offset {offset}: {detail}; restore this member from a snapshot or a backup")]
    Corrupt { file: String, offset: u64, detail: String },
    /// A file of another cluster or member.
    #[error(
        "{file} belongs to cluster {found_cluster:016x} member {found_member:016x}, not to cluster {cluster:016x} member {member:016x}"
    )]
    Foreign { file: String, found_cluster: u64, found_member: u64, cluster: u64, member: u64 },
    /// A file of a format that this version does not read.
    #[error("{file} has format version {found}; this version reads {supported}")]
    Version { file: String, found: u32, supported: u32 },
    /// Part of the log is not there.
    #[error("the log is incomplete: entries {first_missing} to {last_missing} are missing before {file}")]
    Gap { file: String, first_missing: u64, last_missing: u64 },
    /// Raft's library does not accept what was recovered.
    #[error("the log and the membership in the data directory don't fit together: {detail}")]
    Consensus { detail: Arc<str> },
    /// The operating system has no thread to give.
    #[error("cannot start the thread {name}")]
    Thread {
        name: &'static str,
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn of_lock(disk: &dyn Disk, error: LockError) -> Self {
        match error {
            LockError::Held { pid } => Self::InUse { directory: disk.describe(), pid },
            LockError::Io(source) => Self::Io { operation: "lock", file: disk.describe(), source },
        }
    }
}

//! The store: revisioned bytes, durable, watched. It never learns what a Pod is [I3].
//!
//! ```text
//! Kv::txn --> check --> driver: propose --> log thread: write + fdatasync (group commit)
//!                         |                     |
//!                         |   apply <-- commit <+ durable
//!                         v
//!             publish an immutable State --> Kv::range, Watch (read the history), checkpoint thread
//! ```
//!
//! Invariants: an acknowledged write is durable [I10]; readers see applied, that is durable, state only; nothing that serves
//! reads, watches or leases ever waits for the disk; every queue is bounded [I11].
//!
//! Reading order: [`kv`] (the contract), [`watch`], [`error`], [`config`], [`status`]; `store` (the front), `driver`, `member`
//! (consensus), `machine` and `mvcc` (state), `txn`, `watchers`, `lease`, `housekeeping`; then the files: [`disk`], `frame`,
//! `record`, `wal`, `checkpoint`, `content`, `recovery`, `log_worker`, `threads`; [`sim_disk`] for tests.

#![forbid(unsafe_code)]

pub mod config;
pub mod disk;
pub mod error;
pub mod kv;
pub mod peer;
pub mod sim_disk;
pub mod simulation;
pub mod status;
pub mod watch;

mod checkpoint;
mod cluster;
mod command;
mod content;
#[cfg(test)]
mod crash_test;
mod driver;
mod frame;
mod housekeeping;
mod judged;
mod lease;
mod log_worker;
mod machine;
mod member;
mod membership;
mod mvcc;
mod peer_frame;
mod policy;
mod proposal;
mod raft_log;
mod real_disk;
mod record;
mod recovery;
mod slow_disk;
mod store;
mod threads;
mod txn;
mod wal;
mod watchers;
mod wire;

pub use cluster::ReceiveError;
pub use config::Config;
pub use content::Content;
pub use disk::{Disk, DiskFile, DiskLock, LockError};
pub use error::{KvError, OpenError};
pub use judged::Judged;
pub use kv::{
    Compare, Delete, KeyValue, Kv, LeaseGranted, LeaseStatus, Op, OpResult, Put, RangeRequest, RangeResponse, Relation,
    Target, Txn, TxnResponse, in_range, key_after, prefix_end,
};
pub use peer::{LeaderView, MemberChange, MemberChangeError, MemberInfo, NoPeers, OutgoingSnapshot, Transport};
pub use policy::{Policy, PolicyChange};
pub use real_disk::RealDisk;
pub use sim_disk::SimDisk;
pub use status::{Histogram, LeaderMove, PeerStatus, Status};
pub use store::Store;
pub use watch::{Event, EventKind, Watch, WatchBatch, WatchRequest, WatchSource};

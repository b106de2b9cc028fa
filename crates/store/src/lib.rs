//! The store: revisioned bytes, durable, watched. It never learns what a Pod is [I3].
//!
//! Reading order: [`kv`] (the contract), [`watch`], [`error`], [`config`], [`status`]; [`disk`], [`real_disk`].

pub mod config;
pub mod disk;
pub mod error;
pub mod kv;
pub mod status;
pub mod watch;

mod command;
mod machine;
mod mvcc;
mod real_disk;
mod store;
mod txn;
mod watchers;
mod wire;

pub use config::Config;
pub use disk::{Disk, DiskFile, DiskLock, LockError};
pub use error::{KvError, OpenError};
pub use kv::{
    Compare, Delete, KeyValue, Kv, LeaseGranted, LeaseStatus, Op, OpResult, Put, RangeRequest, RangeResponse, Relation,
    Target, Txn, TxnResponse, in_range, prefix_end,
};
pub use real_disk::RealDisk;
pub use status::{Histogram, Status};
pub use store::Store;
pub use watch::{Event, EventKind, Watch, WatchBatch, WatchRequest, WatchSource};

//! client: how every component reaches the Kubernetes API, and the IO around the pure controllers.
//!
//! ```text
//!   in_process(service) / remote(spec) -> kube::Client
//!        |-- Informer<K>: list + watch -> reconcile::Cache<K> + changes      (Informers: one per kind, shared)
//!        |-- EventRecorder: reconcile::Event -> core/v1 Events, deduplicated
//!        +-- run: caches -> Queue -> Controller::plan -> apply -> Expectations
//! ```
//!
//! Invariant [I4]: nothing here knows a particular controller; a controller is a row of a registry elsewhere.
//!
//! Reading order: [`connect`], [`informer`], `readable`, [`informers`], [`recorder`], [`runner`], `wakeups`, [`apply`], [`everything`], [`leader`].
#![forbid(unsafe_code)]

pub mod apply;
pub mod connect;
pub mod everything;
pub mod informer;
pub mod informers;
pub mod leader;
mod readable;
pub mod recorder;
pub mod runner;
mod wakeups;
mod write_batch;

pub use apply::{WriteError, apply_write};
pub use connect::{Credentials, RemoteError, RemoteSpec, in_process, remote};
pub use informer::{Changes, Informer, Observed};
pub use informers::Informers;
pub use kube::runtime::watcher::Config as WatchConfig;
pub use leader::{LeaderSpec, LeadershipLost, run_as_leader};
pub use reconcile::{Cache, Change, Event, EventKind, Key, Object};
pub use recorder::EventRecorder;
pub use runner::{Runner, Stopped};

//! etcd's v3 API, both sides of it: served over Holdfast's own store to any etcd client, unchanged; and asked of an etcd that
//! somebody else runs, which then is the store ([`remote`]).
//!
//! ```text
//! connection -> listener (TLS or plaintext, HTTP/2 or 1.1)
//!     gRPC  -> kv, watch, lease, maintenance, cluster, auth -> store::Kv
//!     plain -> /health /livez /readyz /version /metrics
//!
//! store::Kv (RemoteStore) -> remote -> gRPC -> an outside etcd
//! ```
//!
//! Invariants: error codes and texts are etcd's, because clients match on them; the store's semantics are passed on as they
//! are; nothing here waits for the disk except a write for its own durability; every queue is bounded.
//! Not here: flags and files (the binary's), the network between members (crate `peers`).
//!
//! Reading order: [`member`] (what a server is made of), `listener`, `access` (who may do what), `kv_service`, `range_options`, `txn_words`,
//! `watch_service`, `watch_task`, `lease_service`, `maintenance_service`, [`snapshot`], `database`, `bolt`, `state_hash`, `cluster_service`, [`ids`], `auth_service`,
//! [`refusals`], `plain_http`, `metrics`, `grpc_figures`, `process`; [`remote`].

#![forbid(unsafe_code)]

mod access;
mod auth_service;
mod bolt;
mod cluster_service;
mod database;
mod downgrade;
mod gateway;
mod grpc_figures;
pub mod ids;
mod kv_service;
mod lease_service;
mod listener;
mod maintenance_service;
pub mod member;
mod metrics;
mod plain_http;
mod process;
pub mod proto;
mod range_options;
pub mod refusals;
pub mod remote;
pub mod snapshot;
mod state_hash;
mod txn_words;
mod watch_service;
mod watch_task;

pub use access::{AccessSettings, JwtSettings, JwtSettingsError};
pub use bolt::BoltError;
pub use database::DatabaseError;
pub use listener::EtcdServer;
pub use member::Settings;

/// The version of etcd whose API this is; clients decide by it what they may use.
pub const ETCD_VERSION: &str = "3.7.3";
/// As etcd reports it for the cluster and the storage: the minor version with patch 0.
pub const ETCD_CLUSTER_VERSION: &str = "3.7.0";

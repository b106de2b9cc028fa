//! controllers (pure): one module a controller, each a [`reconcile::Controller`]: a key and a cached view in, a plan out.
//!
//! ```text
//!   registry::register_all(runner)        the rows
//!     replicas     ReplicaSet, ReplicationController -> pods
//!     deployment   Deployment -> ReplicaSets
//!     daemons      DaemonSet -> pods
//!     stateful     StatefulSet -> pods, claims
//!     endpoints    Services and pods -> EndpointSlices, Endpoints; Endpoints made by hand -> EndpointSlices
//!     nodes        health, taints, evictions, pods of lost nodes, pod CIDRs
//!     quotas       what a namespace holds -> the usage of its ResourceQuotas
//!     garbage      owner references -> deletions
//!     namespaces   a namespace's end -> deletions of its content
//!     protection   claims and volumes -> finalizers while they are in use
//!     service_accounts, root_ca      what every namespace has
//! ```
//!
//! Invariants [I2] and [I9]: no IO; every plan is idempotent, which `reconcile::harness` proves for each controller.
//! Adding one: docs/checklists/add-a-controller.md.
#![forbid(unsafe_code)]

pub mod claims;
pub mod daemons;
pub mod deployment;
pub mod endpoints;
pub mod garbage;
pub mod labels;
pub mod namespaces;
pub mod nodes;
mod numbers;
pub mod pods;
pub mod protection;
pub mod quotas;
pub mod registry;
pub mod replicas;
pub mod revisions;
pub mod root_ca;
pub mod service_accounts;
pub mod stateful;
mod times;

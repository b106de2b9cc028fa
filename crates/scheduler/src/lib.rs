//! The scheduler's decisions: a snapshot of the nodes and a Pod in, a [`Decision`] out.
//!
//! ```text
//!   pods, nodes ──> Snapshot ──┐
//!                              ├─ filter (every node: verdict) ─ score (feasible nodes) ─> Decision
//!   queue ── next Pod ─────────┘
//! ```
//!
//! Pure: no API, no clock, no randomness of its own [I2]. The shell in the binary feeds informers in, writes the binding or the
//! `PodScheduled=False` condition out. Placement is upstream's: the same filters, the same scores and weights, ties broken
//! by the tie-breaker number that the caller passes in.
//!
//! Reading order: [`snapshot`], [`plugin`], [`plugins`], [`decide`], [`explain`], [`queue`].
//! Not here yet: inter-pod affinity, topology spread, volumes, preemption.
#![forbid(unsafe_code)]

pub mod decide;
pub mod explain;
pub mod plugin;
pub mod plugins;
pub mod queue;
pub mod snapshot;

pub use decide::{Decision, decide};
pub use explain::explain;
pub use queue::{Queue, QueueEvent};
pub use snapshot::{NodeView, Snapshot};

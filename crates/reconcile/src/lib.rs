//! reconcile (pure): the words that every controller is written in.
//!
//! ```text
//!   watch events -> Cache --view--> Controller::plan -> Plan { writes, observe, requeue, events }
//!        |                              ^                 |
//!        +--- map: object -> keys --> Queue               +--> the shell (crate client) applies it, records what it
//!                                       ^                      wrote as Expectations, and wakes the key again
//!                                       +----- retry, requeue -----+
//! ```
//!
//! Level-triggered: a key goes in, the cached view comes out of [`View`], and the plan depends on nothing else but the
//! time and the planner's own memory. Nothing here does IO or reads a clock.
//!
//! Reading order: [`object`], [`cache`], [`graph`], [`plan`], [`controller`], [`queue`], [`expectations`], and for tests `harness`.
#![forbid(unsafe_code)]

pub mod cache;
pub mod controller;
pub mod expectations;
pub mod graph;
#[cfg(feature = "harness")]
pub mod harness;
pub mod object;
pub mod plan;
pub mod queue;

pub use cache::{Cache, Change, Progress, View};
pub use controller::{Controller, Failure, Input, Registrar, Watches};
pub use expectations::Expectations;
pub use object::{Key, Object, ResourceId, controller_of, owner_reference};
pub use plan::{
    Announce, Event, EventKind, Observation, Observe, Observed, PatchKind, Plan, Propagation, Verb, Wait, Write,
};
pub use queue::{Backoff, Queue};

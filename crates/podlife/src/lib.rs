//! podlife (pure): every decision of the kubelet. A pod, what the runtime shows, what the worker remembers and the time
//! go in; the next actions and the status to publish come out.
//!
//! ```text
//!   Pod ----------+
//!   Observed -----+--> plan::plan_pod --> PodPlan { stage, actions, status, probes, wake_in }
//!   PodMemory ----+          |
//!   now ----------+          +-- starting (init order, restarts, back-off), termination (order, grace)
//!                            +-- status (containers, phase, conditions)
//! ```
//!
//! Reading order: [`observed`], [`memory`], [`plan`], `starting`, `termination`, [`status`], [`phase`], [`conditions`];
//! then the small ones that turn specs into values: [`resources`], [`expand`], [`service_env`], [`downward`],
//! [`payload`], [`image`], [`security`], [`dns`], [`hosts_file`], [`admission`], [`sysctls`], `preemption`, [`probe`], [`backoff`], [`restart`].
//!
//! Invariants: no IO, no clock, no randomness [I2]; `plan_pod` is a function of its arguments, and planning again over the
//! same state while its actions are in flight asks for nothing new [I9].
#![forbid(unsafe_code)]

pub mod admission;
pub mod backoff;
pub mod conditions;
pub mod dns;
pub mod downward;
pub mod expand;
pub mod hosts_file;
pub mod image;
pub mod memory;
pub mod observed;
pub mod payload;
pub mod phase;
pub mod plan;
mod preemption;
pub mod probe;
pub mod resources;
pub mod restart;
pub mod security;
pub mod service_env;
pub mod signal;
pub mod spec;
mod starting;
pub mod status;
pub mod sysctls;
mod termination;

pub use memory::{ContainerMemory, PodMemory};
pub use observed::{ContainerRecord, Observed, RunState, Sandbox};
pub use plan::{Action, NodeFacts, PodPlan, ProbeTarget, Stage, plan_pod};

//! node: the kubelet. Pods bound to this node (from the API) become sandboxes and containers (over CRI), and what is
//! observed there becomes their status.
//!
//! ```text
//!   API watch (spec.nodeName=me)        containerd events, slow relist
//!            |                                   |
//!            v                                   v
//!     pods (dispatcher) -> worker, one a pod: observe -> podlife::plan -> act -> publish status
//!                              |       |        |
//!                           volumes  images   cri (sandbox, containers), probes, hooks
//!   heartbeat: Node object, Lease       server: HTTPS 10250
//! ```
//!
//! Reading order: [`config`], [`kubelet`], `worker`, `observe`, `container_config`, `volumes`, [`runtime`], [`server`].
//!
//! Invariants: [I12] nothing here touches a container because the process starts or stops; everything decided about a
//! pod comes from `podlife` over freshly observed state; every wait has an event or a deadline behind it.
//! Absent: flags and files of configuration (the binary parses), any access to the store, any decision about pods.

pub mod access;
pub mod cgroups;
pub mod config;
pub mod container_config;
pub mod cri;
pub mod env_vars;
pub mod garbage;
pub mod heartbeat;
pub mod hooks;
pub mod images;
pub mod kubelet;
pub mod log_rotation;
pub mod machine;
pub mod objects;
pub mod observe;
pub mod pods;
pub mod prober;
pub mod recorder;
pub mod runtime;
pub mod runtime_events;
pub mod sandbox_config;
pub mod server;
pub mod stats;
pub mod status;
pub mod streaming;
pub mod thresholds;
pub mod volumes;
pub mod worker;

pub use access::{ContainerTarget, LookupError, PodAccess, StreamRoutes};
pub use config::{EmbeddedImage, NodeConfig, RuntimeConfig, ServerConfig};
pub use kubelet::{NodeError, run};
pub use thresholds::Thresholds;

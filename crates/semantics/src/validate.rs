//! Validation that several kinds share: a part of an object and its path -> field errors.
//!
//! One module a concern. Rules of a single kind stand in that kind's file under `kinds`.

pub mod claim;
pub mod event;
pub mod labels;
pub mod numbers;
pub mod pod;
pub mod ports;
pub mod replicas;
pub mod resources;
pub mod rollout;
pub(crate) mod signer;
pub mod template;
pub(crate) mod volume_source;

//! The kinds of groups with few kinds.

pub mod admission;
pub mod autoscaling;
pub mod certificate;
pub mod custom_resource_definition;
pub mod disruption_budget;
pub mod endpoint_slice;
pub mod events;
pub mod flowcontrol;
pub mod lease;
pub mod networking;
pub mod priority_class;
pub mod rbac;
pub mod runtime_class;
pub mod storage;

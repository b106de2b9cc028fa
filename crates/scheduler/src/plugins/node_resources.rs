//! NodeResources: what a Pod requests against what a node can allocate.

pub mod balanced_allocation;
pub mod fit;

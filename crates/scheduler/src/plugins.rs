//! The plugins in the order they filter: cheap and final verdicts first.

pub mod image_locality;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources;
pub mod node_unschedulable;
pub mod taint_toleration;

use crate::plugin::Plugin;

/// Every plugin of the default profile.
pub fn all() -> &'static [&'static dyn Plugin] {
    &[
        &node_name::NodeName,
        &node_unschedulable::NodeUnschedulable,
        &taint_toleration::TaintToleration,
        &node_affinity::NodeAffinity,
        &node_ports::NodePorts,
        &node_resources::fit::Fit,
        &node_resources::balanced_allocation::BalancedAllocation,
        &image_locality::ImageLocality,
    ]
}

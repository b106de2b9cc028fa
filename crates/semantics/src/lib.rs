//! semantics (pure): what a write means - defaults, validation, patches, server-side apply - and the words about pods and
//! nodes that several components share.
//!
//! ```text
//!   patch::*  ->  object  ->  strategy(kind).default  ->  strategy::create / update  ->  apply::track  ->  store
//!                                                          |  names, object_meta, field
//! ```
//! Reading order: `strategy`, `typed`, `field`, then the folder of interest. Objects are `serde_json::Value` at the edges
//! and k8s-openapi structs inside a kind's rules. Time and ids are arguments.
#![forbid(unsafe_code)]

mod absent_selector;
pub mod amount;
pub mod apply;
#[cfg(test)]
mod check;
pub mod columns;
mod defaults;
pub mod field;
pub mod image;
pub mod kinds;
pub mod label_selector;
pub mod names;
pub mod node_fit;
pub mod node_selector;
pub mod object_meta;
pub mod patch;
pub mod pod;
pub mod pod_template_hash;
pub mod printed;
pub mod qos;
pub mod quota;
pub mod resources;
mod security_annotations;
pub mod semantic_eq;
pub mod strategy;
pub mod taints;
pub mod time;
pub mod typed;
pub mod validate;
pub mod warnings;

pub use field::{ErrorKind, Errors, FieldError, Path};
pub use kinds::{strategy, strategy_of};
pub use strategy::{Context, Rejection, Shape, Strategy, Subresource, User, Write, create, fill_metadata, update};

//! netplan (pure): what the node's network must look like, as values.
//!
//! ```text
//! Services, EndpointSlices --> [`rules`] one Service's elements --> [`proxy`] all of them, and the nft transaction
//!                          --> [`view`] --> [`dns`] question -> answer             that leads from old to new
//! ```
//!
//! Invariant: no IO, no clock, no randomness. What the kernel or a resolver is told is the shells' matter.
//!
//! Reading order: [`node`], [`endpoints`], [`element`], [`rules`], [`skeleton`], [`proxy`]; [`view`], [`dns`].
#![forbid(unsafe_code)]

pub mod dns;
pub mod element;
pub mod endpoints;
pub mod node;
pub mod proxy;
pub mod rules;
pub mod skeleton;
pub mod view;

pub use element::{Family, Frontend, Protocol};
pub use node::{Cidr, NodeView};
pub use proxy::{Proxy, Transaction, UdpFrontend};
pub use view::View;

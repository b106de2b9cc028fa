//! netd: the node's network. API objects in; Pod links, nftables rules and DNS answers out.
//!
//! ```text
//! kubelet -> runtime -> [`cni`] (a process of its own): link, address, host ports
//! [`setup`]: gateway, forwarding, CNI configuration, once at start
//! Services, EndpointSlices --[`watch`]--> netplan::View --[`proxy`]--> [`nft`], [`conntrack`]
//!                                              +----------[`dns`]----> answers, upstream servers
//! [`remove`]: all of it away again
//! ```
//!
//! Reading order: [`run`], [`setup`], [`cni`], [`watch`], [`proxy`], [`dns`], [`netlink`], [`netns`].
#![forbid(unsafe_code)]

pub mod cni;
pub mod conntrack;
pub mod dns;
mod dns_service;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod proxy;
mod remove;
mod run;
pub mod setup;
pub mod watch;

pub use dns_service::{dns_service, ensure_dns_service};
pub use netplan::Cidr;
pub use remove::remove_all;
pub use run::{Config, NetdError, run};
pub use setup::CniPaths;

//! netd: the node's network. API objects in; Pod links, nftables rules and DNS answers out.
//!
//! ```text
//! kubelet -> runtime -> [`cni`] (own process): link, address, host ports
//! [`setup`]: gateway, forwarding, CNI configuration, once at start
//! Services, EndpointSlices --(informers)--> netplan --> [`nft`]
//! ```
//!
//! Reading order: [`setup`], [`cni`], [`nft`], [`netlink`], [`netns`].

pub mod cni;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod setup;

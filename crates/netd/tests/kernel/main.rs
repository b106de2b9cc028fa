//! Tests against the real kernel, each in network namespaces of its own. They need root, `ip` and `nft`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod cni;
mod dns;
mod namespaces;
mod node;
mod proxy;
mod run;

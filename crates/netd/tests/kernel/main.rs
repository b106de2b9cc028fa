//! Tests against the real kernel, each in network namespaces of its own. They need root, `ip` and `nft`.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod api;
mod cni;
mod dns;
mod namespaces;
mod node;
mod proxy;
mod run;

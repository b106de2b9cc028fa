//! Tests against the real kernel, each in network namespaces of its own. They need root, `ip` and `nft`.

mod cni;
mod namespaces;

//! Clusters of several real processes: members of `holdfast etcd`, and servers that joined by token, on the loopback and, for root, on
//! machines of their own (network namespaces on one switch).
//!
//! They lose leaders, grow, shrink, and get dead ones replaced, under a load of writes: writes go on within a second, and nothing
//! that was acknowledged is lost.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod doctor;
mod etcd;
mod etcd_port;
mod grows;
mod load;
mod machines;
mod outside;
mod outside_etcd;
mod process;
mod restores;
mod server;
mod servers;

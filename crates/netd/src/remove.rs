//! Takes everything of ours out of the node again.
//!
//! Invariant: [`remove_all`] tries every step whatever fails before, is idempotent, and touches only what bears our names.

use std::fs;
use std::io;

use crate::cni::{hostport, pod};
use crate::netlink::Netlink;
use crate::nft;
use crate::setup::{CniPaths, GATEWAY_LINK};

/// Removes our nftables tables, Pod links (with their routes), `hf0` (with its addresses and routes), the CNI
/// configuration, plugin links and address records. Pods that still run lose their network. Returns what failed, one
/// line each; empty when nothing of ours is left. Blocking.
pub fn remove_all(paths: &CniPaths) -> Vec<String> {
    let mut failures = Vec::new();
    let mut note = |what: &str, result: Result<(), String>| {
        if let Err(error) = result {
            failures.push(format!("could not remove {what}: {error}"));
        }
    };
    for (family, table) in
        [("ip", netplan::skeleton::TABLE), ("ip6", netplan::skeleton::TABLE), ("ip", hostport::TABLE)]
    {
        // Declaring it first makes the deletion succeed where it does not exist.
        let script = format!("table {family} {table} {{ }}\ndelete table {family} {table}\n");
        note("an nftables table", nft::apply_blocking(&script).map_err(|error| error.to_string()));
    }
    note("the node's links", remove_links().map_err(|error| error.to_string()));
    for directory in [&paths.conf, &paths.bin, &paths.data] {
        let removed = match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| error.to_string()),
        };
        note(&directory.display().to_string(), removed);
    }
    failures
}

fn remove_links() -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        if link.name == GATEWAY_LINK || link.name.starts_with(pod::VETH_PREFIX) {
            netlink.delete_link(&link.name)?;
        }
    }
    Ok(())
}

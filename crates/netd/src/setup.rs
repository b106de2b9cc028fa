//! Prepares the node for Pods: the gateway and DNS addresses, the Service route, forwarding, and the CNI configuration
//! that tells the runtime to call us.
//!
//! `hf0` is a bridge without ports: it only carries addresses (a dummy link would do, but not every kernel has one).
//!
//! ```text
//! hf0: 10.42.0.1/32 (gateway of every Pod), 10.43.0.10/32 (DNS); route 10.43.0.0/16 dev hf0 src 10.42.0.1
//! ```
//!
//! The route gives Service addresses a way out of the host even without a default route, so that the output hook sees and
//! translates them, and makes the host speak to Pods from an address they route back.
//!
//! Invariant: [`apply`] is idempotent; the configuration appears last and whole, so a runtime that sees it can use it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cni;
use crate::netlink::{Netlink, Route};
use netplan::Cidr;

/// The link that carries the node's gateway and DNS addresses.
pub const GATEWAY_LINK: &str = "hf0";
/// File name of our network configuration; sorts before what an administrator would add.
const CONFLIST: &str = "10-holdfast.conflist";

/// Where the plugin's files are.
#[derive(Debug, Clone)]
pub struct CniPaths {
    /// Addresses in use.
    pub data: PathBuf,
    /// The runtime's `conf_dir`.
    pub conf: PathBuf,
    /// The runtime's `bin_dir`.
    pub bin: PathBuf,
}

impl CniPaths {
    /// The standard layout under the cluster's data directory: `cni`, `cni/conf`, `cni/bin`.
    pub fn under(data_dir: &Path) -> Self {
        let data = data_dir.join("cni");
        Self { conf: data.join("conf"), bin: data.join("bin"), data }
    }
}

/// What [`apply`] sets up.
#[derive(Debug, Clone)]
pub struct NodeNetwork {
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    /// Address of the node's DNS server inside the Service range; bound on every node, so Pods ask their own node.
    pub dns: Ipv4Addr,
    /// MTU of Pod links; that of the default route's link when `None`.
    pub mtu: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
#[error("could not {operation}")]
pub struct SetupError {
    operation: String,
    #[source]
    cause: io::Error,
}

fn while_doing<T>(operation: &str, result: io::Result<T>) -> Result<T, SetupError> {
    result.map_err(|cause| SetupError { operation: operation.to_owned(), cause })
}

/// Puts the node's network in place. `executable` is what the plugin's links point to.
pub fn apply(network: &NodeNetwork, paths: &CniPaths, executable: &Path) -> Result<(), SetupError> {
    while_doing("turn on IPv4 forwarding", turn_on_forwarding())?;
    let mtu = while_doing("configure hf0", apply_gateway(network))?;
    while_doing("install the CNI plugin", install_plugin(paths, executable))?;
    while_doing("write the CNI configuration", write_conflist(network, paths, mtu))
}

/// Only where it is off: the file may be read-only where somebody else has turned it on.
fn turn_on_forwarding() -> io::Result<()> {
    const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
    if fs::read_to_string(FORWARDING)?.trim() == "1" { Ok(()) } else { fs::write(FORWARDING, "1") }
}

/// Returns the MTU for Pod links.
fn apply_gateway(network: &NodeNetwork) -> io::Result<u32> {
    let mut netlink = Netlink::open()?;
    netlink.ensure_bridge(GATEWAY_LINK)?;
    let link = netlink.link(GATEWAY_LINK)?.ok_or(io::ErrorKind::NotFound)?;
    let gateway = IpAddr::V4(network.pod_cidr.gateway());
    netlink.ensure_address(link.index, gateway, 32)?;
    netlink.ensure_address(link.index, IpAddr::V4(network.dns), 32)?;
    netlink.set_up(link.index)?;
    netlink.replace_route(Route {
        destination: IpAddr::V4(network.service_cidr.network),
        prefix: network.service_cidr.prefix,
        index: link.index,
        gateway: None,
        source: Some(gateway),
    })?;
    let outward = netlink.default_route_link()?;
    let outward_mtu = netlink.links()?.into_iter().find(|link| Some(link.index) == outward).map(|link| link.mtu);
    Ok(network.mtu.or(outward_mtu).unwrap_or(1500))
}

fn install_plugin(paths: &CniPaths, executable: &Path) -> io::Result<()> {
    fs::create_dir_all(&paths.bin)?;
    for name in [cni::PLUGIN, cni::LOOPBACK_PLUGIN] {
        let aside = paths.bin.join(format!(".{name}"));
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(executable, &aside)?,
        }
        fs::rename(&aside, paths.bin.join(name))?;
    }
    Ok(())
}

fn write_conflist(network: &NodeNetwork, paths: &CniPaths, mtu: u32) -> io::Result<()> {
    // 1.0.0 is the newest version that containerd 1.6 reads.
    let conflist = json!({
        "cniVersion": "1.0.0",
        "name": "holdfast",
        "plugins": [{
            "type": cni::PLUGIN,
            "podCIDR": network.pod_cidr.to_string(),
            "mtu": mtu,
            "dataDir": paths.data,
            "capabilities": {"portMappings": true},
        }],
    });
    let text = format!("{conflist:#}\n");
    let path = paths.conf.join(CONFLIST);
    if fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    fs::create_dir_all(&paths.conf)?;
    // A dot file that ends in none of the extensions a runtime loads.
    let aside = paths.conf.join(".conflist.new");
    fs::write(&aside, text)?;
    fs::rename(aside, path)
}

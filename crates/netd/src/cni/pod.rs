//! Wires a sandbox to the node: a veth pair, a routed /32 address, a default route by the node's gateway address.
//!
//! ```text
//! sandbox: eth0 10.42.0.5/32, default via 10.42.0.1     host: hfv<hash>, route 10.42.0.5/32, no address
//! ```
//!
//! Each Pod link is a point-to-point route instead of a bridge port, so every packet between Pods is forwarded by the
//! host and passes its filter and NAT hooks; a bridge would switch replies past them unless br_netfilter is loaded
//! (docs/decisions/2026-11-25-routed-pods.md). Both ends pin each other's hardware address: no ARP is spoken.
//!
//! Invariant: the link is made before its address is recorded, so a record without its link is always a leftover.

use std::net::IpAddr;

use super::hostport;
use super::ipam::{Pool, Record};
use super::protocol::{Attached, Call, CniError};
use crate::netlink::{Link, Netlink, Route};
use crate::netns::NetNs;
use crate::setup::GATEWAY_LINK;
use netplan::Cidr;

/// Every host end of a Pod's link starts with this; `remove_all` and reclaiming go by it.
pub const VETH_PREFIX: &str = "hfv";

/// Connects the sandbox. A second ADD of the same attachment rebuilds the link and keeps the address.
pub fn add(call: &Call) -> Result<Attached, CniError> {
    let cidr = pod_cidr(call)?;
    let path = call.netns.clone().unwrap_or_default();
    let netns = NetNs::open(&path).map_err(|error| CniError::io("open the network namespace", &error))?;
    let veth = veth_name(&call.container_id, &call.interface);
    let mut host = Netlink::open().map_err(|error| CniError::io("open a netlink socket", &error))?;
    let mut inside = netns.enter(Netlink::open).map_err(|error| CniError::io("enter the network namespace", &error))?;

    let record = Record {
        container_id: call.container_id.clone(),
        interface: call.interface.clone(),
        veth: veth.clone(),
        ports: call.config.runtime_config.port_mappings.iter().filter(|port| port.host_port != 0).cloned().collect(),
    };
    let wired = host
        .delete_link(&veth)
        .and_then(|()| host.create_veth(&veth, &call.interface, std::os::fd::AsFd::as_fd(&netns), call.config.mtu))
        .map_err(|error| CniError::io("create the Pod's link", &error))
        .and_then(|()| {
            let pool = Pool::lock(&call.config.data_dir)?;
            let address = pool.allocate(cidr, &record)?;
            let ends = Ends { address: IpAddr::V4(address), gateway: IpAddr::V4(cidr.gateway()) };
            let (outer, inner) = ends
                .configure(&mut host, &veth, &mut inside, &call.interface)
                .map_err(|error| CniError::io("configure the Pod's link", &error))?;
            if !record.ports.is_empty() {
                hostport::apply(&pool.records()?)?;
                hostport::allow_loopback(&veth)?;
                hostport::forget_stale_udp(address, &record)?;
            }
            Ok((ends, outer, inner))
        });
    match wired {
        Ok((ends, outer, inner)) => Ok(Attached {
            host: Some((veth, outer.mac)),
            interface: call.interface.clone(),
            mac: inner.mac,
            netns: path,
            address: ends.address,
            prefix: 32,
            gateway: Some(ends.gateway),
        }),
        Err(error) => {
            // The first failure is the one to report; whatever this leaves, DEL and reclaiming clear.
            drop(del(call));
            Err(error)
        }
    }
}

/// Disconnects the sandbox and frees its address; succeeds when there is nothing to do.
pub fn del(call: &Call) -> Result<(), CniError> {
    let veth = veth_name(&call.container_id, &call.interface);
    Netlink::open()
        .and_then(|mut host| host.delete_link(&veth))
        .map_err(|error| CniError::io("delete the Pod's link", &error))?;
    release(call, |record| record.container_id == call.container_id && record.interface == call.interface)
}

/// Confirms what ADD made: both ends up, the address recorded and on the interface.
pub fn check(call: &Call) -> Result<(), CniError> {
    let differs = |what: &str| CniError::new(101, "the attachment is not as ADD made it", what);
    let record = Pool::lock(&call.config.data_dir)?
        .records()?
        .into_iter()
        .find(|(_, record)| record.container_id == call.container_id && record.interface == call.interface);
    let (address, record) = record.ok_or_else(|| differs("no address is recorded"))?;
    let observe = || -> std::io::Result<(Option<Link>, Option<Link>, bool)> {
        let outer = Netlink::open()?.link(&record.veth)?;
        let mut inside = NetNs::open(call.netns.as_deref().unwrap_or("".as_ref()))?.enter(Netlink::open)?;
        let inner = inside.link(&call.interface)?;
        let addresses = inner.as_ref().map(|link| inside.addresses(link.index)).transpose()?.unwrap_or_default();
        Ok((outer, inner, addresses.contains(&IpAddr::V4(address))))
    };
    match observe().map_err(|error| CniError::io("observe the attachment", &error))? {
        (Some(outer), Some(inner), true) if outer.up && inner.up => Ok(()),
        (None, ..) => Err(differs("the host's interface is missing")),
        (_, None, _) => Err(differs("the sandbox's interface is missing")),
        (_, _, false) => Err(differs("the address is missing")),
        _ => Err(differs("an interface is down")),
    }
}

/// Frees everything that is not among the valid attachments the runtime lists.
pub fn gc(call: &Call) -> Result<(), CniError> {
    let valid = |record: &Record| {
        call.config
            .valid_attachments
            .iter()
            .any(|keep| keep.container_id == record.container_id && keep.ifname == record.interface)
    };
    let stale: Vec<Record> = Pool::lock(&call.config.data_dir)?
        .records()?
        .into_iter()
        .map(|(_, record)| record)
        .filter(|record| !valid(record))
        .collect();
    let mut host = Netlink::open().map_err(|error| CniError::io("open a netlink socket", &error))?;
    for record in &stale {
        host.delete_link(&record.veth).map_err(|error| CniError::io("delete the Pod's link", &error))?;
    }
    release(call, |record| !valid(record))
}

/// Ready when netd has put the gateway in place.
pub fn status() -> Result<(), CniError> {
    let link = Netlink::open()
        .and_then(|mut host| host.link(GATEWAY_LINK))
        .map_err(|error| CniError::io("look for the gateway", &error))?;
    match link {
        Some(link) if link.up => Ok(()),
        _ => Err(CniError::new(50, "the node's network is not set up", GATEWAY_LINK)),
    }
}

/// Frees the addresses of Pods whose link is gone (the sandbox died with its namespace, or the machine restarted).
/// Returns how many.
pub fn reclaim(data_dir: &std::path::Path) -> Result<usize, CniError> {
    let pool = Pool::lock(data_dir)?;
    let links =
        Netlink::open().and_then(|mut host| host.links()).map_err(|error| CniError::io("list the links", &error))?;
    let gone = |record: &Record| !links.iter().any(|link| link.name == record.veth);
    let before = pool.records()?.len();
    if pool.release(gone)? > 0 {
        hostport::apply(&pool.records()?)?;
    }
    Ok(before - pool.records()?.len())
}

fn release(call: &Call, matches: impl Fn(&Record) -> bool) -> Result<(), CniError> {
    let pool = Pool::lock(&call.config.data_dir)?;
    if pool.release(matches)? > 0 {
        hostport::apply(&pool.records()?)?;
    }
    Ok(())
}

fn pod_cidr(call: &Call) -> Result<Cidr, CniError> {
    call.config.pod_cidr.ok_or_else(|| CniError::new(7, "podCIDR is missing from the network configuration", ""))
}

/// The host's interface of an attachment: the same name for the same attachment, 48 bits of FNV-1a.
fn veth_name(container_id: &str, interface: &str) -> String {
    let bytes = container_id.bytes().chain([b'/']).chain(interface.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{VETH_PREFIX}{:012x}", hash >> 16)
}

/// The two addresses of a Pod's link.
struct Ends {
    address: IpAddr,
    gateway: IpAddr,
}

impl Ends {
    fn configure(
        &self,
        host: &mut Netlink,
        veth: &str,
        inside: &mut Netlink,
        interface: &str,
    ) -> std::io::Result<(Link, Link)> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let outer = host.link(veth)?.ok_or_else(missing)?;
        let inner = inside.link(interface)?.ok_or_else(missing)?;
        if let Some(lo) = inside.link("lo")?.filter(|lo| !lo.up) {
            inside.set_up(lo.index)?;
        }
        inside.ensure_address(inner.index, self.address, 32)?;
        inside.set_up(inner.index)?;
        host.set_up(outer.index)?;
        inside.replace_neighbour(inner.index, self.gateway, &outer.mac)?;
        let anywhere = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let default =
            Route { destination: anywhere, prefix: 0, index: inner.index, gateway: Some(self.gateway), source: None };
        inside.replace_route(default)?;
        host.replace_neighbour(outer.index, self.address, &inner.mac)?;
        let source = host_source(host, self.gateway)?;
        host.replace_route(Route { destination: self.address, prefix: 32, index: outer.index, gateway: None, source })?;
        Ok((outer, inner))
    }
}

/// The host talks to its Pods from the gateway address; the kernel refuses that source where netd has not put it yet.
fn host_source(host: &mut Netlink, gateway: IpAddr) -> std::io::Result<Option<IpAddr>> {
    let Some(link) = host.link(GATEWAY_LINK)? else { return Ok(None) };
    Ok(host.addresses(link.index)?.into_iter().find(|address| *address == gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veth_names_fit_the_kernel_and_differ() {
        let name = veth_name("0123456789abcdef", "eth0");
        assert_eq!(name.len(), 15);
        assert_ne!(name, veth_name("0123456789abcdef", "eth1"));
    }
}

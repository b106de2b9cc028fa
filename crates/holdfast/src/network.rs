//! Addresses of this machine and of the cluster: parsed from flags, or found out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;

/// Prefixes of networks that a cluster can use at all.
const PREFIXES: RangeInclusive<u8> = 1..=30;
/// The cluster's DNS has the tenth address of the Services.
const SERVICE_PREFIX_MAX: u8 = 28;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadNetwork {
    #[error("{text:?} is no IPv4 network such as 10.42.0.0/16")]
    Form { text: String },
    #[error("{text:?} is no IPv4 network: the one of this address is {first}/{prefix}")]
    NotFirst { text: String, first: Ipv4Addr, prefix: u8 },
    #[error("the network {text} has no use here: its prefix must be {} to {}", PREFIXES.start(), PREFIXES.end())]
    Size { text: String },
    #[error(
        "the network {network}/{prefix} has no room for Services: the prefix of --service-cidr is {SERVICE_PREFIX_MAX} at most"
    )]
    ServiceSize { network: Ipv4Addr, prefix: u8 },
    #[error("--cluster-cidr {pods} and --service-cidr {services} overlap; choose two that share no address")]
    Overlap { pods: String, services: String },
}

/// `10.42.0.0/16` -> (10.42.0.0, 16). Host bits must be zero.
pub fn parse_network(text: &str) -> Result<(Ipv4Addr, u8), BadNetwork> {
    let bad = || BadNetwork::Form { text: text.to_owned() };
    let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse().map_err(|_| bad())?, prefix.parse().map_err(|_| bad())?);
    if prefix > 32 {
        return Err(bad());
    }
    if !PREFIXES.contains(&prefix) {
        return Err(BadNetwork::Size { text: text.to_owned() });
    }
    let first = mask(address, prefix);
    if first != address {
        return Err(BadNetwork::NotFirst { text: text.to_owned(), first, prefix });
    }
    Ok((address, prefix))
}

/// The first address of the network of `prefix` (1 to 32) that `address` is in.
fn mask(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & (u32::MAX << (32 - u32::from(prefix))))
}

/// Services need room, and addresses that no Pod has.
pub fn check_service_network(services: (Ipv4Addr, u8), pods: (Ipv4Addr, u8)) -> Result<(), BadNetwork> {
    let (network, prefix) = services;
    if prefix > SERVICE_PREFIX_MAX {
        return Err(BadNetwork::ServiceSize { network, prefix });
    }
    let wider = prefix.min(pods.1);
    if mask(network, wider) == mask(pods.0, wider) {
        let text = |(network, prefix): (Ipv4Addr, u8)| format!("{network}/{prefix}");
        return Err(BadNetwork::Overlap { pods: text(pods), services: text(services) });
    }
    Ok(())
}

/// The `n`th address of a network.
pub fn nth_address(network: (Ipv4Addr, u8), n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.0).wrapping_add(n))
}

/// `https://ADDRESS:PORT`.
pub fn server_url(address: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(address, port))
}

/// Where to listen for those who come to `address`: on all addresses, those of version 4 among them in any case.
pub fn any_address(address: IpAddr) -> IpAddr {
    if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// The address that this machine uses towards others: that of its default route, else of its first link that has one.
/// On a machine without any network it is the loopback address, and the cluster serves that machine alone.
pub fn own_address() -> IpAddr {
    default_route_address().or_else(first_link_address).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Nothing is sent: connecting a UDP socket only asks the routing table.
fn default_route_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

fn first_link_address() -> Option<IpAddr> {
    let mut netlink = netd::netlink::Netlink::open().ok()?;
    let links = netlink.links().ok()?;
    let others = links.iter().filter(|link| link.name != "lo" && link.name != netd::setup::GATEWAY_LINK);
    let mut addresses = others.flat_map(|link| netlink.addresses(link.index).unwrap_or_default());
    addresses.find(|ip| ip.is_ipv4() && !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_pods_share_no_address() {
        let check = |services, pods| {
            check_service_network(parse_network(services).unwrap(), parse_network(pods).unwrap())
                .map_err(|bad| bad.to_string())
        };
        assert_eq!(check("10.43.0.0/16", "10.42.0.0/16"), Ok(()));
        assert_eq!(check("10.43.0.0/28", "10.43.0.16/28"), Ok(()));
        for (services, pods) in [("10.42.0.0/16", "10.42.0.0/16"), ("10.42.1.0/24", "10.42.0.0/16")] {
            assert!(check(services, pods).unwrap_err().contains("overlap") && check(pods, services).is_err());
        }
        assert!(check("10.43.0.0/29", "10.42.0.0/16").unwrap_err().contains("no room for Services"));
    }

    #[test]
    fn networks() {
        assert_eq!(parse_network("10.42.0.0/16"), Ok((Ipv4Addr::new(10, 42, 0, 0), 16)));
        for bad in ["10.42.0.0", "10.42.0.1/16", "10.42.0.0/0", "10.42.0.0/31", "x/16", "10.42.0.0/x"] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
        let said = |text| parse_network(text).unwrap_err().to_string();
        assert!(said("10.43.0.0/31").contains("its prefix must be 1 to 30"), "{}", said("10.43.0.0/31"));
        assert!(said("10.43.7.1/16").contains("the one of this address is 10.43.0.0/16"), "{}", said("10.43.7.1/16"));
        assert_eq!(server_url([10, 0, 0, 1].into(), 6443), "https://10.0.0.1:6443");
        assert_eq!(server_url(Ipv6Addr::LOCALHOST.into(), 6443), "https://[::1]:6443");
        assert_eq!(nth_address((Ipv4Addr::new(10, 43, 0, 0), 16), 10), Ipv4Addr::new(10, 43, 0, 10));
    }
}

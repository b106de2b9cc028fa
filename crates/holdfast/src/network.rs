//! Addresses of this machine and of the cluster: parsed from flags, or found out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no IPv4 network such as 10.42.0.0/16")]
pub struct BadNetwork {
    text: String,
}

/// `10.42.0.0/16` -> (10.42.0.0, 16). Host bits must be zero.
pub fn parse_network(text: &str) -> Result<(Ipv4Addr, u8), BadNetwork> {
    let bad = || BadNetwork { text: text.to_owned() };
    let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse().map_err(|_| bad())?, prefix.parse().map_err(|_| bad())?);
    if prefix == 0 || prefix > 30 || u32::from(address) << prefix != 0 {
        return Err(bad());
    }
    Ok((address, prefix))
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
    fn networks() {
        assert_eq!(parse_network("10.42.0.0/16"), Ok((Ipv4Addr::new(10, 42, 0, 0), 16)));
        for bad in ["10.42.0.0", "10.42.0.1/16", "10.42.0.0/0", "10.42.0.0/31", "x/16", "10.42.0.0/x"] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
        assert_eq!(server_url([10, 0, 0, 1].into(), 6443), "https://10.0.0.1:6443");
        assert_eq!(server_url(Ipv6Addr::LOCALHOST.into(), 6443), "https://[::1]:6443");
        assert_eq!(nth_address((Ipv4Addr::new(10, 43, 0, 0), 16), 10), Ipv4Addr::new(10, 43, 0, 10));
    }
}

//! Addresses of this machine and of the cluster: parsed from flags, or found out.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

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

/// The address that this machine uses towards others. Nothing is sent: a connected UDP socket only asks the routing table.
/// Without any route it is the loopback address, so that a machine off the network still gets a cluster.
pub fn own_address() -> IpAddr {
    let towards = |to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    towards("192.0.2.1:9").filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
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
        assert_eq!(nth_address((Ipv4Addr::new(10, 43, 0, 0), 16), 10), Ipv4Addr::new(10, 43, 0, 10));
    }
}

//! What planning needs to know of the node itself.

use std::net::Ipv4Addr;

/// An IPv4 prefix in canonical form: no host bits set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Cidr {
    pub network: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    /// The first address: the node's end of every Pod link.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// Addresses that Pods may get: all but the network's own, the gateway and the broadcast address.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.network.to_bits();
        let size = 1u64 << (32 - u32::from(self.prefix));
        (2..size.saturating_sub(1)).map(move |offset| Ipv4Addr::from_bits(first + offset as u32))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - u32::from(prefix))
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not an IPv4 prefix of length 8 to 30");
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().ok().filter(|len| (8..=30).contains(len)).ok_or_else(invalid)?;
        Ok(Self { network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix })
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The node that rules are planned for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    pub name: String,
    /// `topology.kubernetes.io/zone`, for topology hints.
    pub zone: Option<String>,
    /// This node's Pods.
    pub pod_cidr: Cidr,
    /// All nodes' Pods.
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    /// A Service address that the node itself answers (its DNS server): never translated.
    pub local_address: Option<Ipv4Addr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_yields_gateway_and_hosts() {
        let cidr: Cidr = "10.42.3.77/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.42.3.0/24");
        assert_eq!(cidr.gateway().to_string(), "10.42.3.1");
        let hosts: Vec<_> = cidr.hosts().collect();
        assert_eq!((hosts.len(), hosts[0].to_string()), (253, "10.42.3.2".to_owned()));
        assert_eq!(hosts[252].to_string(), "10.42.3.254");
        assert!(cidr.contains(hosts[0]) && !cidr.contains("10.42.4.1".parse().unwrap()));
        assert!("10.0.0.0/40".parse::<Cidr>().is_err());
    }
}

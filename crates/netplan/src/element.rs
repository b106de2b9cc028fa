//! The parts that proxy rules are made of, as typed values, and their nftables text.
//!
//! Every Service address and port is one element of a verdict map; its value names a chain by the number of backends, and
//! that chain looks the backend up under (address, protocol, port, random number). So a packet costs two hash lookups
//! whatever the number of Services, and a change of a Service is a few element changes, no chains.
//!
//! ```text
//! services:        10.43.0.20 . tcp . 80 : goto pick_services_tcp_2
//! services_tcp_to: 10.43.0.20 . 80 . 0   : 10.42.0.5 . 8080
//!                  10.43.0.20 . 80 . 1   : 10.42.0.6 . 8080
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The mark bit of connections that we translated; upstream's own, which other software leaves alone.
pub const MARK: &str = "0x4000";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The nftables family and protocol name.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// From the API's spelling; absent means TCP.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// Lower case, as nftables and DNS spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Where clients send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub family: Family,
    /// `None`: a node port, on every address of the node.
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address} . ")?;
        }
        write!(f, "{} . {}", self.protocol.name(), self.port)
    }
}

/// Which clients an element is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clients {
    Everyone,
    /// Those outside the cluster, under `externalTrafficPolicy: Local`; they are looked up first.
    Outside,
}

/// The key of one element, and by its variant the map or set it lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// What to do with connections to a frontend.
    Dispatch(Clients, Frontend),
    /// The backend of a frontend at a random number.
    Backend(Clients, Frontend, u32),
    /// An address that has no backend and is not in the Service range, whose rejection needs no element.
    Refuse(Frontend),
    /// An address that only some sources may use.
    Guard(Frontend),
    /// A Pod of this node that may be translated to itself.
    Hairpin(IpAddr),
}

/// The value of one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Choose among this many backends.
    Pick(u32),
    /// Go to a Service's own chain.
    Chain(String),
    /// Visit a chain that may drop, then go on.
    Jump(String),
    /// No backend that this client may reach: as upstream, silence.
    Drop,
    Backend(SocketAddr),
    Reject,
    /// A set has no values.
    Member,
}

impl Element {
    pub fn family(&self) -> Family {
        match self {
            Self::Dispatch(_, frontend)
            | Self::Backend(_, frontend, _)
            | Self::Refuse(frontend)
            | Self::Guard(frontend) => frontend.family,
            Self::Hairpin(address) => Family::of(*address),
        }
    }

    /// The map or set this element belongs to.
    pub fn container(&self) -> String {
        match self {
            Self::Dispatch(clients, frontend) => dispatch_map(*clients, frontend.address.is_none()).to_owned(),
            Self::Backend(clients, frontend, _) => {
                backend_map(dispatch_map(*clients, frontend.address.is_none()), frontend.protocol)
            }
            Self::Refuse(_) => "refused".to_owned(),
            Self::Guard(_) => "guarded".to_owned(),
            Self::Hairpin(_) => "hairpins".to_owned(),
        }
    }

    /// The element's key in nftables text.
    pub fn key(&self) -> String {
        match self {
            Self::Dispatch(_, frontend) | Self::Refuse(frontend) | Self::Guard(frontend) => frontend.to_string(),
            Self::Backend(_, frontend, slot) => match frontend.address {
                Some(address) => format!("{address} . {} . {slot}", frontend.port),
                None => format!("{} . {slot}", frontend.port),
            },
            Self::Hairpin(address) => format!("{address} . {address}"),
        }
    }

    /// Key and value in nftables text.
    pub fn entry(&self, value: &Value) -> String {
        let key = self.key();
        match value {
            Value::Pick(count) => match self.pick(*count) {
                Some((chain, _)) => format!("{key} : goto {chain}"),
                None => key,
            },
            Value::Chain(name) => format!("{key} : goto {name}"),
            Value::Jump(name) => format!("{key} : jump {name}"),
            Value::Drop => format!("{key} : drop"),
            Value::Backend(backend) => format!("{key} : {} . {}", backend.ip(), backend.port()),
            Value::Reject => format!("{key} : goto reject_now"),
            Value::Member => key,
        }
    }

    /// The chain that chooses among `count` backends of this element's kind, and its one rule; none unless it dispatches.
    pub fn pick(&self, count: u32) -> Option<(String, String)> {
        let Self::Dispatch(clients, frontend) = self else { return None };
        let (family, protocol) = (frontend.family.name(), frontend.protocol.name());
        let map = dispatch_map(*clients, frontend.address.is_none());
        let address = if frontend.address.is_some() { format!("{family} daddr . ") } else { String::new() };
        let rule = format!(
            "meta mark set meta mark or {MARK} dnat {family} to \
             {address}{protocol} dport . numgen random mod {count} map @{}",
            backend_map(map, frontend.protocol)
        );
        Some((format!("pick_{map}_{protocol}_{count}"), rule))
    }
}

/// The dispatch maps of a table; those of node ports have no address in their keys.
pub const DISPATCH_MAPS: [(&str, bool); 4] =
    [("services", true), ("outside_services", true), ("node_ports", false), ("outside_node_ports", false)];

/// Backend maps are one a protocol: nft derives the protocol of a lookup from the declared type of the port.
pub fn backend_map(dispatch_map: &str, protocol: Protocol) -> String {
    format!("{dispatch_map}_{}_to", protocol.name())
}

fn dispatch_map(clients: Clients, node_port: bool) -> &'static str {
    match (clients, node_port) {
        (Clients::Everyone, false) => "services",
        (Clients::Everyone, true) => "node_ports",
        (Clients::Outside, false) => "outside_services",
        (Clients::Outside, true) => "outside_node_ports",
    }
}

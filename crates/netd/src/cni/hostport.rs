//! Host ports: an nftables table of the plugin's own, rendered from the address records as a whole.
//!
//! Invariant: after [`apply`] the table holds exactly the ports of the records given; it is replaced in one transaction.
//! It is apart from netd's table so that neither ever rewrites the other's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netplan::{Family, Frontend, Protocol, UdpFrontend};

use super::ipam::Record;
use super::pod::VETH_PREFIX;
use super::protocol::{CniError, PortMapping};
use crate::{conntrack, nft};

/// The table's name, in family `ip`.
pub const TABLE: &str = "holdfast_hostports";

/// Makes the kernel's table that of `records`.
pub fn apply(records: &[(Ipv4Addr, Record)]) -> Result<(), CniError> {
    nft::apply_blocking(&render(records))
        .map_err(|error| CniError::new(5, "could not set host ports", &error.to_string()))
}

/// Makes UDP flows that were tracked before this Pod had its host ports forget where they led.
pub fn forget_stale_udp(address: Ipv4Addr, record: &Record) -> Result<(), CniError> {
    let is_udp = |port: &&PortMapping| port.protocol.eq_ignore_ascii_case("udp");
    let frontends: Vec<UdpFrontend> = record
        .ports
        .iter()
        .filter(is_udp)
        .map(|port| UdpFrontend {
            frontend: Frontend {
                family: Family::V4,
                address: port.host_ip.parse().ok().filter(|address: &IpAddr| !address.is_unspecified()),
                protocol: Protocol::Udp,
                port: port.host_port,
            },
            backends: [SocketAddr::from((address, port.container_port))].into(),
        })
        .collect();
    match conntrack::forget_stale_udp(&frontends) {
        Ok(_) => Ok(()),
        Err(error) => Err(CniError::io("forget stale UDP flows", &error)),
    }
}

/// Lets connections from the host's 127.0.0.1 be translated out to this Pod. The table's guard keeps the network out.
pub fn allow_loopback(veth: &str) -> Result<(), CniError> {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{veth}/route_localnet"), "1")
        .map_err(|error| CniError::io("allow host ports on 127.0.0.1", &error))
}

fn render(records: &[(Ipv4Addr, Record)]) -> String {
    let mut anywhere = String::new();
    let mut specific = String::new();
    let mut pods = String::new();
    for (address, record) in records.iter().filter(|(_, record)| !record.ports.is_empty()) {
        push(&mut pods, format_args!("{address} . {address}"));
        for port in &record.ports {
            let protocol = match port.protocol.to_ascii_lowercase().as_str() {
                "" => "tcp".to_owned(),
                other => other.to_owned(),
            };
            if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
                continue;
            }
            let (host, container) = (port.host_port, port.container_port);
            match port.host_ip.parse::<Ipv4Addr>() {
                Ok(ip) if !ip.is_unspecified() => {
                    push(&mut specific, format_args!("{ip} . {protocol} . {host} : {address} . {container}"));
                }
                // An IPv6 host address has no IPv4 Pod behind it.
                Err(_) if !port.host_ip.is_empty() => {}
                _ => push(&mut anywhere, format_args!("{protocol} . {host} : {address} . {container}")),
            }
        }
    }
    let elements = |text: String| if text.is_empty() { text } else { format!("elements = {{ {text} }}") };
    format!(
        "table ip {TABLE} {{ }}
delete table ip {TABLE}
table ip {TABLE} {{
  map specific {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    {} }}
  map anywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service
    {} }}
  set pods {{ type ipv4_addr . ipv4_addr
    {} }}
  chain translate {{
    dnat ip to ip daddr . meta l4proto . th dport map @specific
    dnat ip to meta l4proto . th dport map @anywhere
  }}
  chain guard {{ type filter hook prerouting priority -350
    iifname \"{VETH_PREFIX}*\" ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{ type nat hook prerouting priority -105
    fib daddr type local goto translate
  }}
  chain output {{ type nat hook output priority -105
    fib daddr type local goto translate
  }}
  chain postrouting {{ type nat hook postrouting priority 95
    ip saddr . ip daddr @pods masquerade
    ct status dnat ip saddr 127.0.0.0/8 masquerade
  }}
}}
",
        elements(specific),
        elements(anywhere),
        elements(pods)
    )
}

fn push(list: &mut String, item: std::fmt::Arguments<'_>) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push_str(&item.to_string());
}

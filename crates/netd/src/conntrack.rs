//! Makes the kernel forget UDP flows that lead to a backend that is gone (or to none, from before there was one).
//!
//! UDP has no end of connection: a client that keeps its port would be sent to the old backend for as long as it speaks.
//! Reads the connection table by ctnetlink, picks the stale flows, deletes each by its original tuple.
//!
//! Invariant: only flows of the given frontends are touched, and of these only those that lead elsewhere than to a present
//! backend. Blocking: call from a thread that may wait.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netplan::UdpFrontend;

use crate::netlink::{Message, NLM_F_DUMP, Netlink, attributes};

/// Subsystem `ctnetlink` and its messages.
const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const IPPROTO_UDP: u8 = 17;
/// Length of the family header that precedes the attributes.
const NFGENMSG: usize = 4;

/// Deletes the stale flows of `frontends`; returns how many there were.
pub fn forget_stale_udp(frontends: &[UdpFrontend]) -> io::Result<usize> {
    if frontends.is_empty() {
        return Ok(0);
    }
    let mut netlink = Netlink::open_netfilter()?;
    let mut dump = Message::new(CT_GET, NLM_F_DUMP);
    dump.body.extend([0; NFGENMSG]);
    let stale: Vec<Flow> = netlink
        .exchange(dump)?
        .iter()
        .filter_map(|reply| Flow::parse(reply))
        .filter(|flow| frontends.iter().any(|frontend| is_stale(flow, frontend)))
        .collect();
    for flow in &stale {
        let mut delete = Message::new(CT_DELETE, 0);
        delete.body.extend([flow.family, 0, 0, 0]);
        delete.nest(CTA_TUPLE_ORIG, |message| message.body.extend(&flow.original_raw));
        match netlink.acknowledge(delete) {
            // It timed out in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(stale.len())
}

/// A tracked UDP flow.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    family: u8,
    /// Where the client sent to.
    sent_to: SocketAddr,
    /// Who answers.
    answered_by: SocketAddr,
    original_raw: Vec<u8>,
}

impl Flow {
    fn parse(reply: &[u8]) -> Option<Self> {
        let find = |kind: u16| attributes(reply.get(NFGENMSG..)?).find(|(k, _)| *k == kind).map(|(_, value)| value);
        let original = find(CTA_TUPLE_ORIG)?;
        let (_, sent_to) = parse_tuple(original)?;
        let (answered_by, _) = parse_tuple(find(CTA_TUPLE_REPLY)?)?;
        Some(Self { family: *reply.first()?, sent_to, answered_by, original_raw: original.to_vec() })
    }
}

/// Source and destination of a UDP tuple; none for other protocols.
fn parse_tuple(tuple: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut source, mut destination) = (None, None);
    let (mut source_port, mut destination_port, mut protocol) = (0, 0, 0);
    for (outer, inner) in attributes(tuple) {
        for (kind, value) in attributes(inner) {
            match (outer, kind) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => source = parse_ip(value),
                (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => destination = parse_ip(value),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = *value.first()?,
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => source_port = u16::from_be_bytes(value.try_into().ok()?),
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => destination_port = u16::from_be_bytes(value.try_into().ok()?),
                _ => {}
            }
        }
    }
    let tuple = (SocketAddr::new(source?, source_port), SocketAddr::new(destination?, destination_port));
    (protocol == IPPROTO_UDP).then_some(tuple)
}

fn parse_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn is_stale(flow: &Flow, frontend: &UdpFrontend) -> bool {
    let same_port = flow.sent_to.port() == frontend.frontend.port;
    let same_address = frontend.frontend.address.is_none_or(|address| flow.sent_to.ip() == address);
    same_port && same_address && !frontend.backends.contains(&flow.answered_by)
}

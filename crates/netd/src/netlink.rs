//! A small synchronous rtnetlink client: typed requests in, kernel state changed or read.
//!
//! One blocking socket per network namespace: the socket belongs to the namespace of the thread that opened it, so a
//! caller enters a namespace, opens, and leaves. No runtime and no background task, because the CNI plugin is a process
//! of a few milliseconds (docs/decisions/2026-11-25-own-netlink.md).
//!
//! Invariant: every request waits for the kernel's acknowledgement, so a returned `Ok` is in force.
//! Not here: nftables (see `nft`), policy and naming (see `cni`, `setup`).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A network interface as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Hardware address; empty for kinds without one.
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub up: bool,
}

/// A route to install: `destination/prefix` through `index`, optionally by a gateway that need not be on a known subnet.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub destination: IpAddr,
    pub prefix: u8,
    pub index: u32,
    pub gateway: Option<IpAddr>,
    /// The source address the host uses for traffic of its own over this route.
    pub source: Option<IpAddr>,
}

/// A routing socket bound to one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Self::open_protocol(None)
    }

    /// The same for netfilter's own messages.
    pub(crate) fn open_netfilter() -> io::Result<Self> {
        Self::open_protocol(Some(rustix::net::netlink::NETFILTER))
    }

    /// `None` is the routing protocol, whose number is 0.
    fn open_protocol(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Creates a veth pair: `host` here, `peer` in the namespace `peer_ns`. `AlreadyExists` when either name is taken.
    pub fn create_veth(&mut self, host: &str, peer: &str, peer_ns: BorrowedFd<'_>, mtu: u32) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        message.interface_header(0, 0, 0);
        message.text(IFLA_IFNAME, host);
        message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer_message| {
                    peer_message.interface_header(0, 0, 0);
                    peer_message.text(IFLA_IFNAME, peer);
                    peer_message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
                    peer_message.attribute(IFLA_NET_NS_FD, &peer_ns.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.acknowledge(message)
    }

    /// Creates a bridge without ports; `Ok` when a link of this name exists already.
    pub fn ensure_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        message.interface_header(0, 0, 0);
        message.text(IFLA_IFNAME, name);
        message.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        accept(io::ErrorKind::AlreadyExists, self.acknowledge(message))
    }

    /// The link of this name, or `None`.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = Message::new(RTM_GETLINK, 0);
        message.interface_header(0, 0, 0);
        message.text(IFLA_IFNAME, name);
        match self.exchange(message) {
            Ok(replies) => Ok(replies.iter().find_map(|reply| parse_link(reply))),
            Err(error) if is_no_device(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut message = Message::new(RTM_GETLINK, NLM_F_DUMP);
        message.interface_header(0, 0, 0);
        Ok(self.exchange(message)?.iter().filter_map(|reply| parse_link(reply)).collect())
    }

    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, 0);
        message.interface_header(index, IFF_UP, IFF_UP);
        self.acknowledge(message)
    }

    /// Deletes the link of this name (a veth takes its peer along); `Ok` when there is none.
    pub fn delete_link(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_DELLINK, 0);
        message.interface_header(0, 0, 0);
        message.text(IFLA_IFNAME, name);
        match self.acknowledge(message) {
            Err(error) if is_no_device(&error) => Ok(()),
            other => other,
        }
    }

    /// Adds `address/prefix` to a link; `Ok` when it is there already.
    pub fn ensure_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
        message.body.extend([family_of(address), prefix, 0, 0]);
        message.body.extend(index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &octets(address));
        message.attribute(IFA_ADDRESS, &octets(address));
        accept(io::ErrorKind::AlreadyExists, self.acknowledge(message))
    }

    /// The IPv4 addresses of a link.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<IpAddr>> {
        let mut message = Message::new(RTM_GETADDR, NLM_F_DUMP);
        message.body.extend([0, 0, 0, 0]);
        message.body.extend(0u32.to_ne_bytes());
        let replies = self.exchange(message)?;
        Ok(replies
            .iter()
            .filter(|reply| reply.len() > 8 && reply[4..8] == index.to_ne_bytes())
            .filter_map(|reply| attributes(&reply[8..]).find(|(kind, _)| *kind == IFA_LOCAL))
            .filter_map(|(_, value)| Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)))
            .collect())
    }

    /// Installs the route, replacing one to the same destination.
    pub fn replace_route(&mut self, route: Route) -> io::Result<()> {
        let scope = if route.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
        let flags = if route.gateway.is_some() { RTNH_F_ONLINK } else { 0 };
        let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
        message.route_header(family_of(route.destination), route.prefix, scope, flags);
        if route.prefix > 0 {
            message.attribute(RTA_DST, &octets(route.destination));
        }
        if let Some(gateway) = route.gateway {
            message.attribute(RTA_GATEWAY, &octets(gateway));
        }
        if let Some(source) = route.source {
            message.attribute(RTA_PREFSRC, &octets(source));
        }
        message.attribute(RTA_OIF, &route.index.to_ne_bytes());
        self.acknowledge(message)
    }

    /// The interface index that the host's IPv4 default route leaves by, if there is one.
    pub fn default_route_link(&mut self) -> io::Result<Option<u32>> {
        let mut message = Message::new(RTM_GETROUTE, NLM_F_DUMP);
        message.route_header(AF_INET, 0, 0, 0);
        let replies = self.exchange(message)?;
        Ok(replies
            .iter()
            .filter(|reply| reply.len() > 12 && reply[1] == 0 && reply[4] == RT_TABLE_MAIN)
            .filter_map(|reply| attributes(&reply[12..]).find(|(kind, _)| *kind == RTA_OIF))
            .find_map(|(_, value)| Some(u32::from_ne_bytes(value.try_into().ok()?))))
    }

    /// Pins `address` to `mac` on a link for good, so that no ARP is ever needed (or believed) for it.
    pub fn replace_neighbour(&mut self, index: u32, address: IpAddr, mac: &[u8]) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
        message.body.extend([family_of(address), 0, 0, 0]);
        message.body.extend(index.to_ne_bytes());
        message.body.extend(NUD_PERMANENT.to_ne_bytes());
        message.body.extend([0, 0]);
        message.attribute(NDA_DST, &octets(address));
        message.attribute(NDA_LLADDR, mac);
        self.acknowledge(message)
    }

    pub(crate) fn acknowledge(&mut self, message: Message) -> io::Result<()> {
        self.exchange(message).map(|_| ())
    }

    /// Sends one request and collects the payloads of its replies until the acknowledgement or the end of the dump.
    pub(crate) fn exchange(&mut self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let bytes = message.encode(self.sequence);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        let mut replies = Vec::new();
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let (length, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            for (kind, sequence, payload) in messages(&buffer[..length]) {
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(replies),
                    NLMSG_ERROR => return error_code(payload).map(|()| replies),
                    _ => replies.push(payload.to_vec()),
                }
            }
        }
    }
}

/// A request under construction: the fixed header of its family, then attributes.
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let acknowledge = if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        Self { kind, flags: flags | NLM_F_REQUEST | acknowledge, body: Vec::with_capacity(256) }
    }

    fn interface_header(&mut self, index: u32, flags: u32, change: u32) {
        self.body.extend([0; 4]);
        self.body.extend(index.to_ne_bytes());
        self.body.extend(flags.to_ne_bytes());
        self.body.extend(change.to_ne_bytes());
    }

    fn route_header(&mut self, family: u8, prefix: u8, scope: u8, flags: u32) {
        self.body.extend([family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
        self.body.extend(flags.to_ne_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.body.extend(value));
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.nested(kind | NLA_F_NESTED, fill);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.body.len();
        self.body.extend([0, 0]);
        self.body.extend(kind.to_ne_bytes());
        fill(self);
        let length = (self.body.len() - start) as u16;
        self.body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn encode(self, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(NLMSG_HEADER + self.body.len());
        bytes.extend(((NLMSG_HEADER + self.body.len()) as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(self.body);
        bytes
    }
}

/// Splits a datagram into (type, sequence, payload); stops at the first malformed length.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let payload = rest.get(NLMSG_HEADER..length)?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(rest.get(8..12)?.try_into().ok()?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, payload))
    })
}

/// Splits attributes into (type without flags, value); stops at the first malformed length.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let flags = u32::from_ne_bytes(payload.get(8..12)?.try_into().ok()?);
    let mut link = Link { index, name: String::new(), mac: Vec::new(), mtu: 0, up: flags & IFF_UP != 0 };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_MTU => link.mtu = value.try_into().map_or(0, u32::from_ne_bytes),
            _ => {}
        }
    }
    Some(link)
}

fn error_code(payload: &[u8]) -> io::Result<()> {
    let code = payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(-22, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn accept(kind: io::ErrorKind, result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        other => other,
    }
}

fn is_no_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_carry_their_length_and_padding() {
        let mut message = Message::new(RTM_NEWLINK, 0);
        message.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "veth"));
        assert_eq!(message.body.len(), 16);
        let (kind, inner) = attributes(&message.body).next().unwrap();
        assert_eq!(kind, IFLA_LINKINFO);
        assert_eq!(attributes(inner).next(), Some((IFLA_INFO_KIND, &b"veth\0"[..])));
    }

    #[test]
    fn malformed_datagrams_end_the_walk() {
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
        assert_eq!(messages(&[0xff; 32]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
    }
}

//! The `loopback` plugin that container runtimes call before any other: brings up `lo` in the sandbox.

use std::net::{IpAddr, Ipv4Addr};

use super::protocol::{Attached, Call, CniError, Command};
use crate::netlink::Netlink;
use crate::netns::NetNs;

/// ADD brings `lo` up, CHECK tells whether it is; the others have nothing to do.
pub fn execute(call: &Call) -> Result<String, CniError> {
    let Some(path) = &call.netns else { return Ok(String::new()) };
    if !matches!(call.command, Command::Add | Command::Check) {
        return Ok(String::new());
    }
    let up = NetNs::open(path)
        .and_then(|netns| netns.enter(Netlink::open))
        .and_then(|mut netlink| {
            let lo = netlink.link("lo")?.ok_or(std::io::ErrorKind::NotFound)?;
            if call.command == Command::Add {
                netlink.set_up(lo.index)?;
            }
            Ok(lo.up || call.command == Command::Add)
        })
        .map_err(|error| CniError::io("bring up lo", &error))?;
    match (call.command, up) {
        (Command::Check, false) => Err(CniError::new(101, "lo is down", &path.display().to_string())),
        (Command::Check, true) => Ok(String::new()),
        _ => Ok(Attached {
            host: None,
            interface: "lo".to_owned(),
            mac: vec![0; 6],
            netns: path.clone(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            prefix: 8,
            gateway: None,
        }
        .document(call.version())),
    }
}

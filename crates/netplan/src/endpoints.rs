//! Chooses the endpoints of a Service port: EndpointSlices in, the backends that traffic may go to out.
//!
//! Rules: the API's (discovery.k8s.io/v1 conditions) and KEP-1669: ready ones, and only where none is ready those that
//! terminate but still serve. A missing `ready` means ready; a missing `serving` means as `ready`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::element::{Family, Protocol};
use crate::node::NodeView;

/// The backends of one Service port for one address family, sorted and without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backends {
    /// Those of all nodes that traffic should go to.
    pub all: BTreeSet<SocketAddr>,
    /// Those on this node.
    pub local: BTreeSet<SocketAddr>,
}

/// Selects the backends of the port named `port_name` (empty for an unnamed port).
pub fn select_backends(
    slices: &[Arc<EndpointSlice>],
    family: Family,
    port_name: &str,
    protocol: Protocol,
    node: &NodeView,
) -> Backends {
    let candidates: Vec<Candidate<'_>> = slices
        .iter()
        .filter(|slice| slice.address_type == address_type(family))
        .filter_map(|slice| Some((slice, port_of(slice, port_name, protocol)?)))
        .flat_map(|(slice, port)| slice.endpoints.iter().flatten().map(move |endpoint| (endpoint, port)))
        .flat_map(|(endpoint, port)| candidates_of(endpoint, port, node))
        .collect();
    let local = usable(candidates.iter().filter(|candidate| candidate.local));
    let hinted = nearest(&candidates, node);
    let all = match hinted {
        Some(near) => near,
        None => usable(candidates.iter()),
    };
    Backends { all, local }
}

struct Candidate<'a> {
    address: SocketAddr,
    ready: bool,
    /// Not ready, yet still answering while it terminates.
    draining: bool,
    local: bool,
    endpoint: &'a Endpoint,
}

fn candidates_of<'a>(endpoint: &'a Endpoint, port: u16, node: &NodeView) -> impl Iterator<Item = Candidate<'a>> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    let local = endpoint.node_name.as_deref() == Some(node.name.as_str());
    endpoint.addresses.iter().filter_map(move |address| {
        let address = SocketAddr::new(address.parse::<IpAddr>().ok()?, port);
        Some(Candidate { address, ready, draining: !ready && serving && terminating, local, endpoint })
    })
}

/// The ready ones; where there are none, the draining ones.
fn usable<'a>(candidates: impl Iterator<Item = &'a Candidate<'a>> + Clone) -> BTreeSet<SocketAddr> {
    let ready: BTreeSet<SocketAddr> = candidates.clone().filter(|one| one.ready).map(|one| one.address).collect();
    if ready.is_empty() { candidates.filter(|one| one.draining).map(|one| one.address).collect() } else { ready }
}

/// The ready backends hinted for this node or zone; none unless every ready endpoint carries such a hint and one is for
/// us, since hints that are only half written must not take traffic away.
fn nearest(candidates: &[Candidate<'_>], node: &NodeView) -> Option<BTreeSet<SocketAddr>> {
    let by = |is_for: &dyn Fn(&Endpoint) -> Option<bool>| {
        let mut near = BTreeSet::new();
        for candidate in candidates.iter().filter(|candidate| candidate.ready) {
            if is_for(candidate.endpoint)? {
                near.insert(candidate.address);
            }
        }
        (!near.is_empty()).then_some(near)
    };
    let for_node = by(&|endpoint| {
        let names = endpoint.hints.as_ref()?.for_nodes.as_ref().filter(|names| !names.is_empty())?;
        Some(names.iter().any(|hint| hint.name == node.name))
    });
    for_node.or_else(|| {
        let zone = node.zone.as_ref()?;
        by(&|endpoint| {
            let zones = endpoint.hints.as_ref()?.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
            Some(zones.iter().any(|hint| hint.name == *zone))
        })
    })
}

fn port_of(slice: &EndpointSlice, name: &str, protocol: Protocol) -> Option<u16> {
    let ports = slice.ports.as_ref()?;
    let port = ports.iter().find(|port| {
        port.name.as_deref().unwrap_or("") == name && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
    })?;
    port.port.and_then(|number| u16::try_from(number).ok())
}

fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

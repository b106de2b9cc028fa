//! The cluster's DNS zone as a function: a question and the [`View`] in, the answer out.
//!
//! The records are those of the Kubernetes DNS specification, version 1.1.0:
//!
//! ```text
//! SERVICE.NS.svc.DOMAIN                A/AAAA of the cluster address, or of every ready endpoint when headless
//! HOST.SERVICE.NS.svc.DOMAIN           A/AAAA of one endpoint, by hostname or by its address with dashes
//! _PORT._PROTO.SERVICE.NS.svc.DOMAIN   SRV
//! A-B-C-D.NS.pod.DOMAIN                A of a Pod address, without asking whether the Pod exists
//! D.C.B.A.in-addr.arpa                 PTR of cluster addresses and of named endpoints
//! dns-version.DOMAIN                   TXT
//! ```
//!
//! Invariant: a name that exists with other record types, or that only has names below it, is [`Answer::NoData`]; one
//! that does not exist is [`Answer::NoSuchName`]; a name outside the zone is [`Answer::NotOurs`]. Names compare without
//! regard to case.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::Endpoint;

use crate::element::Protocol;
use crate::view::{ServiceEntry, View, cluster_ips};

/// Seconds that every record of the zone may be kept.
pub const TTL: u32 = 5;
/// Version of the DNS specification that the zone follows.
const DNS_VERSION: &str = "1.1.0";

/// The zone's constants.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Lower case, without a dot at the end: `cluster.local`.
    pub domain: String,
    /// The DNS server's own address, the zone's name server.
    pub server: IpAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionKind {
    A,
    Aaaa,
    Srv,
    Ptr,
    Txt,
    Soa,
    Ns,
    Cname,
    Any,
    Other,
}

/// A record of the zone; its name is the question's unless said otherwise. All live for [`TTL`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Without a dot at the end.
    pub name: String,
    pub data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv {
        weight: u16,
        port: u16,
        target: String,
    },
    Ptr(String),
    Txt(String),
    Ns(String),
    /// The zone's start of authority; [`Zone`] says the rest.
    Soa,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Found {
        answers: Vec<Record>,
        additional: Vec<Record>,
    },
    /// An ExternalName Service: a CNAME whose target the resolver has to follow.
    Alias(String),
    NoData,
    NoSuchName,
    /// Not in the zone: ask an upstream server.
    NotOurs,
}

/// Answers one question; `name` may be in any case and has no dot at the end.
pub fn answer(name: &str, kind: QuestionKind, view: &View, zone: &Zone) -> Answer {
    let lower = name.to_ascii_lowercase();
    if let Some(address) = parse_reverse(&lower) {
        return answer_reverse(name, address, kind, view, zone);
    }
    let Some(rest) = lower.strip_suffix(&zone.domain) else { return Answer::NotOurs };
    let labels: Vec<&str> = match rest.strip_suffix('.') {
        Some(inner) => inner.split('.').collect(),
        None if rest.is_empty() => Vec::new(),
        None => return Answer::NotOurs,
    };
    let resolver = Resolver { question: name, kind, view, zone };
    match labels[..] {
        [] => resolver.apex(),
        ["dns-version"] => resolver.choose(vec![resolver.record(Data::Txt(DNS_VERSION.to_owned()))]),
        ["ns", "dns"] => resolver.addresses(&[zone.server]),
        ["dns" | "svc" | "pod"] => Answer::NoData,
        [namespace, "svc" | "pod"] => resolver.namespace(namespace),
        [address, namespace, "pod"] => resolver.pod(address, namespace),
        [service, namespace, "svc"] => resolver.service(service, namespace),
        [protocol @ ("_tcp" | "_udp" | "_sctp"), service, namespace, "svc"] => {
            resolver.protocol(protocol, service, namespace)
        }
        [port, protocol @ ("_tcp" | "_udp" | "_sctp"), service, namespace, "svc"] => {
            resolver.port(port, protocol, service, namespace)
        }
        [host, service, namespace, "svc"] => resolver.endpoint(host, service, namespace),
        _ => Answer::NoSuchName,
    }
}

struct Resolver<'a> {
    question: &'a str,
    kind: QuestionKind,
    view: &'a View,
    zone: &'a Zone,
}

impl Resolver<'_> {
    fn record(&self, data: Data) -> Record {
        Record { name: self.question.to_owned(), data }
    }

    /// Those of `records`, which are all the name has, that the question asks for.
    fn choose(&self, records: Vec<Record>) -> Answer {
        let answers: Vec<Record> = records.into_iter().filter(|record| is_asked(self.kind, &record.data)).collect();
        if answers.is_empty() { Answer::NoData } else { Answer::Found { answers, additional: Vec::new() } }
    }

    fn addresses(&self, addresses: &[IpAddr]) -> Answer {
        let distinct: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        self.choose(distinct.into_iter().map(|address| self.record(address_data(address))).collect())
    }

    fn apex(&self) -> Answer {
        let server = format!("ns.dns.{}", self.zone.domain);
        self.choose(vec![self.record(Data::Soa), self.record(Data::Ns(server))])
    }

    fn namespace(&self, name: &str) -> Answer {
        if self.view.has_namespace(name) { Answer::NoData } else { Answer::NoSuchName }
    }

    fn pod(&self, address: &str, namespace: &str) -> Answer {
        let parsed = address.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
        let parsed = parsed.or_else(|_| address.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6));
        match parsed {
            Ok(address) if self.view.has_namespace(namespace) => self.addresses(&[address]),
            _ => Answer::NoSuchName,
        }
    }

    fn service(&self, name: &str, namespace: &str) -> Answer {
        let Some((entry, service)) = self.find(name, namespace) else { return Answer::NoSuchName };
        if let Some(target) = external_name(service) {
            return Answer::Alias(target);
        }
        if self.kind == QuestionKind::Srv {
            return self.srv(entry, service, &|_, _| true);
        }
        let addresses = cluster_ips(service);
        if addresses.is_empty() {
            let endpoints: Vec<IpAddr> = ready_endpoints(entry).map(|(_, address)| address).collect();
            return self.addresses(&endpoints);
        }
        self.addresses(&addresses)
    }

    fn endpoint(&self, host: &str, name: &str, namespace: &str) -> Answer {
        let Some((entry, _)) = self.find(name, namespace) else { return Answer::NoSuchName };
        let addresses: Vec<IpAddr> = ready_endpoints(entry)
            .filter(|(endpoint, address)| host_label(endpoint, *address) == host)
            .map(|(_, address)| address)
            .collect();
        if addresses.is_empty() { Answer::NoSuchName } else { self.addresses(&addresses) }
    }

    /// `_tcp.SERVICE...` holds nothing itself; it exists while a named port below it does.
    fn protocol(&self, protocol: &str, name: &str, namespace: &str) -> Answer {
        let Some((_, service)) = self.find(name, namespace) else { return Answer::NoSuchName };
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let mut named = ports.filter(|port| port.name.as_deref().is_some_and(|name| !name.is_empty()));
        if named.any(|port| is_protocol(protocol, port.protocol.as_deref())) {
            Answer::NoData
        } else {
            Answer::NoSuchName
        }
    }

    fn port(&self, port: &str, protocol: &str, name: &str, namespace: &str) -> Answer {
        let Some((entry, service)) = self.find(name, namespace) else { return Answer::NoSuchName };
        let Some(port) = port.strip_prefix('_').filter(|port| !port.is_empty()) else { return Answer::NoSuchName };
        let matches = |name: &str, of: Option<&str>| name == port && is_protocol(protocol, of);
        let srv = self.srv(entry, service, &matches);
        match (srv, self.kind) {
            (Answer::NoData, _) => Answer::NoSuchName,
            (found, QuestionKind::Srv | QuestionKind::Any) => found,
            _ => Answer::NoData,
        }
    }

    /// SRV records of the ports that `matches` (name, protocol), with the addresses of their targets.
    fn srv(&self, entry: &ServiceEntry, service: &Service, matches: &dyn Fn(&str, Option<&str>) -> bool) -> Answer {
        let cluster = cluster_ips(service);
        // (target, its address, port)
        let mut targets: BTreeSet<(String, IpAddr, u16)> = BTreeSet::new();
        let base = self.service_name(service);
        if cluster.is_empty() {
            for slice in entry.slices.values() {
                let ports = slice.ports.iter().flatten();
                let ports: Vec<u16> = ports
                    .filter(|port| matches(port.name.as_deref().unwrap_or(""), port.protocol.as_deref()))
                    .filter_map(|port| u16::try_from(port.port?).ok())
                    .collect();
                for (endpoint, address) in ready_in(slice.endpoints.iter().flatten()) {
                    let target = format!("{}.{base}", host_label(endpoint, address));
                    targets.extend(ports.iter().map(|port| (target.clone(), address, *port)));
                }
            }
        } else {
            let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            for port in ports.filter(|port| matches(port.name.as_deref().unwrap_or(""), port.protocol.as_deref())) {
                let number = u16::try_from(port.port).unwrap_or_default();
                targets.extend(cluster.iter().map(|address| (base.clone(), *address, number)));
            }
        }
        let pairs: BTreeSet<(&str, u16)> = targets.iter().map(|(target, _, port)| (target.as_str(), *port)).collect();
        if pairs.is_empty() {
            return Answer::NoData;
        }
        let weight = (100 / pairs.len()).max(1) as u16;
        let answers = pairs
            .iter()
            .map(|(target, port)| self.record(Data::Srv { weight, port: *port, target: (*target).to_owned() }))
            .collect();
        let additional: BTreeSet<Record> = targets
            .iter()
            .map(|(target, address, _)| Record { name: target.clone(), data: address_data(*address) })
            .collect();
        Answer::Found { answers, additional: additional.into_iter().collect() }
    }

    fn find(&self, name: &str, namespace: &str) -> Option<(&ServiceEntry, &Service)> {
        let entry = self.view.entry(namespace, name)?;
        Some((entry, entry.service.as_deref()?))
    }

    fn service_name(&self, service: &Service) -> String {
        let metadata = &service.metadata;
        let (name, namespace) = (metadata.name.as_deref(), metadata.namespace.as_deref());
        format!("{}.{}.svc.{}", name.unwrap_or_default(), namespace.unwrap_or_default(), self.zone.domain)
    }
}

fn answer_reverse(name: &str, address: IpAddr, kind: QuestionKind, view: &View, zone: &Zone) -> Answer {
    let resolver = Resolver { question: name, kind, view, zone };
    let service_of = |key: &str| view.entry_by_key(key).and_then(|entry| Some((entry, entry.service.as_deref()?)));
    if let Some((_, service)) = view.service_by_ip(address).and_then(service_of) {
        return resolver.choose(vec![resolver.record(Data::Ptr(resolver.service_name(service)))]);
    }
    let pointers: Vec<Record> = view
        .services_by_endpoint(address)
        .filter_map(service_of)
        .flat_map(|(entry, service)| {
            ready_endpoints(entry)
                .filter(|(endpoint, at)| {
                    *at == address && endpoint.hostname.as_ref().is_some_and(|host| !host.is_empty())
                })
                .map(|(endpoint, at)| {
                    Data::Ptr(format!("{}.{}", host_label(endpoint, at), resolver.service_name(service)))
                })
                .collect::<Vec<_>>()
        })
        .map(|data| resolver.record(data))
        .collect();
    if pointers.is_empty() { Answer::NotOurs } else { resolver.choose(pointers) }
}

/// The address of a name under `in-addr.arpa` or `ip6.arpa`.
fn parse_reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let forward: Vec<&str> = labels.split('.').rev().collect();
        return forward.join(".").parse().ok().map(IpAddr::V4);
    }
    let labels: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').rev().collect();
    if labels.len() != 32 || labels.iter().any(|label| label.len() != 1) {
        return None;
    }
    u128::from_str_radix(&labels.concat(), 16).ok().map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

fn ready_endpoints(entry: &ServiceEntry) -> impl Iterator<Item = (&Endpoint, IpAddr)> {
    entry.slices.values().flat_map(|slice| ready_in(slice.endpoints.iter().flatten()))
}

fn ready_in<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> impl Iterator<Item = (&'a Endpoint, IpAddr)> {
    endpoints
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true))
        .flat_map(|endpoint| endpoint.addresses.iter().filter_map(move |text| Some((endpoint, text.parse().ok()?))))
}

fn host_label(endpoint: &Endpoint, address: IpAddr) -> String {
    match endpoint.hostname.as_deref() {
        Some(host) if !host.is_empty() => host.to_ascii_lowercase(),
        _ => address.to_string().replace(['.', ':'], "-"),
    }
}

fn external_name(service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    external.then(|| spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.').to_owned())
}

fn is_protocol(label: &str, protocol: Option<&str>) -> bool {
    Protocol::parse(protocol).is_some_and(|protocol| label.strip_prefix('_') == Some(protocol.name()))
}

fn is_asked(kind: QuestionKind, data: &Data) -> bool {
    matches!(
        (kind, data),
        (QuestionKind::Any, _)
            | (QuestionKind::A, Data::A(_))
            | (QuestionKind::Aaaa, Data::Aaaa(_))
            | (QuestionKind::Srv, Data::Srv { .. })
            | (QuestionKind::Ptr, Data::Ptr(_))
            | (QuestionKind::Txt, Data::Txt(_))
            | (QuestionKind::Ns, Data::Ns(_))
            | (QuestionKind::Soa, Data::Soa)
    )
}

fn address_data(address: IpAddr) -> Data {
    match address {
        IpAddr::V4(v4) => Data::A(v4),
        IpAddr::V6(v6) => Data::Aaaa(v6),
    }
}

#[cfg(test)]
mod tests;

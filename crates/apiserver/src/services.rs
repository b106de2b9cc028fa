//! Cluster IPs and node ports of Services.
//!
//! Input: a Service about to be written. Output: the same with its numbers filled in, and a guard to hold until it is written.
//! Invariants: what is in use is read from the Services themselves under one lock, so nothing leaks and nothing needs repair;
//! a number is never given twice, also not by two servers: the write holds only if there is no newer Service.
//! Not here: whether a Service may change its numbers, its IP families (see `semantics`), who routes to them.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use semantics::field::{Errors, Path};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::cache::ResourceCache;
use crate::config::ApiServerConfig;
use crate::error::ApiError;
use crate::rest::Call;
use crate::stored::{Source, decode_entry};

/// Held from allocation to the end of the write.
pub struct Allocation {
    /// Every Service up to this revision was taken into account; the write must be refused if there is a newer one, which
    /// another server wrote.
    pub newest: i64,
    _known: OwnedMutexGuard<Known>,
}

/// What each Service holds, as of its revision.
#[derive(Debug, Default)]
pub struct Known {
    services: HashMap<Bytes, Held>,
}

#[derive(Debug, Clone, Default)]
struct Held {
    revision: i64,
    addresses: Vec<Ipv4Addr>,
    /// Node ports, also those for health checks.
    ports: Vec<u16>,
}

/// See the module.
pub struct ServiceNumbers {
    first: u32,
    size: u32,
    cidr_text: String,
    ports: (u16, u16),
    known: Arc<Mutex<Known>>,
}

/// What is taken by others.
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

impl ServiceNumbers {
    pub fn new(config: &ApiServerConfig) -> Self {
        let (address, length) = config.service_cidr;
        let size = 1u32.checked_shl(32 - u32::from(length.min(32))).unwrap_or(u32::MAX);
        let first = u32::from(address) & !(size.wrapping_sub(1));
        Self {
            first,
            size,
            cidr_text: format!("{}/{length}", Ipv4Addr::from(first)),
            ports: config.node_port_range,
            known: Arc::default(),
        }
    }

    /// The address of the `kubernetes` Service.
    pub fn first_address(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1)
    }

    /// Fills in what the Service asks for. Does nothing for other kinds. Errors: Invalid with upstream's texts.
    pub async fn allocate(
        &self,
        call: &Call,
        object: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Option<Allocation>, ApiError> {
        if call.resource.plural != "services" || !call.resource.group.is_empty() || !call.info.subresource.is_empty() {
            return Ok(None);
        }
        let mut known = self.known.clone().lock_owned().await;
        let newest = known.refresh(&call.resource.cache, &call.resource.source);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        // A Service keeps its own numbers; one that is new has none, even if its name is taken.
        let taken = known.taken(old.map(|_| call.key(&name)).as_ref());
        let prepared = semantics::kinds::prepare_service_allocation(object, old);
        prepared.map_err(|errors| call.rejected(&name, semantics::Rejection::Invalid(errors.into_vec())))?;
        let mut errors = Errors::new();
        self.allocate_address(call, object, &taken, dry_run, &mut errors);
        if errors.is_empty() {
            self.allocate_ports(call, object, &taken, dry_run, &mut errors);
        }
        if errors.is_empty() {
            self.allocate_health_port(call, object, &taken, dry_run)?;
        }
        if !errors.is_empty() {
            return Err(call.rejected(&name, semantics::Rejection::Invalid(errors.into_vec())));
        }
        Ok((!dry_run).then_some(Allocation { newest, _known: known }))
    }

    /// As upstream's, a dry run takes an address that is in use.
    fn allocate_address(&self, call: &Call, object: &mut Value, taken: &Taken, dry_run: bool, errors: &mut Errors) {
        let spec = &mut object["spec"];
        if spec["type"] == "ExternalName" {
            return;
        }
        let asked = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
        let path = Path::root("spec").child("clusterIPs");
        let address = match asked.as_str() {
            "None" => {
                spec["clusterIPs"] = json!(["None"]);
                return;
            }
            "" => match self.pick_address(call, &taken.addresses) {
                Some(address) => address,
                None => {
                    errors.internal(path, "failed to allocate a serviceIP: range is full");
                    return;
                }
            },
            text => {
                let problem = match text.parse::<Ipv4Addr>() {
                    Ok(ip) if !self.contains(ip) => Some(format!(
                        "the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                        self.cidr_text
                    )),
                    Ok(ip) if taken.addresses.contains(&ip) && !dry_run => {
                        Some("provided IP is already allocated".to_owned())
                    }
                    Ok(ip) => {
                        fill_address(spec, ip);
                        return;
                    }
                    Err(_) => Some("the provided network does not match the current range".to_owned()),
                };
                let detail = format!("failed to allocate IP {text}: {}", problem.unwrap_or_default());
                errors.invalid(path, json!([text]), detail);
                return;
            }
        };
        fill_address(spec, address);
    }

    fn contains(&self, ip: Ipv4Addr) -> bool {
        let offset = u32::from(ip).wrapping_sub(self.first);
        offset > 0 && offset < self.size - 1
    }

    /// A free address at random, above the band that is kept for addresses that are asked for.
    fn pick_address(&self, call: &Call, taken: &HashSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let usable = self.size.checked_sub(2)?;
        let band = (self.size / 16).clamp(16, 256).min(usable);
        let upper = usable - band;
        let in_range = |start: u32, length: u32| {
            if length == 0 {
                return None;
            }
            let offset = call.registry().draw(u64::from(length)) as u32;
            (0..length)
                .map(|step| Ipv4Addr::from(self.first + 1 + start + (offset + step) % length))
                .find(|address| !taken.contains(address))
        };
        in_range(band, upper).or_else(|| in_range(0, band))
    }

    /// Ports of one number, such as DNS's two, share a node port. The first problem ends the search.
    fn allocate_ports(&self, call: &Call, object: &mut Value, taken: &Taken, dry_run: bool, errors: &mut Errors) {
        let spec = &mut object["spec"];
        let wants = match spec["type"].as_str().unwrap_or_default() {
            "NodePort" => true,
            "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
            _ => false,
        };
        let Some(ports) = spec["ports"].as_array_mut() else { return };
        let asked: Vec<(u64, u64)> =
            ports.iter().map(|port| (number(port, "port"), number(port, "nodePort"))).collect();
        let mut own: HashSet<u16> = HashSet::new();
        let mut shared: HashMap<u64, u16> = HashMap::new();
        for (index, (port, given)) in asked.iter().copied().enumerate() {
            let wanted = match shared.get(&port) {
                _ if given == 0 && !wants => continue,
                Some(node_port) if given == 0 || given == u64::from(*node_port) => {
                    ports[index]["nodePort"] = json!(node_port);
                    continue;
                }
                Some(_) => given,
                None => {
                    let same = asked[index..].iter().filter(|(other, _)| *other == port);
                    same.map(|(_, given)| *given).find(|given| *given != 0).unwrap_or(0)
                }
            };
            match self.port(call, wanted, taken, &mut own, dry_run) {
                Ok(node_port) => {
                    ports[index]["nodePort"] = json!(node_port);
                    shared.entry(port).or_insert(node_port);
                }
                Err(detail) => {
                    let path = Path::root("spec").child("ports").index(index).child("nodePort");
                    return errors.invalid(path, wanted, detail);
                }
            }
        }
    }

    /// The port at which a balancer asks for the health of local endpoints.
    fn allocate_health_port(
        &self,
        call: &Call,
        object: &mut Value,
        taken: &Taken,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let spec = &mut object["spec"];
        if spec["externalTrafficPolicy"] != "Local" || spec["type"] != "LoadBalancer" {
            return Ok(());
        }
        let mut own: HashSet<u16> = spec["ports"].as_array().into_iter().flatten().filter_map(node_port).collect();
        let given = number(spec, "healthCheckNodePort");
        let port = self.port(call, given, taken, &mut own, dry_run).map_err(|problem| {
            ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {given}: {problem}"))
        })?;
        spec["healthCheckNodePort"] = json!(port);
        Ok(())
    }

    /// The port number that is asked for, or a free one for 0. As upstream's, a dry run takes any number that is free.
    fn port(
        &self,
        call: &Call,
        given: u64,
        taken: &Taken,
        own: &mut HashSet<u16>,
        dry_run: bool,
    ) -> Result<u16, String> {
        let (low, high) = self.ports;
        if given == 0 {
            let length = u64::from(high - low) + 1;
            let offset = call.registry().draw(length);
            let mut all = (0..length).map(|step| low + ((offset + step) % length) as u16);
            let port = all.find(|port| !taken.ports.contains(port) && !own.contains(port)).ok_or("range is full")?;
            own.insert(port);
            return Ok(port);
        }
        let port =
            u16::try_from(given).ok().filter(|port| dry_run || (low..=high).contains(port)).ok_or_else(|| {
                format!("provided port is not in the valid range. The range of valid ports is {low}-{high}")
            })?;
        if taken.ports.contains(&port) || !own.insert(port) {
            return Err("provided port is already allocated".to_owned());
        }
        Ok(port)
    }
}

fn fill_address(spec: &mut Value, address: Ipv4Addr) {
    let text = address.to_string();
    spec["clusterIPs"] = json!([text]);
    spec["clusterIP"] = json!(text);
}

impl Known {
    /// Reads what has changed since the last time; returns the revision of the newest change.
    fn refresh(&mut self, cache: &ResourceCache, source: &Source) -> i64 {
        let snapshot = cache.snapshot();
        self.services.retain(|key, _| snapshot.get(key).is_some());
        for (key, entry) in &snapshot.entries {
            if self.services.get(key).is_some_and(|held| held.revision == entry.revision) {
                continue;
            }
            match decode_entry(entry, source) {
                Ok(value) => {
                    self.services.insert(key.clone(), held(&value, entry.revision));
                }
                Err(error) => tracing::error!(%error, "a Service cannot be read; its numbers count as free"),
            }
        }
        snapshot.revision
    }

    /// `but` is the Service that asks.
    fn taken(&self, but: Option<&Bytes>) -> Taken {
        let mut taken = Taken { addresses: HashSet::new(), ports: HashSet::new() };
        for (_, held) in self.services.iter().filter(|(key, _)| Some(*key) != but) {
            taken.addresses.extend(held.addresses.iter().copied());
            taken.ports.extend(held.ports.iter().copied());
        }
        taken
    }
}

fn held(service: &Value, revision: i64) -> Held {
    let spec = &service["spec"];
    let mut held = Held { revision, ..Held::default() };
    let addresses = spec["clusterIPs"].as_array().into_iter().flatten().chain(std::iter::once(&spec["clusterIP"]));
    for text in addresses.filter_map(Value::as_str) {
        if let Ok(address) = text.parse::<Ipv4Addr>()
            && !held.addresses.contains(&address)
        {
            held.addresses.push(address);
        }
    }
    for port in spec["ports"].as_array().into_iter().flatten() {
        held.ports.extend(node_port(port));
    }
    held.ports.extend(u16::try_from(number(spec, "healthCheckNodePort")).ok().filter(|port| *port > 0));
    held
}

fn node_port(port: &Value) -> Option<u16> {
    u16::try_from(number(port, "nodePort")).ok().filter(|port| *port > 0)
}

/// 0 for what is missing or no number of a port.
fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or(0)
}

//! Cluster IPs and node ports of Services.
//!
//! Input: a Service about to be written. Output: the same with its numbers filled in, and a guard to hold until it is written.
//! Invariants: what is in use is read from the Services themselves under one lock, so nothing leaks and nothing needs repair;
//! a number is never given twice, also not by two servers: the write holds only if there is no newer Service.
//! Not here: whether a Service may change its numbers (see `semantics`), who routes to them.

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
    /// (protocol, node port).
    ports: Vec<(String, u16)>,
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
    /// With protocol: one Service may use a port number for two protocols.
    exact: HashSet<(String, u16)>,
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
        let taken = known.taken(&call.key(&name));
        semantics::kinds::prepare_service_allocation(object, old);
        let mut errors = Errors::new();
        self.allocate_address(call, object, &taken, &mut errors);
        self.allocate_ports(call, object, &taken, &mut errors);
        if !errors.is_empty() {
            return Err(call.rejected(&name, semantics::Rejection::Invalid(errors.into_vec())));
        }
        Ok((!dry_run).then_some(Allocation { newest, _known: known }))
    }

    fn allocate_address(&self, call: &Call, object: &mut Value, taken: &Taken, errors: &mut Errors) {
        let spec = &mut object["spec"];
        if spec["type"] == "ExternalName" {
            return;
        }
        let asked = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
        let path = Path::root("spec").child("clusterIPs");
        let address = match asked.as_str() {
            "None" => {
                spec["clusterIPs"] = json!(["None"]);
                default_families(spec);
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
                    Ok(ip) if taken.addresses.contains(&ip) => Some("provided IP is already allocated".to_owned()),
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

    fn allocate_ports(&self, call: &Call, object: &mut Value, taken: &Taken, errors: &mut Errors) {
        let spec = &mut object["spec"];
        let kind = spec["type"].as_str().unwrap_or_default().to_owned();
        let wants = match kind.as_str() {
            "NodePort" => true,
            "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
            _ => false,
        };
        let mut own: HashSet<(String, u16)> = HashSet::new();
        if let Some(ports) = spec["ports"].as_array_mut() {
            for (index, port) in ports.iter_mut().enumerate() {
                let given = port["nodePort"].as_u64().unwrap_or(0);
                if given == 0 && !(wants && matches!(kind.as_str(), "NodePort" | "LoadBalancer")) {
                    continue;
                }
                let path = Path::root("spec").child("ports").index(index).child("nodePort");
                let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
                match self.port(call, given, &protocol, taken, &mut own) {
                    Ok(number) => port["nodePort"] = json!(number),
                    Err(detail) => errors.invalid(path, given, detail),
                }
            }
        }
        let local = spec["externalTrafficPolicy"] == "Local" && kind == "LoadBalancer";
        if local {
            let given = spec["healthCheckNodePort"].as_u64().unwrap_or(0);
            match self.port(call, given, "health", taken, &mut own) {
                Ok(number) => spec["healthCheckNodePort"] = json!(number),
                Err(detail) => errors.invalid(Path::root("spec").child("healthCheckNodePort"), given, detail),
            }
        }
    }

    /// The port number that is asked for, or a free one for 0.
    fn port(
        &self,
        call: &Call,
        given: u64,
        protocol: &str,
        taken: &Taken,
        own: &mut HashSet<(String, u16)>,
    ) -> Result<u16, String> {
        let (low, high) = self.ports;
        let free = |port: u16, own: &HashSet<(String, u16)>| {
            !taken.ports.contains(&port) && !own.iter().any(|(_, p)| *p == port)
        };
        if given == 0 {
            let length = u64::from(high - low) + 1;
            let offset = call.registry().draw(length);
            let found = (0..length).map(|step| low + ((offset + step) % length) as u16).find(|port| free(*port, own));
            let port = found.ok_or("range is full")?;
            own.insert((protocol.to_owned(), port));
            return Ok(port);
        }
        let port = u16::try_from(given).ok().filter(|port| (low..=high).contains(port)).ok_or_else(|| {
            format!("provided port is not in the valid range. The range of valid ports is {low}-{high}")
        })?;
        let key = (protocol.to_owned(), port);
        if taken.ports.contains(&port) || taken.exact.contains(&key) || !own.insert(key) {
            return Err("provided port is already allocated".to_owned());
        }
        Ok(port)
    }
}

fn fill_address(spec: &mut Value, address: Ipv4Addr) {
    let text = address.to_string();
    spec["clusterIPs"] = json!([text]);
    spec["clusterIP"] = json!(text);
    default_families(spec);
}

fn default_families(spec: &mut Value) {
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = json!("SingleStack");
    }
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

    fn taken(&self, but: &Bytes) -> Taken {
        let mut taken = Taken { addresses: HashSet::new(), ports: HashSet::new(), exact: HashSet::new() };
        for (_, held) in self.services.iter().filter(|(key, _)| *key != but) {
            taken.addresses.extend(held.addresses.iter().copied());
            taken.ports.extend(held.ports.iter().map(|(_, port)| *port));
            taken.exact.extend(held.ports.iter().cloned());
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
        if let Some(number) = port["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0) {
            held.ports.push((port["protocol"].as_str().unwrap_or("TCP").to_owned(), number));
        }
    }
    if let Some(number) = spec["healthCheckNodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0) {
        held.ports.push(("health".to_owned(), number));
    }
    held
}

//! The Services, EndpointSlices and namespaces that have been seen, indexed for the proxy and for DNS.
//!
//! Invariant: an index entry exists exactly while an object that causes it does; taking the same change in twice, or a
//! deletion of what is not there, changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Everything of one Service, by reference.
#[derive(Debug, Clone, Default)]
pub struct ServiceEntry {
    pub service: Option<Arc<Service>>,
    /// By slice name.
    pub slices: BTreeMap<String, Arc<EndpointSlice>>,
}

/// See the module's text. Services are keyed by `namespace/name`.
#[derive(Debug, Default)]
pub struct View {
    services: HashMap<String, ServiceEntry>,
    namespaces: HashSet<String>,
    /// Whether `namespaces` is complete.
    knows_namespaces: bool,
    by_cluster_ip: HashMap<IpAddr, BTreeSet<String>>,
    by_endpoint: HashMap<IpAddr, BTreeSet<String>>,
}

impl View {
    pub fn entry(&self, namespace: &str, name: &str) -> Option<&ServiceEntry> {
        self.services.get(&format!("{namespace}/{name}"))
    }

    pub fn entry_by_key(&self, key: &str) -> Option<&ServiceEntry> {
        self.services.get(key)
    }

    /// The keys of all Services and of all slices without a Service.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// Whether the namespace exists; true for all as long as we do not know them.
    pub fn has_namespace(&self, name: &str) -> bool {
        !self.knows_namespaces || self.namespaces.contains(name)
    }

    /// The key of the Service with this cluster address.
    pub fn service_by_ip(&self, address: IpAddr) -> Option<&str> {
        self.by_cluster_ip.get(&address)?.iter().next().map(String::as_str)
    }

    /// The keys of the Services that have this address among their endpoints.
    pub fn services_by_endpoint(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.by_endpoint.get(&address).into_iter().flatten().map(String::as_str)
    }

    /// From now on a namespace that was not seen does not exist.
    pub fn set_namespaces_known(&mut self) {
        self.knows_namespaces = true;
    }

    pub fn set_namespace(&mut self, name: &str, exists: bool) {
        if exists {
            self.namespaces.insert(name.to_owned());
        } else {
            self.namespaces.remove(name);
        }
    }

    /// Takes in a Service or, with `exists` false, its deletion; returns its key.
    pub fn set_service(&mut self, service: &Arc<Service>, exists: bool) -> String {
        let key = key_of(service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
        let entry = self.services.entry(key.clone()).or_default();
        for address in entry.service.iter().flat_map(|old| cluster_ips(old)) {
            unindex(&mut self.by_cluster_ip, address, &key);
        }
        entry.service = exists.then(|| service.clone());
        for address in entry.service.iter().flat_map(|new| cluster_ips(new)) {
            self.by_cluster_ip.entry(address).or_default().insert(key.clone());
        }
        self.forget_if_empty(&key);
        key
    }

    /// Takes in a slice or its deletion; returns the key of its Service, none for a slice of nobody.
    pub fn set_slice(&mut self, slice: &Arc<EndpointSlice>, exists: bool) -> Option<String> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        let key = key_of(slice.metadata.namespace.as_deref(), Some(service));
        let name = slice.metadata.name.clone().unwrap_or_default();
        let entry = self.services.entry(key.clone()).or_default();
        let old = if exists { entry.slices.insert(name, slice.clone()) } else { entry.slices.remove(&name) };
        let still: HashSet<IpAddr> = entry.slices.values().flat_map(|slice| endpoint_ips(slice)).collect();
        for address in old.iter().flat_map(|old| endpoint_ips(old)).filter(|address| !still.contains(address)) {
            unindex(&mut self.by_endpoint, address, &key);
        }
        if exists {
            for address in endpoint_ips(slice) {
                self.by_endpoint.entry(address).or_default().insert(key.clone());
            }
        }
        self.forget_if_empty(&key);
        Some(key)
    }

    fn forget_if_empty(&mut self, key: &str) {
        if self.services.get(key).is_some_and(|entry| entry.service.is_none() && entry.slices.is_empty()) {
            self.services.remove(key);
        }
    }
}

/// The cluster addresses of a Service; none for a headless one.
pub fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let listed: BTreeSet<IpAddr> =
        spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|text| text.parse().ok()).collect();
    listed.into_iter().collect()
}

fn endpoint_ips(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses).filter_map(|text| text.parse().ok())
}

fn unindex(index: &mut HashMap<IpAddr, BTreeSet<String>>, address: IpAddr, key: &str) {
    if let Some(keys) = index.get_mut(&address) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(&address);
        }
    }
}

fn key_of(namespace: Option<&str>, name: Option<&str>) -> String {
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

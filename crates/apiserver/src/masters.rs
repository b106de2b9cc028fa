//! The servers that live: each keeps a key with a store lease; the `kubernetes` Service leads to all of them.
//!
//! As upstream's lease reconciler: `/registry/masterleases/ADDRESS`, which ends 15 s after its server, looked at every 10 s.
//! Invariant: the endpoints name the live servers and no other, at most 25 s late; a server that stops in order is gone at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use store::{Delete, Kv, KvError, Op, Put, RangeRequest, Txn};
use tokio::sync::Mutex;

use crate::registry::Registry;
use crate::stored::Source;

const PREFIX: &[u8] = b"/registry/masterleases/";
const TTL_SECONDS: i64 = 15;
/// How often a server says that it lives.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);

/// The own key and the others'.
pub struct Masters {
    kv: Arc<dyn Kv>,
    source: Option<Source>,
    /// The lease of the own key; 0 before the first one.
    lease: Mutex<i64>,
}

impl Masters {
    pub fn new(registry: &Registry) -> Self {
        let source = registry.stored_resource("", "endpoints").map(|endpoints| Source {
            prefix: Bytes::from_static(PREFIX),
            namespaced: false,
            transformer: None,
            message: endpoints.source.message,
            api_version: endpoints.source.api_version.clone(),
            kind: endpoints.source.kind.clone(),
        });
        Self { kv: registry.kv.clone(), source, lease: Mutex::new(0) }
    }

    /// Says that the server at `address` lives, and returns the addresses of all that do, in order.
    pub async fn renew(&self, address: IpAddr) -> Result<Vec<IpAddr>, KvError> {
        let mut lease = self.lease.lock().await;
        let alive = match *lease {
            0 => false,
            id => match self.kv.lease_keep_alive(id).await {
                Ok(_) => true,
                Err(KvError::LeaseNotFound { .. }) => false,
                Err(error) => return Err(error),
            },
        };
        let live = self.live().await?;
        if !alive || !live.contains(&address) {
            *lease = self.kv.lease_grant(0, TTL_SECONDS).await?.id;
            let (key, value) = (key_of(address), self.value(address));
            let put = Put { key, value, lease: *lease, ..Put::default() };
            if let Err(error) = self.kv.txn(Txn::of(Op::Put(put))).await {
                *lease = 0;
                return Err(error);
            }
            return self.live().await;
        }
        Ok(live)
    }

    /// Takes the own address out; returns those that are left. Keeps it if nobody else is there, so that a restart changes
    /// nothing.
    pub async fn leave(&self, address: IpAddr) -> Result<Vec<IpAddr>, KvError> {
        let mut others = self.live().await?;
        others.retain(|other| *other != address);
        if others.is_empty() {
            return Ok(others);
        }
        forget(&*self.kv, address).await?;
        Ok(others)
    }

    async fn live(&self) -> Result<Vec<IpAddr>, KvError> {
        let (key, end) = (Bytes::from_static(PREFIX), store::prefix_end(PREFIX));
        let found = self.kv.range(RangeRequest { key, end, ..RangeRequest::default() }).await?;
        let address = |key: &[u8]| std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?.parse().ok();
        let mut live: Vec<IpAddr> = found.kvs.iter().filter_map(|kv| address(&kv.key)).collect();
        live.sort();
        Ok(live)
    }

    /// Upstream's form: an Endpoints object with the one address.
    fn value(&self, address: IpAddr) -> Bytes {
        let object = json!({"subsets": [{"addresses": [{"ip": address.to_string()}]}]});
        let encoded = self.source.as_ref().map(|source| source.encode(&key_of(address), &object));
        // What is read of it is the key; an object of our own making can be encoded.
        encoded.and_then(Result::ok).map(|encoded| encoded.stored).unwrap_or_default()
    }
}

/// Takes the server at `address` out: the next look at the live servers does not find it.
pub async fn forget(kv: &dyn Kv, address: IpAddr) -> Result<(), KvError> {
    let delete = Delete { key: key_of(address), end: None, prev_kv: false };
    kv.txn(Txn::of(Op::Delete(delete))).await.map(|_| ())
}

fn key_of(address: IpAddr) -> Bytes {
    Bytes::from([PREFIX, address.to_string().as_bytes()].concat())
}

/// The Endpoints and the EndpointSlice of the `kubernetes` Service: (collection, object).
pub fn derive_endpoints(addresses: &[IpAddr], port: u16) -> [(&'static str, Value); 2] {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}
        },
        "subsets": [{
            "addresses": texts.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}]
        }]
    });
    let is_ipv4 = addresses.first().is_none_or(IpAddr::is_ipv4);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}
        },
        "addressType": if is_ipv4 { "IPv4" } else { "IPv6" },
        "endpoints": texts.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect::<Vec<_>>(),
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]
    });
    [
        ("/api/v1/namespaces/default/endpoints", endpoints),
        ("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_live_servers_are_listed() {
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().expect("an address"));
        let [(_, endpoints), (_, slice)] = derive_endpoints(&addresses, 6443);
        assert_eq!(endpoints["subsets"][0]["addresses"], json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]));
        assert_eq!(slice["endpoints"][1]["addresses"], json!(["10.0.0.2"]));
    }
}

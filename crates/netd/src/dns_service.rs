//! The `kube-dns` Service: the name and the reserved address of the cluster's DNS.
//!
//! It has no selector and no endpoints: every node binds the address itself and answers its own Pods (see
//! docs/decisions/2026-11-25-node-local-dns.md). The object keeps the address from being given to another Service and shows it
//! where people look for it.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use serde_json::json;

/// Creates the Service unless there is one. The client must be allowed to create Services in `kube-system`.
pub async fn ensure_dns_service(client: kube::Client, address: Ipv4Addr) -> Result<(), kube::Error> {
    let services: Api<Service> = Api::namespaced(client, "kube-system");
    let wanted = dns_service(address);
    match services.create(&PostParams::default(), &wanted).await {
        Ok(_) => Ok(()),
        // If it is there, its own address is the first thing that stands in the way.
        Err(error) => match services.get_opt(wanted.metadata.name.as_deref().unwrap_or_default()).await? {
            Some(_) => Ok(()),
            None => Err(error),
        },
    }
}

/// The Service as it should be.
pub fn dns_service(address: Ipv4Addr) -> Service {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol, "targetPort": 53});
    let service = json!({
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "Holdfast-DNS",
            },
        },
        "spec": {
            "clusterIP": address.to_string(),
            "clusterIPs": [address.to_string()],
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    });
    // The document above has the shape of the type; a test holds it to that.
    serde_json::from_value(service).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_whole() {
        let service = dns_service(Ipv4Addr::new(10, 43, 0, 10));
        assert_eq!(service.spec.unwrap().ports.unwrap().len(), 2);
    }
}

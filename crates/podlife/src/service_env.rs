//! The environment variables that tell a container of the Services of its namespace (and of the API server).
//!
//! Input: the Services. Output: pairs in upstream's order. Invariant: only Services with a cluster IP appear.

use k8s_openapi::api::core::v1::Service;

/// Docker's link variables included.
pub fn service_variables<'a>(services: impl Iterator<Item = &'a Service>) -> Vec<(String, String)> {
    services.flat_map(of_service).collect()
}

/// Which Services a pod sees: those of its namespace if links are enabled, and always `default/kubernetes`.
pub fn is_visible(service: &Service, namespace: &str, enable_links: bool) -> bool {
    let service_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let is_master = service_namespace == "default" && service.metadata.name.as_deref() == Some("kubernetes");
    is_master || (enable_links && service_namespace == namespace)
}

fn variable_name(text: &str) -> String {
    text.replace('-', "_").to_uppercase()
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.clone().unwrap_or_default();
    let Some(ip) = spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None") else { return Vec::new() };
    let ports = spec.ports.unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let mut out = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in &ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            out.push((format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string()));
        }
    }
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    for (at, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if at == 0 {
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.push((port_prefix.clone(), url));
        out.push((format!("{port_prefix}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{port_prefix}_PORT"), port.port.to_string()));
        out.push((format!("{port_prefix}_ADDR"), ip.clone()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

    #[test]
    fn variables_of_one_service() {
        let service = Service {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some("foo-svc".to_owned()),
                ..Default::default()
            },
            spec: Some(ServiceSpec {
                cluster_ip: Some("10.0.0.9".to_owned()),
                ports: Some(vec![ServicePort { port: 8765, name: Some("p-1".to_owned()), ..Default::default() }]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let got = service_variables(std::iter::once(&service)).into_iter().map(|(k, v)| format!("{k}={v}"));
        let expect = [
            "FOO_SVC_SERVICE_HOST=10.0.0.9",
            "FOO_SVC_SERVICE_PORT=8765",
            "FOO_SVC_SERVICE_PORT_P_1=8765",
            "FOO_SVC_PORT=tcp://10.0.0.9:8765",
            "FOO_SVC_PORT_8765_TCP=tcp://10.0.0.9:8765",
            "FOO_SVC_PORT_8765_TCP_PROTO=tcp",
            "FOO_SVC_PORT_8765_TCP_PORT=8765",
            "FOO_SVC_PORT_8765_TCP_ADDR=10.0.0.9",
        ];
        assert_eq!(got.collect::<Vec<_>>(), expect);
    }
}

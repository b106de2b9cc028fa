//! Rows of services and their endpoints.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, NAME, age, at, labels_at, list, name_of, number, or, text, value_at, wide};

/// Lists longer than this end in `+ N more...`.
const SHOWN_MAX: usize = 3;

pub(super) const SERVICE: &[Column] =
    &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), text("Age"), wide("Selector")];

pub(super) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = list(object, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
    let ports: Vec<String> = list(object, "spec.ports").iter().map(port).collect();
    vec![
        name_of(object),
        json!(at(object, "spec.type")),
        json!(cluster_ip),
        json!(external_ip(object)),
        json!(or(&ports.join(","), "<none>")),
        age::of(object, now),
        labels_at(object, "spec.selector"),
    ]
}

fn port(port: &Value) -> String {
    let (number, node_port) = (number(port, "port"), number(port, "nodePort"));
    let protocol = at(port, "protocol");
    if node_port > 0 { format!("{number}:{node_port}/{protocol}") } else { format!("{number}/{protocol}") }
}

fn external_ip(object: &Value) -> String {
    let external: Vec<&str> = list(object, "spec.externalIPs").iter().filter_map(Value::as_str).collect();
    match at(object, "spec.type") {
        "ClusterIP" | "NodePort" => or(&external.join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let ingress = list(object, "status.loadBalancer.ingress").iter();
            let balancers: BTreeSet<&str> = ingress.map(|point| or(at(point, "ip"), at(point, "hostname"))).collect();
            let all: Vec<&str> = balancers.into_iter().filter(|word| !word.is_empty()).chain(external).collect();
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => at(object, "spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

pub(super) const ENDPOINTS: &[Column] = &[NAME, text("Endpoints"), text("Age")];

pub(super) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(object, "subsets") {
        let addresses = || list(subset, "addresses").iter().map(|address| at(address, "ip"));
        let ports = list(subset, "ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let number = number(port, "port");
            all.extend(addresses().map(|ip| join_host_port(ip, number)));
        }
    }
    let empty = list(object, "subsets").is_empty();
    vec![name_of(object), json!(if empty { "<none>".to_owned() } else { shortened(&all) }), age::of(object, now)]
}

fn join_host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(super) const ENDPOINT_SLICE: &[Column] =
    &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), text("Age")];

pub(super) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports = list(object, "ports").iter().map(|port| match value_at(port, "port") {
        Some(number) => number.to_string(),
        None => value_at(port, "name").and_then(Value::as_str).unwrap_or("*").to_owned(),
    });
    let addresses = list(object, "endpoints").iter().flat_map(|endpoint| list(endpoint, "addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    vec![
        name_of(object),
        json!(at(object, "addressType")),
        json!(or(&shortened(&ports.collect::<Vec<_>>()), "<unset>")),
        json!(or(&shortened(&addresses), "<unset>")),
        age::of(object, now),
    ]
}

/// `a,b,c + 2 more...`
fn shortened(all: &[String]) -> String {
    if all.len() <= SHOWN_MAX {
        return all.join(",");
    }
    format!("{} + {} more...", all[..SHOWN_MAX].join(","), all.len() - SHOWN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        let check = |spec: Value, expect: Value| {
            let object = json!({"metadata": {"name": "s"}, "spec": spec});
            assert_eq!(Value::from(service(&object, Timestamp::UNIX_EPOCH)), expect);
        };
        check(
            json!({"type": "NodePort", "clusterIPs": ["10.43.0.5"], "selector": {"a": "b"},
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
            json!(["s", "NodePort", "10.43.0.5", "<none>", "80:30080/TCP,53/UDP", "<unknown>", "a=b"]),
        );
        check(
            json!({"type": "LoadBalancer"}),
            json!(["s", "LoadBalancer", "<none>", "<pending>", "<none>", "<unknown>", "<none>"]),
        );
    }

    #[test]
    fn endpoints_are_shortened() {
        let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}],
            "endpoints": [{"addresses": ["1", "2"]}, {"addresses": ["3", "4", "5"]}]});
        let expect = json!(["s", "IPv4", "80,x", "1,2,3 + 2 more...", "<unknown>"]);
        assert_eq!(Value::from(endpoint_slice(&slice, Timestamp::UNIX_EPOCH)), expect);
        let object = json!({"metadata": {"name": "e"}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}]}]});
        let expect = json!(["e", "10.0.0.1:80,[fd00::1]:80", "<unknown>"]);
        assert_eq!(Value::from(endpoints(&object, Timestamp::UNIX_EPOCH)), expect);
    }
}

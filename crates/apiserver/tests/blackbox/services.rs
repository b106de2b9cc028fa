//! Cluster IPs and node ports.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::fixture::Fixture;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec["ports"].is_null() {
        spec["ports"] = json!([{"port": 80, "protocol": "TCP"}]);
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn every_service_has_an_address_of_its_own() {
    let f = Fixture::new().await;
    let mut seen = HashSet::new();
    for i in 0..20 {
        let made = f.post(SERVICES, &service(&format!("s{i}"), json!({}))).await.expect(201);
        let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
        assert!(address.starts_with("10.43."), "{address}");
        assert_eq!(made["spec"]["clusterIPs"], json!([address]));
        assert!(seen.insert(address));
    }
}

#[tokio::test]
async fn an_address_can_be_asked_for_once() {
    let f = Fixture::new().await;
    f.post(SERVICES, &service("a", json!({"clusterIP": "10.43.0.10"}))).await.expect(201);
    let taken = f.post(SERVICES, &service("b", json!({"clusterIP": "10.43.0.10"}))).await.expect(422);
    let message = taken["message"].as_str().unwrap();
    assert!(message.contains("failed to allocate IP 10.43.0.10: provided IP is already allocated"), "{message}");
    f.delete(&format!("{SERVICES}/a"), None).await.expect(200);
    f.post(SERVICES, &service("b", json!({"clusterIP": "10.43.0.10"}))).await.expect(201);
    let outside = f.post(SERVICES, &service("c", json!({"clusterIP": "10.99.0.1"}))).await.expect(422);
    assert!(outside["message"].as_str().unwrap().contains("The range of valid IPs is 10.43.0.0/16"));
    let headless = f.post(SERVICES, &service("d", json!({"clusterIP": "None"}))).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn families_are_settled_before_an_address_is_given() {
    let f = Fixture::new().await;
    let made = async |name: &str, spec: Value| {
        let spec = f.post(SERVICES, &service(name, spec)).await.expect(201)["spec"].clone();
        json!([spec["ipFamilyPolicy"], spec["ipFamilies"]])
    };
    assert_eq!(made("a", json!({})).await, json!(["SingleStack", ["IPv4"]]));
    assert_eq!(made("b", json!({"clusterIP": "None"})).await, json!(["RequireDualStack", ["IPv4", "IPv6"]]));
    let selected = json!({"clusterIP": "None", "selector": {"a": "b"}});
    assert_eq!(made("c", selected).await, json!(["SingleStack", ["IPv4"]]));
    let two = json!({"clusterIP": "10.43.0.8", "clusterIPs": ["10.43.0.8", "10.43.0.9"]});
    let refused = f.post(SERVICES, &service("d", two)).await.expect(422);
    assert_eq!(
        refused["message"],
        "Service \"d\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.8\",\"10.43.0.9\"]: may specify no more than one IP for each IP family"
    );
    f.post(SERVICES, &service("e", json!({"clusterIP": "10.43.0.8"}))).await.expect(201);
}

#[tokio::test]
async fn node_ports_are_allocated_and_kept() {
    let f = Fixture::new().await;
    let made = f.post(SERVICES, &service("a", json!({"type": "NodePort"}))).await.expect(201);
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port));
    let mut update = service("a", json!({"type": "NodePort"}));
    update["metadata"]["labels"] = json!({"x": "y"});
    let kept = f.put(&format!("{SERVICES}/a"), &update).await.expect(200);
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], port);
    assert_eq!(kept["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": port}]);
    let taken = f.post(SERVICES, &service("b", json!({"type": "NodePort", "ports": ports}))).await.expect(422);
    assert!(taken["message"].as_str().unwrap().contains("provided port is already allocated"));
    let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 80}]);
    let outside = f.post(SERVICES, &service("c", json!({"type": "NodePort", "ports": ports}))).await.expect(422);
    assert!(outside["message"].as_str().unwrap().contains("The range of valid ports is 30000-32767"));
    let both = json!([
        {"name": "t", "port": 53, "protocol": "TCP", "nodePort": 30053},
        {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}
    ]);
    f.post(SERVICES, &service("d", json!({"type": "NodePort", "ports": both}))).await.expect(201);
}

#[tokio::test]
async fn the_server_announces_itself() {
    let config = apiserver::ApiServerConfig { advertise: Some(([192, 0, 2, 1].into(), 6443)), ..Default::default() };
    let f = Fixture::with(config).await;
    let service = f.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(f.get(slice).await.expect(200)["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    let namespaces = f.get("/api/v1/namespaces").await.expect(200);
    assert_eq!(namespaces["items"].as_array().unwrap().len(), 4);
}

//! EndpointSlices and Endpoints of a Service, against the simulated API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use controllers::endpoints::legacy::EndpointsController;
use controllers::endpoints::slices::EndpointSliceController;
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reconcile::Registrar as _;
use reconcile::harness::{Harness, World, check_crash_safety};
use serde_json::{Value, from_value, json};

fn service(extra: Value) -> Service {
    let mut service = json!({
        "metadata": { "name": "web", "namespace": "ns", "labels": { "team": "x" } },
        "spec": { "clusterIP": "10.43.0.5", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
            "ports": [{ "name": "http", "port": 80, "targetPort": "named", "protocol": "TCP" }] },
    });
    if let (Value::Object(spec), Value::Object(extra)) = (&mut service["spec"], extra) {
        spec.extend(extra);
    }
    from_value(service).unwrap()
}

fn pod(name: &str, ip: &str, ready: bool) -> Pod {
    from_value(json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "labels": { "app": "web" } },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "ports": [{ "name": "named", "containerPort": 8080, "protocol": "TCP" }] }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
    }))
    .unwrap()
}

fn harness(service: &Service, pods: &[Pod]) -> Harness {
    let mut harness = Harness::new();
    harness.register(EndpointSliceController);
    harness.register(EndpointsController);
    harness.add(service);
    pods.iter().for_each(|pod| harness.add(pod));
    harness
}

/// The slices and the Endpoints, one line each part.
fn check(harness: &Harness, expect: Expect) {
    let mut lines = Vec::new();
    for slice in harness.world.list::<EndpointSlice>() {
        let labels: Vec<_> =
            slice.metadata.labels.unwrap().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let ports: Vec<_> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| format!("{}:{}", port.name.clone().unwrap(), port.port.unwrap()))
            .collect();
        lines.push(format!("slice {} [{}] {}", slice.address_type, ports.join(" "), labels.join(" ")));
        for endpoint in slice.endpoints.into_iter().flatten() {
            let conditions = endpoint.conditions.unwrap();
            let states =
                [("ready", conditions.ready), ("serving", conditions.serving), ("terminating", conditions.terminating)];
            let states: Vec<_> =
                states.into_iter().filter(|(_, state)| *state == Some(true)).map(|(name, _)| name).collect();
            let words = [endpoint.addresses.join(","), endpoint.node_name.unwrap()];
            let words: Vec<_> = words.iter().map(String::as_str).chain(states).collect();
            lines.push(format!("  {}", words.join(" ")));
        }
    }
    for endpoints in harness.world.list::<Endpoints>() {
        for subset in endpoints.subsets.into_iter().flatten() {
            let ips = |list: Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
                list.into_iter().flatten().map(|address| address.ip).collect::<Vec<_>>().join(",")
            };
            let ports: Vec<_> = subset.ports.into_iter().flatten().map(|port| port.port.to_string()).collect();
            let (ready, not_ready) = (ips(subset.addresses), ips(subset.not_ready_addresses));
            lines.push(format!("endpoints [{}] ready [{ready}] not ready [{not_ready}]", ports.join(" ")));
        }
    }
    expect.assert_eq(&lines.join("\n"));
}

#[test]
fn ready_unready_and_terminating_pods() {
    fn setup() -> Harness {
        let mut terminating = pod("c", "10.42.0.3", true);
        terminating.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
        let mut harness =
            harness(&service(json!({})), &[pod("a", "10.42.0.1", true), pod("b", "10.42.0.2", false), terminating]);
        harness.world.delete::<Pod>("ns", "c", None);
        harness
    }
    fn idle(_: &mut World) -> bool {
        false
    }
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    check(
        &harness,
        expect![[r#"
            slice IPv4 [http:8080] endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io kubernetes.io/service-name=web team=x
              10.42.0.1 n1 ready serving
              10.42.0.2 n1
              10.42.0.3 n1 serving terminating
            endpoints [8080] ready [10.42.0.1] not ready [10.42.0.2]"#]],
    );
    harness.world.update_each::<Pod>(|pod| {
        pod.metadata.finalizers = None;
        pod.metadata.labels = None;
    });
    harness.settle();
    check(
        &harness,
        expect![[
            r#"slice IPv4 [] endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io kubernetes.io/service-name=web team=x"#
        ]],
    );
}

#[test]
fn a_headless_service_that_publishes_all() {
    let spec = json!({ "clusterIP": "None", "publishNotReadyAddresses": true, "ports": null });
    let mut harness = harness(&service(spec), &[pod("a", "10.42.0.1", false)]);
    harness.settle();
    check(
        &harness,
        expect![[r#"
            slice IPv4 [] endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io kubernetes.io/service-name=web service.kubernetes.io/headless= team=x
              10.42.0.1 n1 ready
            endpoints [] ready [10.42.0.1] not ready []"#]],
    );
}

#[test]
fn a_service_without_selector_or_with_an_external_name_is_left_alone() {
    for spec in [json!({ "selector": null }), json!({ "type": "ExternalName" })] {
        let mut harness = harness(&service(spec), &[pod("a", "10.42.0.1", true)]);
        harness.settle();
        assert!(harness.world.list::<EndpointSlice>().is_empty());
        assert!(harness.world.list::<Endpoints>().is_empty());
    }
}

//! EndpointSlices and Endpoints of a Service, and mirrors of Endpoints made by hand, against the simulated API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use controllers::endpoints::legacy::EndpointsController;
use controllers::endpoints::mirroring::EndpointSliceMirroringController;
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

/// Endpoints made by hand, of a Service without a selector; both named `web`.
fn by_hand(subsets: Value) -> Harness {
    let mut harness = Harness::new();
    harness.register(EndpointSliceMirroringController);
    harness.add(&service(json!({ "selector": null })));
    let annotations = json!({ "kubectl.kubernetes.io/last-applied-configuration": "{}", "example.com/note": "x" });
    let metadata = json!({ "name": "web", "namespace": "ns", "labels": { "team": "x" }, "annotations": annotations });
    harness.add(&from_value::<Endpoints>(json!({ "metadata": metadata, "subsets": subsets })).unwrap());
    harness
}

/// Family, ports and addresses (those in brackets are not ready) of each mirror, sorted.
fn mirrors(harness: &Harness) -> Vec<String> {
    let one = |slice: EndpointSlice| {
        let labels = slice.metadata.labels.unwrap();
        assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslicemirroring-controller.k8s.io");
        assert_eq!((&*labels["kubernetes.io/service-name"], &*labels["team"]), ("web", "x"));
        assert_eq!(serde_json::to_value(slice.metadata.annotations).unwrap(), json!({ "example.com/note": "x" }));
        assert_eq!(slice.metadata.owner_references.unwrap()[0].kind, "Endpoints");
        let ports: Vec<_> = slice.ports.iter().flatten().map(|port| port.port.unwrap().to_string()).collect();
        let address = |endpoint: k8s_openapi::api::discovery::v1::Endpoint| {
            let address = endpoint.addresses.join(",");
            if endpoint.conditions.unwrap().ready.unwrap() { address } else { format!("[{address}]") }
        };
        let addresses: Vec<_> = slice.endpoints.into_iter().flatten().map(address).collect();
        format!("{} {}: {}", slice.address_type, ports.join(","), addresses.join(" "))
    };
    let mut all: Vec<String> = harness.world.list::<EndpointSlice>().into_iter().map(one).collect();
    all.sort();
    all
}

fn idle(_: &mut World) -> bool {
    false
}

#[test]
fn endpoints_made_by_hand_are_mirrored_by_family_and_ports() {
    fn setup() -> Harness {
        by_hand(json!([
            { "addresses": [{ "ip": "192.0.2.2" }, { "ip": "2001:db8::1" }], "ports": [{ "port": 80 }] },
            { "addresses": [{ "ip": "192.0.2.2" }], "notReadyAddresses": [{ "ip": "2001:db8::1" }], "ports": [{ "port": 443 }] },
            { "notReadyAddresses": [{ "ip": "192.0.2.3" }, { "ip": "nowhere" }] },
        ]))
    }
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    assert_eq!(
        mirrors(&harness),
        [
            "IPv4 443: 192.0.2.2",
            "IPv4 80: 192.0.2.2",
            "IPv4 : [192.0.2.3]",
            "IPv6 443: [2001:db8::1]",
            "IPv6 80: 2001:db8::1",
        ]
    );
    let told: Vec<&str> = harness.events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(told, ["InvalidIPAddress"]);
}

#[test]
fn a_mirror_follows_and_goes_with_its_endpoints() {
    let same = json!([{ "addresses": [{ "ip": "192.0.2.2" }], "ports": [{ "name": "a", "port": 80 }] },
        { "addresses": [{ "ip": "192.0.2.2" }], "ports": [{ "name": "b", "port": 81 }] }]);
    let mut harness = by_hand(same);
    harness.settle();
    assert_eq!(mirrors(&harness), ["IPv4 80,81: 192.0.2.2"], "what offers the same ports is one subset");
    let first = harness.world.list::<EndpointSlice>()[0].metadata.name.clone();
    harness.world.update_each::<Endpoints>(|endpoints| {
        endpoints.subsets =
            from_value(json!([{ "addresses": [{ "ip": "192.0.2.9" }], "ports": [{ "port": 8080 }] }])).unwrap();
    });
    harness.settle();
    assert_eq!(mirrors(&harness), ["IPv4 8080: 192.0.2.9"]);
    assert_eq!(harness.world.list::<EndpointSlice>()[0].metadata.name, first, "a slice is used again");
    harness.world.delete::<Endpoints>("ns", "web", None);
    harness.settle();
    assert!(mirrors(&harness).is_empty());
}

#[test]
fn what_is_not_to_be_mirrored_is_not() {
    let change: [fn(&mut Harness); 3] = [
        |harness| {
            harness.world.update_each::<Endpoints>(|endpoints| {
                let labels = endpoints.metadata.labels.get_or_insert_default();
                labels.insert("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned());
            });
        },
        |harness| {
            harness.world.update_each::<Endpoints>(|endpoints| {
                let annotations = endpoints.metadata.annotations.get_or_insert_default();
                annotations.insert("control-plane.alpha.kubernetes.io/leader".to_owned(), "{}".to_owned());
            });
        },
        |harness| {
            harness.world.update_each::<Service>(|service| {
                service.spec.get_or_insert_default().selector =
                    Some(std::collections::BTreeMap::from([("app".to_owned(), "web".to_owned())]));
            });
        },
    ];
    for change in change {
        let mut harness = by_hand(json!([{ "addresses": [{ "ip": "192.0.2.2" }] }]));
        harness.settle();
        assert_eq!(mirrors(&harness).len(), 1);
        change(&mut harness);
        harness.settle();
        assert!(mirrors(&harness).is_empty());
    }
}

#[test]
fn a_mirror_holds_a_thousand_ready_ones_first() {
    let address = |number: usize| json!({ "ip": format!("10.9.{}.{}", number / 250, number % 250) });
    let list = |range: std::ops::Range<usize>| range.map(address).collect::<Vec<_>>();
    let mut harness = by_hand(
        json!([{ "addresses": list(1000..1100), "notReadyAddresses": list(0..1000), "ports": [{ "port": 1 }] }]),
    );
    harness.settle();
    let slices = harness.world.list::<EndpointSlice>();
    let endpoints = slices[0].endpoints.as_ref().unwrap();
    let ready = endpoints.iter().filter(|one| one.conditions.as_ref().unwrap().ready == Some(true)).count();
    assert_eq!((slices.len(), endpoints.len(), ready), (1, 1000, 100));
    assert_eq!(
        harness.events[0].message,
        "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 100 addresses were skipped"
    );
}

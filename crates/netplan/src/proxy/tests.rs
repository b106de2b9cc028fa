//! Check tables for one Service's transaction, and the property that transactions add up.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn node() -> NodeView {
    NodeView {
        name: "n1".to_owned(),
        zone: Some("z1".to_owned()),
        pod_cidr: "10.42.0.0/24".parse().unwrap(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        local_address: Some("10.43.0.10".parse().unwrap()),
    }
}

fn service(spec: Json) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec})).unwrap()
}

/// `endpoints`: (address, node, conditions).
fn slice(ports: Json, endpoints: &[(&str, &str, Json)]) -> Arc<EndpointSlice> {
    let endpoints: Vec<Json> = endpoints
        .iter()
        .map(|(address, node, conditions)| json!({"addresses": [address], "nodeName": node, "conditions": conditions}))
        .collect();
    Arc::new(
        serde_json::from_value(
            json!({"metadata": {"name": "s-1"}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}),
        )
        .unwrap(),
    )
}

fn http() -> Json {
    json!([{"name": "", "port": 8080, "protocol": "TCP"}])
}

fn check(spec: Json, slices: &[Arc<EndpointSlice>], expect: Expect) {
    let mut proxy = Proxy::new(node());
    proxy.full();
    proxy.update("d/s", Some(&service(spec)), slices);
    expect.assert_eq(&proxy.take_transaction().unwrap_or_default().script);
}

#[test]
fn cluster_ip_spreads_over_ready_endpoints() {
    check(
        json!({"clusterIP": "10.43.0.20", "ports": [{"port": 80}]}),
        &[slice(
            http(),
            &[
                ("10.42.0.5", "n1", json!({"ready": true})),
                ("10.42.1.5", "n2", json!({})),
                ("10.42.1.6", "n2", json!({"ready": false})),
            ],
        )],
        expect![[r#"
            add chain ip holdfast pick_services_tcp_2
            add rule ip holdfast pick_services_tcp_2 meta mark set meta mark or 0x4000 dnat ip to ip daddr . tcp dport . numgen random mod 2 map @services_tcp_to
            add element ip holdfast hairpins { 10.42.0.5 . 10.42.0.5 }
            add element ip holdfast services { 10.43.0.20 . tcp . 80 : goto pick_services_tcp_2 }
            add element ip holdfast services_tcp_to { 10.43.0.20 . 80 . 0 : 10.42.0.5 . 8080, 10.43.0.20 . 80 . 1 : 10.42.1.5 . 8080 }
        "#]],
    );
}

#[test]
fn terminating_endpoints_serve_only_when_no_other_does() {
    let draining = json!({"ready": false, "serving": true, "terminating": true});
    check(
        json!({"clusterIP": "10.43.0.20", "ports": [{"port": 80}]}),
        &[slice(http(), &[("10.42.1.5", "n2", draining), ("10.42.1.6", "n2", json!({"ready": false}))])],
        expect![[r#"
            add chain ip holdfast pick_services_tcp_1
            add rule ip holdfast pick_services_tcp_1 meta mark set meta mark or 0x4000 dnat ip to ip daddr . tcp dport . numgen random mod 1 map @services_tcp_to
            add element ip holdfast services { 10.43.0.20 . tcp . 80 : goto pick_services_tcp_1 }
            add element ip holdfast services_tcp_to { 10.43.0.20 . 80 . 0 : 10.42.1.5 . 8080 }
        "#]],
    );
}

#[test]
fn local_external_policy_keeps_outside_clients_on_this_node() {
    check(
        json!({"type": "NodePort", "clusterIP": "10.43.0.20", "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "nodePort": 30080}]}),
        &[slice(http(), &[("10.42.1.5", "n2", json!({}))])],
        expect![[r#"
            add chain ip holdfast pick_node_ports_tcp_1
            add chain ip holdfast pick_services_tcp_1
            add rule ip holdfast pick_node_ports_tcp_1 meta mark set meta mark or 0x4000 dnat ip to tcp dport . numgen random mod 1 map @node_ports_tcp_to
            add rule ip holdfast pick_services_tcp_1 meta mark set meta mark or 0x4000 dnat ip to ip daddr . tcp dport . numgen random mod 1 map @services_tcp_to
            add element ip holdfast node_ports { tcp . 30080 : goto pick_node_ports_tcp_1 }
            add element ip holdfast node_ports_tcp_to { 30080 . 0 : 10.42.1.5 . 8080 }
            add element ip holdfast outside_node_ports { tcp . 30080 : drop }
            add element ip holdfast services { 10.43.0.20 . tcp . 80 : goto pick_services_tcp_1 }
            add element ip holdfast services_tcp_to { 10.43.0.20 . 80 . 0 : 10.42.1.5 . 8080 }
        "#]],
    );
}

#[test]
fn local_internal_policy_drops_without_local_endpoints() {
    check(
        json!({"clusterIP": "10.43.0.20", "internalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
        &[slice(http(), &[("10.42.1.5", "n2", json!({}))])],
        expect![[r#"
            add element ip holdfast services { 10.43.0.20 . tcp . 80 : drop }
        "#]],
    );
}

#[test]
fn external_addresses_without_endpoints_are_refused() {
    check(
        json!({"clusterIP": "10.43.0.20", "externalIPs": ["192.0.2.7"], "ports": [{"port": 80}]}),
        &[],
        expect![[r#"
            add element ip holdfast refused { 192.0.2.7 . tcp . 80 : goto reject_now }
        "#]],
    );
}

#[test]
fn client_affinity_remembers_clients_per_backend() {
    check(
        json!({"clusterIP": "10.43.0.20", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "ports": [{"port": 80}]}),
        &[slice(http(), &[("10.42.1.5", "n2", json!({})), ("10.42.1.6", "n2", json!({}))])],
        expect![[r#"
            add set ip holdfast seen_0618527bc29a31fa { type ipv4_addr; flags dynamic,timeout; timeout 60s; size 65535; }
            add set ip holdfast seen_1f63c61a2683601f { type ipv4_addr; flags dynamic,timeout; timeout 60s; size 65535; }
            add chain ip holdfast sticky_f21bb7dcc2a22a36
            add chain ip holdfast to_0618527bc29a31fa
            add chain ip holdfast to_1f63c61a2683601f
            add rule ip holdfast sticky_f21bb7dcc2a22a36 ip saddr @seen_1f63c61a2683601f goto to_1f63c61a2683601f
            add rule ip holdfast sticky_f21bb7dcc2a22a36 ip saddr @seen_0618527bc29a31fa goto to_0618527bc29a31fa
            add rule ip holdfast sticky_f21bb7dcc2a22a36 numgen random mod 2 vmap { 0 : goto to_1f63c61a2683601f, 1 : goto to_0618527bc29a31fa }
            add rule ip holdfast to_0618527bc29a31fa update @seen_0618527bc29a31fa { ip saddr }
            add rule ip holdfast to_0618527bc29a31fa meta l4proto tcp meta mark set meta mark or 0x4000 dnat ip to 10.42.1.6:8080
            add rule ip holdfast to_1f63c61a2683601f update @seen_1f63c61a2683601f { ip saddr }
            add rule ip holdfast to_1f63c61a2683601f meta l4proto tcp meta mark set meta mark or 0x4000 dnat ip to 10.42.1.5:8080
            add element ip holdfast services { 10.43.0.20 . tcp . 80 : goto sticky_f21bb7dcc2a22a36 }
        "#]],
    );
}

#[test]
fn balancer_addresses_admit_only_their_source_ranges() {
    let mut service = service(json!({"type": "LoadBalancer", "clusterIP": "10.43.0.20",
        "loadBalancerSourceRanges": ["192.0.2.0/24", "bad; flush ruleset", "2001:db8::/32"], "ports": [{"port": 80}]}));
    service.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}})).unwrap();
    let mut proxy = Proxy::new(node());
    proxy.full();
    proxy.update("d/s", Some(&service), &[slice(http(), &[("10.42.1.5", "n2", json!({}))])]);
    expect![[r#"
        add chain ip holdfast pick_services_tcp_1
        add chain ip holdfast allow_f73e99447d034e3f
        add rule ip holdfast pick_services_tcp_1 meta mark set meta mark or 0x4000 dnat ip to ip daddr . tcp dport . numgen random mod 1 map @services_tcp_to
        add rule ip holdfast allow_f73e99447d034e3f fib saddr type local return
        add rule ip holdfast allow_f73e99447d034e3f ip saddr 192.0.2.0/24 return
        add rule ip holdfast allow_f73e99447d034e3f drop
        add element ip holdfast guarded { 198.51.100.7 . tcp . 80 : jump allow_f73e99447d034e3f }
        add element ip holdfast services { 10.43.0.20 . tcp . 80 : goto pick_services_tcp_1, 198.51.100.7 . tcp . 80 : goto pick_services_tcp_1 }
        add element ip holdfast services_tcp_to { 10.43.0.20 . 80 . 0 : 10.42.1.5 . 8080, 198.51.100.7 . 80 . 0 : 10.42.1.5 . 8080 }
    "#]].assert_eq(&proxy.take_transaction().unwrap().script);
}

#[test]
fn headless_external_name_and_our_own_dns_have_no_rules() {
    let slices = [slice(http(), &[("10.42.1.5", "n2", json!({}))])];
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]}),
        json!({"clusterIP": "10.43.0.10", "ports": [{"port": 80}]}),
    ] {
        check(spec, &slices, expect![[""]]);
    }
    for label in ["service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"] {
        let mut service = service(json!({"clusterIP": "10.43.0.20", "ports": [{"port": 80}]}));
        service.metadata.labels = Some([(label.to_owned(), "x".to_owned())].into());
        let mut proxy = Proxy::new(node());
        proxy.full();
        proxy.update("d/s", Some(&service), &slices);
        assert_eq!(proxy.take_transaction(), None);
    }
}

#[test]
fn a_leaving_endpoint_changes_only_its_slot() {
    let spec = json!({"clusterIP": "10.43.0.20", "ports": [{"port": 53, "protocol": "UDP"}]});
    let ports = json!([{"port": 53, "protocol": "UDP"}]);
    let endpoints = ["10.42.1.5", "10.42.1.6", "10.42.1.7"].map(|address| (address, "n2", json!({})));
    let mut proxy = Proxy::new(node());
    proxy.full();
    let service = service(spec);
    proxy.update("d/s", Some(&service), &[slice(ports.clone(), &endpoints)]);
    proxy.take_transaction().unwrap();
    proxy.update("d/s", Some(&service), &[slice(ports, &endpoints[1..])]);
    let transaction = proxy.take_transaction().unwrap();
    expect![[r#"
        add chain ip holdfast pick_services_udp_2
        add rule ip holdfast pick_services_udp_2 meta mark set meta mark or 0x4000 dnat ip to ip daddr . udp dport . numgen random mod 2 map @services_udp_to
        delete element ip holdfast services { 10.43.0.20 . udp . 53 }
        delete element ip holdfast services_udp_to { 10.43.0.20 . 53 . 0, 10.43.0.20 . 53 . 2 }
        add element ip holdfast services { 10.43.0.20 . udp . 53 : goto pick_services_udp_2 }
        add element ip holdfast services_udp_to { 10.43.0.20 . 53 . 0 : 10.42.1.7 . 53 }
    "#]]
    .assert_eq(&transaction.script);
    let backends: Vec<String> = transaction.udp[0].backends.iter().map(ToString::to_string).collect();
    assert_eq!((transaction.udp.len(), backends), (1, vec!["10.42.1.6:53".to_owned(), "10.42.1.7:53".to_owned()]));
    proxy.update("d/s", None, &[]);
    assert!(proxy.take_transaction().unwrap().udp[0].backends.is_empty());
    assert_eq!(proxy.take_transaction(), None);
}

/// A table as nftables would hold it: what our scripts add and delete, nothing else of the language.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    elements: BTreeMap<String, String>,
    chains: BTreeMap<String, Vec<String>>,
    sets: BTreeMap<String, String>,
}

impl Model {
    fn apply(&mut self, script: &str) {
        if script.starts_with("table ip") {
            *self = Self::default();
        }
        for line in script.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["add", "element", family, _, map, "{", ..] => {
                    for entry in entries(line) {
                        let (key, value) = entry.split_once(" : ").unwrap_or((entry, ""));
                        let old = self.elements.insert(format!("{family} {map} {key}"), value.to_owned());
                        assert!(old.is_none_or(|old| old == value), "{entry} replaces without a delete");
                        if let Some(chain) = value
                            .strip_prefix("goto ")
                            .or(value.strip_prefix("jump "))
                            .filter(|chain| *chain != "reject_now")
                        {
                            assert!(self.chains.contains_key(chain), "{chain} is not there");
                        }
                    }
                }
                ["delete", "element", family, _, map, "{", ..] => {
                    for key in entries(line) {
                        assert!(self.elements.remove(&format!("{family} {map} {key}")).is_some(), "{key} is not there");
                    }
                }
                ["add", "chain", _, _, name] => assert!(self.chains.insert(name.to_owned(), vec![]).is_none()),
                ["flush", "chain", _, _, name] => self.chains.get_mut(name).unwrap().clear(),
                ["delete", "chain", _, _, name] => {
                    assert_eq!(self.chains.remove(name), Some(vec![]));
                    assert!(!self.elements.values().any(|value| *value == format!("goto {name}")));
                }
                ["add", "rule", _, _, name, ..] => {
                    self.chains.get_mut(name).unwrap().push(words[5..].join(" "));
                }
                ["add", "set", _, _, name, ..] => assert!(self.sets.insert(name.to_owned(), line.to_owned()).is_none()),
                ["delete", "set", _, _, name] => {
                    assert!(self.sets.remove(name).is_some());
                    assert!(!self.chains.values().flatten().any(|rule| rule.contains(&format!("@{name} "))));
                }
                _ => {}
            }
        }
    }

    /// Unused pick chains may stay.
    fn without_unused_picks(mut self) -> Self {
        let used: BTreeSet<String> = self.elements.values().cloned().collect();
        self.chains.retain(|name, _| !name.starts_with("pick_") || used.contains(&format!("goto {name}")));
        self
    }
}

fn entries(line: &str) -> impl Iterator<Item = &str> {
    line.split_once('{').unwrap().1.trim_end_matches('}').trim().split(", ")
}

fn any_service() -> impl Strategy<Value = Option<(Json, Vec<(u8, bool)>)>> {
    let spec = (0u8..3, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(ip, sticky, node_port, udp, local)| {
            json!({
                "clusterIP": format!("10.43.0.{}", 20 + ip),
                "sessionAffinity": if sticky { "ClientIP" } else { "None" },
                "externalTrafficPolicy": if local { "Local" } else { "Cluster" },
                "externalIPs": ["192.0.2.1"],
                "ports": [{"port": 80, "protocol": if udp { "UDP" } else { "TCP" },
                    "nodePort": if node_port { 30080 + i32::from(ip) } else { 0 }}],
            })
        },
    );
    prop::option::of((spec, prop::collection::vec((2u8..9, any::<bool>()), 0..5)))
}

proptest! {
    /// A full transaction followed by incremental ones is the full transaction of the end.
    #[test]
    fn transactions_add_up(steps in prop::collection::vec((0u8..3, any_service(), any::<bool>()), 1..25)) {
        let mut proxy = Proxy::new(node());
        let mut kernel = Model::default();
        kernel.apply(&proxy.full().script);
        for (name, state, take) in steps {
            match state {
                None => proxy.update(&format!("d/{name}"), None, &[]),
                Some((spec, endpoints)) => {
                    let protocol = spec["ports"][0]["protocol"].clone();
                    let addresses: Vec<String> = endpoints.iter().map(|(last, _)| format!("10.42.0.{last}")).collect();
                    let endpoints: Vec<(&str, &str, Json)> = endpoints
                        .iter()
                        .zip(&addresses)
                        .map(|((_, here), address)| (address.as_str(), if *here { "n1" } else { "n2" }, json!({})))
                        .collect();
                    let slice = slice(json!([{"port": 80, "protocol": protocol}]), &endpoints);
                    proxy.update(&format!("d/{name}"), Some(&service(spec)), &[slice]);
                }
            }
            if take && let Some(transaction) = proxy.take_transaction() {
                kernel.apply(&transaction.script);
            }
        }
        if let Some(transaction) = proxy.take_transaction() {
            kernel.apply(&transaction.script);
        }
        let mut fresh = Model::default();
        fresh.apply(&proxy.full().script);
        prop_assert_eq!(kernel.without_unused_picks(), fresh);
    }

    /// Slots hold exactly the wanted backends, and who stays within range keeps its number.
    #[test]
    fn slots_are_stable(before in prop::collection::btree_set(1u16..40, 0..12), after in prop::collection::btree_set(1u16..40, 0..12)) {
        let address = |port: &u16| SocketAddr::from(([10, 0, 0, 1], *port));
        let wanted: BTreeSet<SocketAddr> = after.iter().map(address).collect();
        let previous: Vec<SocketAddr> = before.iter().map(address).collect();
        let slots = crate::rules::assign_slots(&previous, &wanted);
        prop_assert_eq!(slots.iter().copied().collect::<BTreeSet<_>>(), wanted.clone());
        prop_assert_eq!(slots.len(), wanted.len());
        for (slot, backend) in slots.iter().enumerate() {
            let old = previous.get(slot).filter(|old| wanted.contains(old));
            prop_assert!(old.is_none_or(|old| old == backend));
        }
    }
}

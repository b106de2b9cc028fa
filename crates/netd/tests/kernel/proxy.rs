//! The proxy rules in the kernel: a node with two Pods, a client outside the cluster.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netd::{conntrack, nft};
use netplan::{NodeView, Proxy};
use serde_json::{Value, json};

use crate::namespaces::{PATIENCE, TestNs, available};
use crate::node::Node;

/// How long nothing must come for it to count as silence.
const SILENCE: Duration = Duration::from_secs(2);

/// A node whose Pods `a` (10.42.0.2) and `b` (10.42.0.3) answer on 8080 with their name and the client's address, and a
/// client at 192.0.2.2 that routes to the node, 192.0.2.1.
struct Scene {
    node: Node,
    a: TestNs,
    b: TestNs,
    outside: TestNs,
    proxy: Proxy,
}

impl Scene {
    fn new(name: &str) -> Self {
        let node = Node::new(name);
        let (a, b) = (TestNs::new(&format!("{name}-a")), TestNs::new(&format!("{name}-b")));
        let outside = TestNs::new(&format!("{name}-o"));
        for (id, pod) in [("a", &a), ("b", &b)] {
            let address = node.add(id, pod, &json!([]));
            serve(pod, &address, id);
        }
        let peer = outside.path().file_name().unwrap().to_str().unwrap().to_owned();
        node.host.succeeds(&format!(
            "ip link add up0 type veth peer name up1 netns {peer} && ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up"
        ));
        outside
            .succeeds("ip addr add 192.0.2.2/24 dev up1 && ip link set up1 up && ip route add default via 192.0.2.1");
        let proxy = Proxy::new(NodeView {
            name: "n1".to_owned(),
            zone: None,
            pod_cidr: "10.42.0.0/24".parse().unwrap(),
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            local_address: Some("10.43.0.10".parse().unwrap()),
        });
        let mut scene = Self { node, a, b, outside, proxy };
        let full = scene.proxy.full().script;
        scene.node.host.enter(|| nft::apply_blocking(&full)).unwrap();
        scene
    }

    /// Sets the one Service and applies the difference. `endpoints` are (address, node).
    fn update(&mut self, spec: Option<Value>, protocol: &str, endpoints: &[(&str, &str)]) {
        let service: Option<Service> =
            spec.map(|spec| serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap());
        let endpoints: Vec<Value> =
            endpoints.iter().map(|(address, node)| json!({"addresses": [address], "nodeName": node})).collect();
        let slice: EndpointSlice = serde_json::from_value(json!({"metadata": {"name": "s-1"}, "addressType": "IPv4",
            "ports": [{"port": 8080, "protocol": protocol}], "endpoints": endpoints}))
        .unwrap();
        self.proxy.update("d/s", service.as_ref(), &[Arc::new(slice)]);
        let transaction = self.proxy.take_transaction().unwrap();
        self.node.host.enter(|| {
            nft::apply_blocking(&transaction.script).unwrap();
            conntrack::forget_stale_udp(&transaction.udp).unwrap();
        });
    }
}

/// Answers TCP connections and UDP datagrams at `address`:8080 inside the Pod until the test process ends.
fn serve(pod: &TestNs, address: &str, name: &'static str) {
    let (listener, socket) =
        pod.enter(|| (TcpListener::bind((address, 8080)).unwrap(), UdpSocket::bind((address, 8080)).unwrap()));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip();
            drop(stream.write_all(format!("{name} {peer}").as_bytes()));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(name.as_bytes(), peer));
        }
    });
}

fn fetch(from: &TestNs, to: &str) -> Result<String, std::io::ErrorKind> {
    fetch_within(PATIENCE, from, to)
}

fn fetch_within(limit: Duration, from: &TestNs, to: &str) -> Result<String, std::io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
    .map_err(|error: std::io::Error| error.kind())
}

const BOTH: [(&str, &str); 2] = [("10.42.0.2", "n1"), ("10.42.0.3", "n1")];

#[test]
fn cluster_addresses_reach_every_endpoint_and_keep_the_source() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("vip");
    scene.update(Some(json!({"clusterIP": "10.43.0.20", "ports": [{"port": 80}]})), "TCP", &BOTH);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        seen.insert(fetch(&scene.node.host, "10.43.0.20:80").unwrap());
        seen.insert(fetch(&scene.a, "10.43.0.20:80").unwrap());
    }
    let expected = ["a 10.42.0.1", "a 10.42.0.2", "b 10.42.0.1", "b 10.42.0.2"].map(str::to_owned);
    // A Pod that reaches itself sees a masqueraded source, the others the true one.
    assert!(seen.contains("b 10.42.0.2"), "{seen:?}");
    assert!(seen.iter().all(|answer| expected.contains(answer)), "{seen:?}");
    assert!(seen.iter().any(|answer| answer.starts_with("a ")), "{seen:?}");

    // An unknown port and a Service without endpoints are refused at once.
    assert_eq!(fetch(&scene.a, "10.43.0.20:81"), Err(std::io::ErrorKind::ConnectionRefused));
    scene.update(Some(json!({"clusterIP": "10.43.0.20", "ports": [{"port": 80}]})), "TCP", &[]);
    assert_eq!(fetch(&scene.a, "10.43.0.20:80"), Err(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(fetch(&scene.node.host, "10.43.0.20:80"), Err(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn node_ports_and_external_addresses_serve_outside_clients() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("port");
    let spec = |policy: &str| {
        json!({"type": "NodePort", "clusterIP": "10.43.0.20", "externalTrafficPolicy": policy,
            "externalIPs": ["198.51.100.7"], "ports": [{"port": 80, "nodePort": 30080}]})
    };
    for policy in ["Cluster", "Local"] {
        scene.update(Some(spec(policy)), "TCP", &BOTH[..1]);
        assert_eq!(fetch(&scene.outside, "192.0.2.1:30080"), Ok("a 192.0.2.2".to_owned()));
        assert_eq!(fetch(&scene.outside, "198.51.100.7:80"), Ok("a 192.0.2.2".to_owned()));
        assert_eq!(fetch(&scene.b, "192.0.2.1:30080"), Ok("a 10.42.0.3".to_owned()));
        assert!(fetch(&scene.node.host, "192.0.2.1:30080").is_ok());
    }
    // The only endpoint is elsewhere: silence for outside clients under Local.
    scene.update(Some(spec("Local")), "TCP", &[("10.42.0.3", "n2")]);
    assert_eq!(fetch_within(SILENCE, &scene.outside, "192.0.2.1:30080"), Err(std::io::ErrorKind::TimedOut));
    assert!(fetch(&scene.a, "192.0.2.1:30080").is_ok(), "inside clients may use all endpoints");
    scene.update(Some(spec("Cluster")), "TCP", &[]);
    // Refusing happens on the way out, so there must be one.
    scene.node.host.succeeds("ip route add default via 192.0.2.2");
    assert_eq!(fetch(&scene.outside, "198.51.100.7:80"), Err(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn affinity_holds_and_ends_with_its_endpoint() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("sticky");
    let spec = json!({"clusterIP": "10.43.0.20", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]});
    scene.update(Some(spec.clone()), "TCP", &BOTH);
    let first = fetch(&scene.outside, "10.43.0.20:80").unwrap();
    for _ in 0..16 {
        assert_eq!(fetch(&scene.outside, "10.43.0.20:80").unwrap(), first);
    }
    let other = if first.starts_with('a') { &BOTH[1..] } else { &BOTH[..1] };
    scene.update(Some(spec.clone()), "TCP", other);
    let second = fetch(&scene.outside, "10.43.0.20:80").unwrap();
    assert_ne!(second, first);
    scene.update(Some(spec), "TCP", &BOTH);
    for _ in 0..16 {
        assert_eq!(fetch(&scene.outside, "10.43.0.20:80").unwrap(), second);
    }
    scene.update(None, "TCP", &[]);
    assert_eq!(fetch(&scene.outside, "10.43.0.20:80"), Err(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn a_udp_flow_follows_its_service_to_new_endpoints() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("udp");
    let spec = json!({"clusterIP": "10.43.0.20", "ports": [{"port": 80, "protocol": "UDP"}]});
    let client = scene.outside.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.set_read_timeout(Some(SILENCE)).unwrap();
    client.connect("10.43.0.20:80").unwrap();
    let ask = || {
        let mut buffer = [0; 64];
        client.send(b"?").and_then(|_| client.recv(&mut buffer)).map(|length| buffer[0..length].to_vec())
    };
    assert!(ask().is_err(), "no Service yet");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    scene.update(Some(spec.clone()), "UDP", &BOTH[..1]);
    assert_eq!(ask().unwrap(), b"a");
    scene.update(Some(spec.clone()), "UDP", &BOTH[1..]);
    assert_eq!(ask().unwrap(), b"b");
    scene.update(Some(spec), "UDP", &BOTH);
    assert_eq!(ask().unwrap(), b"b", "a flow whose endpoint stays is left alone");
}

#[test]
fn pods_reach_the_world_by_the_nodes_address() {
    if !available() {
        return;
    }
    let scene = Scene::new("egress");
    // The outside does not know the way back to Pods.
    scene.outside.succeeds("ip route del default");
    let listener = scene.outside.enter(|| TcpListener::bind("192.0.2.2:9000").unwrap());
    let accepted = std::thread::spawn(move || listener.accept().unwrap().1.ip());
    let stream = scene.b.enter(|| TcpStream::connect_timeout(&"192.0.2.2:9000".parse().unwrap(), PATIENCE));
    assert!(stream.is_ok(), "{stream:?}");
    assert_eq!(accepted.join().unwrap(), "192.0.2.1".parse::<IpAddr>().unwrap());
}

#[test]
fn removal_leaves_nothing() {
    if !available() {
        return;
    }
    let scene = Scene::new("gone");
    let paths = scene.node.paths.clone();
    assert_eq!(scene.node.host.enter(|| netd::remove_all(&paths)), Vec::<String>::new());
    assert_eq!(scene.node.host.enter(|| netd::remove_all(&paths)), Vec::<String>::new());
    let left = scene.node.host.run("nft list ruleset; ip -o link | grep -v -e lo: -e up0; ip route | grep -v up0");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    assert!(!paths.data.exists());
}

#[test]
fn ipv6_rules_load() {
    if !available() {
        return;
    }
    let host = TestNs::new("six");
    let mut proxy = Proxy::new(NodeView {
        name: "n1".to_owned(),
        zone: None,
        pod_cidr: "10.42.0.0/24".parse().unwrap(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        local_address: None,
    });
    let full = proxy.full().script;
    host.enter(|| nft::apply_blocking(&full)).unwrap();
    for affinity in ["None", "ClientIP"] {
        let service: Service = serde_json::from_value(json!({"spec": {"type": "NodePort", "clusterIP": "fd00:43::20",
            "externalTrafficPolicy": "Local", "sessionAffinity": affinity, "ports": [{"port": 80, "nodePort": 30080}]}}))
        .unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({"metadata": {}, "addressType": "IPv6",
            "ports": [{"port": 8080}], "endpoints": [{"addresses": ["fd00:42::5"], "nodeName": "n1"}]}))
        .unwrap();
        proxy.update("d/s", Some(&service), &[Arc::new(slice)]);
        let transaction = proxy.take_transaction().unwrap();
        host.enter(|| nft::apply_blocking(&transaction.script)).unwrap();
    }
    let again = proxy.full().script;
    host.enter(|| nft::apply_blocking(&again)).unwrap();
}

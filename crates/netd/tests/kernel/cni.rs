//! ADD, CHECK, DEL and reclaiming with real links: two Pods, the node and host ports.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use netd::cni::protocol::Call;
use netd::setup::{self, CniPaths, NodeNetwork};
use serde_json::{Value, json};

use crate::namespaces::{TestNs, available};

struct Node {
    host: TestNs,
    paths: CniPaths,
    dir: PathBuf,
}

impl Node {
    fn new(name: &str) -> Self {
        let host = TestNs::new(name);
        let dir = std::env::temp_dir().join(format!("holdfast-cni-{name}-{}", std::process::id()));
        let paths = CniPaths::under(&dir);
        let network = NodeNetwork {
            pod_cidr: "10.42.0.0/24".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            dns: "10.43.0.10".parse().unwrap(),
            mtu: None,
        };
        host.enter(|| setup::apply(&network, &paths, "/proc/self/exe".as_ref())).unwrap();
        host.enter(|| setup::apply(&network, &paths, "/proc/self/exe".as_ref())).unwrap();
        Self { host, paths, dir }
    }

    /// The call as the runtime would make it from the configuration that netd wrote.
    fn call(&self, command: &str, id: &str, pod: &TestNs, ports: &Value) -> Result<String, u32> {
        let conflist: Value =
            serde_json::from_slice(&std::fs::read(self.paths.conf.join("10-holdfast.conflist")).unwrap()).unwrap();
        let mut config = conflist["plugins"][0].clone();
        config["cniVersion"] = conflist["cniVersion"].clone();
        config["name"] = conflist["name"].clone();
        config["runtimeConfig"] = json!({"portMappings": ports});
        let vars = BTreeMap::from(
            [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", id),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", pod.path().to_str().unwrap()),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let call = Call::parse(&vars, config.to_string().as_bytes()).map_err(|error| error.code)?;
        self.host.enter(|| netd::cni::execute(&call)).map_err(|error| {
            eprintln!("{command}: {error}");
            error.code
        })
    }

    fn add(&self, id: &str, pod: &TestNs, ports: &Value) -> String {
        let result: Value = serde_json::from_str(&self.call("ADD", id, pod, ports).unwrap()).unwrap();
        result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// Whether the address answers at all: a refusal by its kernel is an answer.
fn reaches(from: &TestNs, to: &str) -> bool {
    let to = to.parse().unwrap();
    let refused =
        from.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)).err().map(|error| error.kind()));
    refused == Some(std::io::ErrorKind::ConnectionRefused)
}

#[test]
fn pods_reach_each_other_the_node_and_are_taken_down_whole() {
    if !available() {
        return;
    }
    let node = Node::new("pair");
    let (a, b) = (TestNs::new("pair-a"), TestNs::new("pair-b"));
    let none = json!([]);
    assert_eq!(node.add("a", &a, &none), "10.42.0.2");
    assert_eq!(node.add("b", &b, &none), "10.42.0.3");
    assert_eq!(node.add("b", &b, &none), "10.42.0.3", "a repeated ADD keeps the address");
    assert!(reaches(&a, "10.42.0.3:9"));
    assert!(reaches(&a, "10.42.0.1:9"));
    assert!(reaches(&a, "10.43.0.10:9"));
    assert!(reaches(&node.host, "10.42.0.2:9"));
    assert_eq!(node.call("CHECK", "a", &a, &none), Ok(String::new()));
    assert_eq!(node.call("STATUS", "a", &a, &none), Ok(String::new()));

    a.succeeds("ip addr del 10.42.0.2/32 dev eth0");
    assert_eq!(node.call("CHECK", "a", &a, &none), Err(101));
    assert_eq!(node.call("DEL", "a", &a, &none), Ok(String::new()));
    assert_eq!(node.call("DEL", "a", &a, &none), Ok(String::new()), "DEL is idempotent");
    assert!(!a.run("ip link show eth0").status.success());
    assert!(!node.host.run("ip route | grep 10.42.0.2").status.success());

    // The sandbox dies without a DEL: its namespace takes the link along, reclaiming frees the address.
    drop(b);
    while node.host.run("ip link | grep hfv").status.success() {}
    assert_eq!(node.host.enter(|| netd::cni::pod::reclaim(&node.paths.data)), Ok(1));
    assert_eq!(node.host.enter(|| netd::cni::pod::reclaim(&node.paths.data)), Ok(0));
}

#[test]
fn host_ports_lead_to_the_pod_until_it_goes() {
    if !available() {
        return;
    }
    let node = Node::new("ports");
    let pod = TestNs::new("ports-a");
    let ports = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
        {"hostPort": 0, "containerPort": 81}
    ]);
    let address = node.add("a", &pod, &ports);
    let listener = pod.enter(|| TcpListener::bind((address.as_str(), 80)).unwrap());
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(4) {
            stream.unwrap().write_all(b"pod").unwrap();
        }
    });
    let fetch = |from: &TestNs, to: &str| {
        from.enter(|| {
            let mut text = String::new();
            let mut stream = TcpStream::connect(to).map_err(|error| error.kind())?;
            stream.read_to_string(&mut text).map_err(|error| error.kind())?;
            Ok::<_, std::io::ErrorKind>(text)
        })
    };
    assert_eq!(fetch(&node.host, "10.42.0.1:8080"), Ok("pod".to_owned()));
    assert_eq!(fetch(&node.host, "127.0.0.1:8080"), Ok("pod".to_owned()));
    assert_eq!(fetch(&node.host, "127.0.0.1:8081"), Ok("pod".to_owned()));
    assert_eq!(fetch(&pod, "10.42.0.1:8080"), Ok("pod".to_owned()), "a Pod reaches its own host port");
    assert!(fetch(&node.host, "10.42.0.1:8081").is_err());
    server.join().unwrap();

    node.call("DEL", "a", &pod, &ports).unwrap();
    assert!(fetch(&node.host, "10.42.0.1:8080").is_err());
}

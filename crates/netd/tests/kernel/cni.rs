//! ADD, CHECK, DEL and reclaiming with real links: two Pods, the node and host ports.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::json;

use crate::namespaces::{PATIENCE, TestNs, available};
use crate::node::Node;

/// Whether the address answers at all: a refusal by its kernel is an answer.
fn reaches(from: &TestNs, to: &str) -> bool {
    let to = to.parse().unwrap();
    let refused = from.enter(|| TcpStream::connect_timeout(&to, PATIENCE).err().map(|error| error.kind()));
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

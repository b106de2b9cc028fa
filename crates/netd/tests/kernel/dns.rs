//! The DNS server on its real address: asked from a Pod over UDP and TCP, with an upstream server of the test's own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::{Arc, RwLock};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netd::dns::{DnsServer, Upstream};
use netplan::View;
use serde_json::json;

use crate::namespaces::{PATIENCE, TestNs, available};
use crate::node::Node;

fn view() -> View {
    let mut view = View::default();
    let endpoints: Vec<_> = (1..=200).map(|last| json!({"addresses": [format!("10.42.0.{last}")]})).collect();
    let web = json!({"metadata": {"name": "web", "namespace": "d"},
        "spec": {"clusterIP": "10.43.0.20", "ports": [{"port": 80}]}});
    let many = json!({"metadata": {"name": "many", "namespace": "d"}, "spec": {"clusterIP": "None"}});
    let out = json!({"metadata": {"name": "out", "namespace": "d"},
        "spec": {"type": "ExternalName", "externalName": "www.example.org"}});
    let slice = json!({"metadata": {"name": "many-1", "namespace": "d", "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "endpoints": endpoints});
    for service in [web, many, out] {
        view.set_service(&Arc::new(serde_json::from_value(service).unwrap()), true);
    }
    view.set_slice(&Arc::new(serde_json::from_value(slice).unwrap()), true);
    view.set_namespaces_known();
    view
}

/// Answers every question with 203.0.113.1 until the test process ends.
fn serve_upstream(host: &TestNs) {
    let socket = host.enter(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
            let name = query.queries[0].name().clone();
            answer.add_query(query.queries[0].clone());
            answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(203, 0, 113, 1)))));
            drop(socket.send_to(&answer.to_vec().unwrap(), peer));
        }
    });
}

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn ask_udp(from: &TestNs, query: &[u8]) -> (Message, usize) {
    from.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect("10.43.0.10:53").unwrap();
        socket.send(query).unwrap();
        let mut buffer = [0; 65_535];
        let length = socket.recv(&mut buffer).unwrap();
        (Message::from_vec(&buffer[..length]).unwrap(), length)
    })
}

fn ask_tcp(from: &TestNs, query: &[u8]) -> Message {
    from.enter(|| {
        let mut stream = TcpStream::connect("10.43.0.10:53").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        Message::from_vec(&answer).unwrap()
    })
}

#[test]
fn pods_resolve_the_zone_and_the_world() {
    if !available() {
        return;
    }
    let node = Node::new("dns");
    let pod = TestNs::new("dns-a");
    node.add("a", &pod, &json!([]));
    serve_upstream(&node.host);
    let resolv_conf = node.paths.data.join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.43.0.10\nnameserver 127.0.0.1\n").unwrap();

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let host = &node.host;
        let (ready, is_ready) = std::sync::mpsc::channel();
        scope.spawn(move || {
            host.enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let upstream =
                        Upstream::new(resolv_conf, "10.43.0.10".parse().unwrap(), &mut base::SeededRng::new(1));
                    let address = "10.43.0.10:53".parse().unwrap();
                    let view = Arc::new(RwLock::new(view()));
                    let server = DnsServer::bind(address, "cluster.local", view, upstream).await.unwrap();
                    ready.send(()).unwrap();
                    tokio::select! {
                        result = server.serve() => panic!("{result:?}"),
                        _ = stopped => {}
                    }
                });
            });
        });
        is_ready.recv().unwrap();
        check_answers(&pod);
        assert_eq!(ask_udp(host, &query("web.d.svc.cluster.local.", RecordType::A, None)).0.answers.len(), 1);
        stop.send(()).unwrap();
    });
}

fn check_answers(pod: &TestNs) {
    let (answer, _) = ask_udp(pod, &query("WEB.d.svc.cluster.local.", RecordType::A, Some(4096)));
    assert_eq!((answer.metadata.response_code, answer.metadata.authoritative), (ResponseCode::NoError, true));
    assert_eq!(answer.answers[0].data, RData::A(A(Ipv4Addr::new(10, 43, 0, 20))));
    assert_eq!(answer.answers[0].ttl, 5);
    assert!(answer.edns.is_some());

    let (answer, _) = ask_udp(pod, &query("web.d.svc.cluster.local.", RecordType::AAAA, None));
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    let (answer, _) = ask_udp(pod, &query("nope.d.svc.cluster.local.", RecordType::A, None));
    assert_eq!((answer.metadata.response_code, answer.authorities.len()), (ResponseCode::NXDomain, 1));

    // 200 addresses: truncated to what the client takes over UDP, whole over TCP.
    let many = "many.d.svc.cluster.local.";
    let (answer, length) = ask_udp(pod, &query(many, RecordType::A, None));
    assert!(answer.metadata.truncation && length <= 512, "{length}");
    let (answer, length) = ask_udp(pod, &query(many, RecordType::A, Some(4096)));
    assert!(answer.metadata.truncation && length <= 1232, "{length}");
    let answer = ask_tcp(pod, &query(many, RecordType::A, None));
    assert_eq!((answer.metadata.truncation, answer.answers.len()), (false, 200));

    // Other names go upstream; our own address among the host's servers is skipped.
    let world = RData::A(A(Ipv4Addr::new(203, 0, 113, 1)));
    let (answer, _) = ask_udp(pod, &query("example.org.", RecordType::A, Some(1232)));
    assert_eq!((answer.metadata.id, answer.answers[0].data.clone()), (7, world.clone()));
    let (answer, _) = ask_udp(pod, &query("out.d.svc.cluster.local.", RecordType::A, None));
    assert_eq!(answer.answers.len(), 2);
    assert_eq!((answer.answers[0].record_type(), &answer.answers[1].data), (RecordType::CNAME, &world));
    let answer = ask_tcp(pod, &query("example.org.", RecordType::A, None));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "nobody listens for TCP upstream");
}

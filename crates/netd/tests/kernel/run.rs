//! All of netd at once: from objects in the API to connections and names, and what stays when it stops.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::api::CannedApi;
use crate::namespaces::{PATIENCE, TestNs, available};
use crate::node::Node;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ATTEMPT: Duration = Duration::from_millis(100);

#[test]
fn a_service_works_from_its_creation_and_outlives_netd() {
    if !available() {
        return;
    }
    let node = Node::new("run");
    let pod = TestNs::new("run-a");
    let address = node.add("a", &pod, &json!([]));
    let listener = pod.enter(|| TcpListener::bind((address.as_str(), 8080)).unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let resolv_conf = node.dir.join("resolv.conf");
    std::fs::write(&resolv_conf, "").unwrap();
    let config = netd::Config {
        node_name: "n1".to_owned(),
        paths: node.paths.clone(),
        executable: "/proc/self/exe".into(),
        pod_cidr: None,
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        dns: "10.43.0.10".parse().unwrap(),
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf,
        mtu: None,
    };
    node.host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = CannedApi::new();
            api.put("/api/v1/nodes", "n1", Some(json!({"metadata": {}, "spec": {"podCIDR": "10.42.0.0/24"}})));
            let run = netd::run(config, api.client(), std::future::pending());
            tokio::select! {
                result = run => panic!("{result:?}"),
                () = scenario(&api, &address) => {}
            }
        });
        // netd is gone, its rules are not.
        assert!(TcpStream::connect_timeout(&vip(), PATIENCE).is_ok());
    });
}

fn vip() -> SocketAddr {
    "10.43.0.20:80".parse().unwrap()
}

async fn scenario(api: &CannedApi, pod: &str) {
    let metadata = json!({"namespace": "d", "labels": {"kubernetes.io/service-name": "web"}});
    let service =
        |ports: serde_json::Value| json!({"metadata": metadata, "spec": {"clusterIP": "10.43.0.20", "ports": ports}});
    let slice = |ready: bool| {
        json!({"metadata": metadata, "addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": [pod], "nodeName": "n1", "conditions": {"ready": ready}}]})
    };
    api.put(SERVICES, "web", Some(service(json!([{"port": 80}]))));
    api.put(SLICES, "web-1", Some(slice(true)));
    becomes("the Service answers", true).await;
    api.put(SLICES, "web-1", Some(slice(false)));
    becomes("the endpoint is out", false).await;
    api.put(SLICES, "web-1", Some(slice(true)));
    becomes("the endpoint is back", true).await;

    // Somebody removes our table: it comes back with the next change, which nft refuses.
    netd::nft::apply("delete table ip holdfast").await.unwrap();
    api.put(SERVICES, "web", Some(service(json!([{"port": 80, "nodePort": 30080}]))));
    becomes("the table is back", true).await;

    let names = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    names.connect("10.43.0.10:53").await.unwrap();
    let mut query = hickory_proto::op::Message::query();
    let name = hickory_proto::rr::Name::from_ascii("web.d.svc.cluster.local.").unwrap();
    query.add_query(hickory_proto::op::Query::query(name, hickory_proto::rr::RecordType::A));
    names.send(&query.to_vec().unwrap()).await.unwrap();
    let mut answer = [0; 512];
    let length = tokio::time::timeout(PATIENCE, names.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!(hickory_proto::op::Message::from_vec(&answer[..length]).unwrap().answers.len(), 1);
}

/// Connects until the outcome is the wanted one; the time it took is printed.
async fn becomes(what: &str, wanted: bool) {
    let start = tokio::time::Instant::now();
    let connects = || async {
        // What is dropped is sent again only after a second.
        let attempt = tokio::time::timeout(ATTEMPT, tokio::net::TcpStream::connect(vip())).await;
        matches!(attempt, Ok(Ok(_)))
    };
    while connects().await != wanted {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{what} after {:?}", start.elapsed());
}

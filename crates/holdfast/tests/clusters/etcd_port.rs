//! A server's store behind the etcd API, on a port of its own: for who has a certificate of its authority, and nobody else.

use etcd::remote::{Addresses, RemoteStore, Root, TlsTexts};
use store::{Kv as _, RangeRequest, prefix_end};

use crate::load::create;
use crate::process::Place;
use crate::server::{Cluster, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_of_a_server_is_open_to_etcds_clients_with_its_certificate() {
    let place = Place::new("etcd-port");
    let cluster = Cluster::start(vec![Server::here(&place, "s1", "127.0.0.1")]);
    let server = &cluster.servers[0];
    assert!(create(&server.maps().await, "seen").await);
    let read = |file: &str| std::fs::read_to_string(server.data().join("pki").join(file)).unwrap();
    let (ca, addresses) = (read("etcd-ca.crt"), Addresses::parse(&server.etcd_url()).unwrap());
    let connect = async |client: Option<[&str; 2]>| {
        let client = client.map(|[certificate, key]| (read(certificate), read(key)));
        RemoteStore::connect(&addresses, Some(&TlsTexts { ca: ca.clone(), client }), Root::new("")).await
    };
    let own = connect(Some(["etcd-client.crt", "etcd-client.key"])).await.unwrap();
    let prefix = b"/registry/configmaps/default/seen";
    let end = Some(prefix_end(prefix).unwrap());
    let found = own.range(RangeRequest { key: prefix.as_ref().into(), end, ..RangeRequest::default() }).await.unwrap();
    assert_eq!(found.count, 1);
    for stranger in [None, Some(["admin.crt", "admin.key"]), Some(["member.crt", "member.key"])] {
        assert!(connect(stranger).await.is_err(), "{stranger:?}");
    }
}

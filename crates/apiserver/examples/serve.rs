//! An API server by itself, for trying clients and components against it: `serve DIRECTORY [PORT]`.
//!
//! Writes `DIRECTORY/admin.conf` and serves on 127.0.0.1 until it is killed. Real store, real certificates, RBAC and admission.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a program for developers: the first failure ends it")]

use std::path::PathBuf;
use std::sync::Arc;

use apiserver::chain::Identity;
use apiserver::pki::{Pki, PkiConfig};
use apiserver::security::Security;
use apiserver::streams::dial::DirectConnector;
use apiserver::{ApiServer, ApiServerConfig};
use base::{OsRng, SystemClock};
use store::{RealDisk, Store};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("serve DIRECTORY [PORT]"));
    let port: u16 = arguments.next().map_or(16443, |port| port.parse().expect("a port"));
    let clock = Arc::new(SystemClock::new());
    std::fs::create_dir_all(directory.join("data")).unwrap();
    let disk = Arc::new(RealDisk::new(directory.join("data")).unwrap());
    let store = Arc::new(Store::open(store::Config::default(), disk, clock.clone(), Arc::new(store::NoPeers)).unwrap());
    let names = PkiConfig { directory: directory.join("pki"), names: Vec::new(), addresses: Vec::new() };
    let pki = Arc::new(Pki::open(names, clock.clone()).unwrap());
    let at_rest = apiserver::encryption::AtRest::OwnKeys(directory.join("encryption.yaml"));
    let security = Security::open(&pki, &directory, &at_rest, clock.clone()).unwrap();
    let mut config = ApiServerConfig {
        advertise: Some(([127, 0, 0, 1].into(), port)),
        connector: Some(Arc::new(
            DirectConnector::new(pki.cluster_ca().certificate_pem(), &pki.kubelet_client().unwrap()).unwrap(),
        )),
        ..ApiServerConfig::default()
    };
    security.configure(&mut config);
    let server = ApiServer::new(config, store, clock, Box::new(OsRng));
    security.attach(server.reader());
    server.start().await.unwrap();
    let inner = server.clone();
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        let mut server = inner.clone();
        request.extensions_mut().insert(Identity {
            user: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..Identity::default()
        });
        async move { tower::Service::call(&mut server, request).await }
    });
    let client = kube::Client::new(service, "default");
    println!("default roles written: {}", security.write_defaults(&client).await.unwrap());
    let tls = pki.server_tls().unwrap();
    let kubeconfig = pki.admin_kubeconfig(&format!("https://127.0.0.1:{port}")).unwrap();
    std::fs::write(directory.join("admin.conf"), kubeconfig).unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    println!("serving on {port}");
    server.serve(listener, tls).await;
}

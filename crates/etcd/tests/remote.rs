//! An outside etcd as the store: the same contract as the embedded store's, over a real connection; servers that fail; and
//! what cannot be used.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
#[path = "../../store/tests/contract/by_example.rs"]
mod by_example;

use std::sync::Arc;

use base::SystemClock;
use by_example::{get, put};
use etcd::remote::{Addresses, ConnectError, RemoteStore, Root};
use etcd::{EtcdServer, Settings};
use store::{Config, Kv, SimDisk, Store, Txn, WatchRequest};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An etcd of several servers over one store.
struct Etcd {
    store: Arc<Store>,
    server: EtcdServer,
    running: Vec<(String, CancellationToken, TaskTracker)>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.running.iter().for_each(|(_, stop, _)| stop.cancel());
    }
}

impl Etcd {
    async fn start(servers: usize) -> Self {
        let config = Config { operations_max: 10_000, ..Config::default() };
        let clock = Arc::new(SystemClock::new());
        let disk = Arc::new(SimDisk::new());
        let store = Arc::new(Store::open(config, disk, clock.clone(), Arc::new(store::NoPeers)).unwrap());
        let server = EtcdServer::new(store.clone(), Settings::default(), clock).await.unwrap();
        let mut etcd = Self { store, server, running: Vec::new() };
        for _ in 0..servers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            etcd.serve(listener);
        }
        etcd
    }

    fn serve(&mut self, listener: TcpListener) {
        let address = listener.local_addr().unwrap().to_string();
        let (stop, tracker, server) = (CancellationToken::new(), TaskTracker::new(), self.server.clone());
        let until = stop.clone();
        tracker.spawn(async move { server.serve(listener, None, until).await });
        tracker.close();
        self.running.push((address, stop, tracker));
    }

    /// Ends a server; its port is free afterwards.
    async fn end(&mut self, nth: usize) -> String {
        let (address, stop, tracker) = self.running.remove(nth);
        stop.cancel();
        tracker.wait().await;
        address
    }

    async fn connect(&self) -> RemoteStore {
        RemoteStore::connect(&self.addresses(), None, Root::new("")).await.unwrap()
    }

    fn addresses(&self) -> Addresses {
        let list: Vec<&str> = self.running.iter().map(|(address, _, _)| address.as_str()).collect();
        Addresses::parse(&format!("etcd://{}", list.join(","))).unwrap()
    }
}

async fn fresh() -> (Arc<dyn Kv>, Etcd) {
    let etcd = Etcd::start(1).await;
    let store = etcd.connect().await;
    (Arc::new(store), etcd)
}

whole_contract!(fresh);

#[tokio::test]
async fn the_next_server_is_asked_when_one_ends_and_a_watch_goes_on() {
    let mut etcd = Etcd::start(2).await;
    let remote = etcd.connect().await;
    let mut watch = remote.watch(WatchRequest { key: "a".into(), ..WatchRequest::default() }).await.unwrap();
    remote.txn(Txn::of(put("a", "1", 0))).await.unwrap();
    assert_eq!(watch.next_batch().await.unwrap().revision, 2);
    etcd.end(0).await;
    // While nobody watches.
    etcd.store.txn(Txn::of(put("a", "2", 0))).await.unwrap();
    assert_eq!(remote.range(get("a")).await.unwrap().kvs[0].value.as_ref(), b"2");
    remote.txn(Txn::of(put("a", "3", 0))).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&4) {
        seen.extend(watch.next_batch().await.unwrap().events.iter().map(|event| event.kv.mod_revision));
    }
    assert_eq!(seen, [3, 4]);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let mut etcd = Etcd::start(1).await;
    let remote = etcd.connect().await;
    let mut watch = remote.watch(WatchRequest { key: "a".into(), ..WatchRequest::default() }).await.unwrap();
    let address = etcd.end(0).await;
    let refused = remote.range(get("a")).await.unwrap_err().to_string();
    assert!(refused.starts_with(&format!("store unavailable: {address}: ")), "{refused}");
    assert!(refused.contains("refused"), "{refused}");
    etcd.serve(TcpListener::bind(&address).await.unwrap());
    remote.txn(Txn::of(put("a", "1", 0))).await.unwrap();
    assert_eq!(watch.next_batch().await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn whatever_another_cluster_answers_in_its_place_is_refused() {
    let mut etcd = Etcd::start(1).await;
    let remote = etcd.connect().await;
    let address = etcd.end(0).await;
    let mut other = Etcd::start(0).await;
    other.serve(TcpListener::bind(&address).await.unwrap());
    let refused = [
        remote.range(get("a")).await.err(),
        remote.txn(Txn::of(put("a", "1", 0))).await.err(),
        remote.compact(1).await.err(),
        remote.lease_grant(0, 60).await.err(),
        remote.leases().await.err(),
        remote.status().await.err(),
        remote.watch(WatchRequest { key: "a".into(), ..WatchRequest::default() }).await.err(),
    ];
    for error in refused {
        let text = error.unwrap().to_string();
        assert!(text.contains("it is another etcd cluster now"), "{text}");
    }
}

#[tokio::test]
async fn progress_tells_of_writes_that_the_watch_does_not_see() {
    let (remote, _etcd) = fresh().await;
    let mut watch = remote.watch(WatchRequest { key: "a".into(), ..WatchRequest::default() }).await.unwrap();
    remote.txn(Txn::of(put("b", "1", 0))).await.unwrap();
    watch.request_progress();
    let batch = watch.next_batch().await.unwrap();
    assert_eq!((batch.revision, batch.events.len()), (2, 0));
}

async fn refusal(text: &str) -> String {
    match RemoteStore::connect(&Addresses::parse(text).unwrap(), None, Root::new("")).await {
        Ok(_) => panic!("connected"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_named_with_a_remedy() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = refusal(&format!("etcd://{nobody},{nobody}")).await;
    assert!(text.starts_with(&format!("the datastore cannot be used: {nobody}: ")), "{text}");
    assert!(text.contains("refused") && text.contains("etcdctl endpoint health"), "{text}");
    let text = refusal("etcds://127.0.0.1:1").await;
    assert_eq!(
        text,
        "etcds://127.0.0.1:1 speaks TLS, but nothing says whose certificates to believe; give --datastore-cafile"
    );
    let (one, other) = (Etcd::start(1).await, Etcd::start(1).await);
    let both = format!("etcd://{},{}", one.running[0].0, other.running[0].0);
    let refused = RemoteStore::connect(&Addresses::parse(&both).unwrap(), None, Root::new("")).await.err();
    assert!(matches!(refused, Some(ConnectError::Clusters(_))), "{refused:?}");
}

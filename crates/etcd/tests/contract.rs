//! The contract that etcd's clients count on, over a real connection: transactions, watch order, compaction, leases, error
//! texts, snapshots, plain HTTP.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use base::SystemClock;
use bytes::Bytes;
use etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::proto::etcdserverpb::request_op::Request as OpRequest;
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{self as pb, kv_client::KvClient, lease_client::LeaseClient};
use etcd::{EtcdServer, Settings};
use futures::FutureExt as _;
use store::{Config, MemberInfo, SimDisk, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

struct Server {
    address: String,
    channel: Channel,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn start() -> Server {
    start_with(Arc::new(SimDisk::new())).await
}

async fn start_with(disk: Arc<SimDisk>) -> Server {
    start_as(disk, Settings::default()).await
}

async fn start_as(disk: Arc<SimDisk>, settings: Settings) -> Server {
    let config = Config { operations_max: 10_000, request_bytes_max: 3 << 19, ..Config::default() };
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(Store::open(config, disk, clock.clone(), Arc::new(store::NoPeers)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = EtcdServer::new(store, settings, clock).await.unwrap();
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move { server.serve(listener, None, until).await });
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    Server { address, channel, stop }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    }
}

fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

fn op(request: OpRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn refused<T: std::fmt::Debug>(result: Result<tonic::Response<T>, Status>, code: Code, text: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn transactions_nest_and_answer_each_operation_in_kind() {
    let server = start().await;
    let mut kv = KvClient::new(server.channel.clone());
    let created = |key: &str| pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let inner = pb::TxnRequest {
        compare: vec![created("b")],
        success: vec![op(OpRequest::RequestPut(put("b", "2")))],
        failure: vec![op(OpRequest::RequestRange(range("b")))],
    };
    let outer = pb::TxnRequest {
        compare: vec![created("a")],
        success: vec![op(OpRequest::RequestPut(put("a", "1"))), op(OpRequest::RequestTxn(inner))],
        failure: vec![op(OpRequest::RequestRange(range("a")))],
    };
    let first = kv.txn(outer.clone()).await.unwrap().into_inner();
    assert!(first.succeeded);
    assert_eq!(first.header.unwrap().revision, 2);
    assert!(
        matches!(first.responses[1].response, Some(pb::response_op::Response::ResponseTxn(ref nested)) if nested.succeeded)
    );
    let second = kv.txn(outer).await.unwrap().into_inner();
    assert!(!second.succeeded);
    let Some(pb::response_op::Response::ResponseRange(ref found)) = second.responses[0].response else {
        panic!("no range")
    };
    assert_eq!((found.kvs[0].value.as_ref(), found.kvs[0].version, found.count), (b"1".as_ref(), 1, 1));
}

#[tokio::test]
async fn errors_have_etcds_codes_and_texts() {
    let server = start().await;
    let mut kv = KvClient::new(server.channel.clone());
    refused(kv.range(range("")).await, Code::InvalidArgument, "etcdserver: key is not provided");
    refused(kv.put(put("", "x")).await, Code::InvalidArgument, "etcdserver: key is not provided");
    let no_lease = pb::PutRequest { lease: 77, ..put("a", "1") };
    refused(kv.put(no_lease).await, Code::NotFound, "etcdserver: requested lease not found");
    let ignore = pb::PutRequest { ignore_value: true, ..put("a", "") };
    refused(kv.put(ignore.clone()).await, Code::InvalidArgument, "etcdserver: key not found");
    let both = pb::PutRequest { ignore_value: true, ..put("a", "1") };
    refused(kv.put(both).await, Code::InvalidArgument, "etcdserver: value is provided");
    let future = pb::RangeRequest { revision: 99, ..range("a") };
    refused(kv.range(future).await, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    let many = pb::TxnRequest { success: vec![op(OpRequest::RequestRange(range("a"))); 129], ..Default::default() };
    refused(kv.txn(many).await, Code::InvalidArgument, "etcdserver: too many operations in txn request");
    let twice = pb::TxnRequest { success: vec![op(OpRequest::RequestPut(put("a", "1"))); 2], ..Default::default() };
    refused(kv.txn(twice).await, Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
    let large = "x".repeat((3 << 19) + 1);
    refused(kv.put(put("a", &large)).await, Code::InvalidArgument, "etcdserver: request is too large");
    for value in ["1", "2", "3"] {
        kv.put(put("a", value)).await.unwrap();
    }
    let compact = |revision| pb::CompactionRequest { revision, physical: true };
    kv.compact(compact(3)).await.unwrap();
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    refused(kv.compact(compact(3)).await, Code::OutOfRange, compacted);
    refused(kv.range(pb::RangeRequest { revision: 2, ..range("a") }).await, Code::OutOfRange, compacted);
    let mut lease = LeaseClient::new(server.channel.clone());
    let revoke = lease.lease_revoke(pb::LeaseRevokeRequest { id: 5 }).await;
    refused(revoke, Code::NotFound, "etcdserver: requested lease not found");
    let mut cluster = pb::cluster_client::ClusterClient::new(server.channel.clone());
    let promote = cluster.member_promote(pb::MemberPromoteRequest { id: 5 }).await;
    refused(promote, Code::NotFound, "etcdserver: member not found");
    let mut auth = pb::auth_client::AuthClient::new(server.channel.clone());
    let login = auth.authenticate(pb::AuthenticateRequest { name: "root".into(), password: "x".into() }).await;
    refused(login, Code::FailedPrecondition, "etcdserver: authentication is not enabled");
}

/// A watch stream and what was sent to it.
struct WatchStream {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: tonic::Streaming<pb::WatchResponse>,
}

impl WatchStream {
    async fn open(server: &Server) -> Self {
        let (requests, mut inbox) = mpsc::channel(8);
        let stream = futures::stream::poll_fn(move |context| inbox.poll_recv(context));
        let mut client = pb::watch_client::WatchClient::new(server.channel.clone());
        let responses = client.watch(stream).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn send(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn watch(&mut self, create: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(create)).await;
        self.next().await
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.responses.message().await.unwrap().unwrap()
    }
}

fn all_from(start_revision: i64) -> pb::WatchCreateRequest {
    let (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
    pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() }
}

#[tokio::test]
async fn a_stream_carries_many_watches_in_order_with_progress_and_cancellation() {
    let server = start().await;
    let mut kv = KvClient::new(server.channel.clone());
    kv.put(put("a", "1")).await.unwrap();
    let mut stream = WatchStream::open(&server).await;
    let created = stream.watch(all_from(0)).await;
    assert_eq!((created.created, created.watch_id, created.header.unwrap().revision), (true, 0, 2));
    let filtered = pb::WatchCreateRequest { filters: vec![0], prev_kv: true, watch_id: 7, ..all_from(2) };
    assert_eq!(stream.watch(filtered.clone()).await.watch_id, 7);
    let duplicate = stream.watch(filtered).await;
    assert_eq!((duplicate.created, duplicate.canceled, duplicate.watch_id), (true, true, -1));
    assert_eq!(duplicate.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    kv.put(put("a", "2")).await.unwrap();
    let event = stream.next().await;
    assert_eq!((event.watch_id, event.events[0].kv.as_ref().unwrap().mod_revision), (0, 3));
    kv.delete_range(pb::DeleteRangeRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    let (x, y) = (stream.next().await, stream.next().await);
    let of = |id| [&x, &y].into_iter().find(|response| response.watch_id == id).unwrap().events.clone();
    assert_eq!((of(0).len(), of(7).len()), (1, 1));
    assert_eq!(of(7)[0].r#type, 1);
    assert_eq!(of(7)[0].prev_kv.as_ref().unwrap().value.as_ref(), b"2");
    stream.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (-1, 4, 0));
    stream.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 7 })).await;
    let canceled = stream.next().await;
    assert_eq!((canceled.canceled, canceled.watch_id, canceled.compact_revision), (true, 7, 0));
    kv.put(put("b", "1")).await.unwrap();
    assert_eq!(stream.next().await.watch_id, 0);
}

#[tokio::test]
async fn a_watch_of_the_compacted_past_is_created_and_then_canceled() {
    let server = start().await;
    let mut kv = KvClient::new(server.channel.clone());
    for value in ["1", "2", "3"] {
        kv.put(put("a", value)).await.unwrap();
    }
    kv.compact(pb::CompactionRequest { revision: 4, physical: false }).await.unwrap();
    let mut stream = WatchStream::open(&server).await;
    let created = stream.watch(all_from(2)).await;
    assert!(created.created && !created.canceled);
    let canceled = stream.next().await;
    assert_eq!((canceled.canceled, canceled.compact_revision, canceled.watch_id), (true, 4, created.watch_id));
    let negative = stream.watch(all_from(-1)).await;
    assert_eq!(negative.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    let mut nothing = all_from(0);
    (nothing.key, nothing.range_end) = ("b".into(), "a".into());
    assert_eq!(stream.watch(nothing).await.cancel_reason, "mvcc: watcher range is empty");
}

#[tokio::test]
async fn large_events_come_in_fragments_for_those_who_ask() {
    let server = start().await;
    let mut kv = KvClient::new(server.channel.clone());
    let mut stream = WatchStream::open(&server).await;
    stream.watch(pb::WatchCreateRequest { fragment: true, prev_kv: true, ..all_from(0) }).await;
    let value = "x".repeat(600 << 10);
    let ops = ["a", "b"].map(|key| op(OpRequest::RequestPut(put(key, &value)))).to_vec();
    kv.txn(pb::TxnRequest { success: ops.clone(), ..Default::default() }).await.unwrap();
    assert_eq!(stream.next().await.events.len(), 2);
    kv.txn(pb::TxnRequest { success: ops, ..Default::default() }).await.unwrap();
    let (first, second) = (stream.next().await, stream.next().await);
    assert_eq!((first.fragment, first.events.len(), second.fragment, second.events.len()), (true, 1, false, 1));
}

#[tokio::test]
async fn a_lease_takes_its_keys_with_it() {
    let server = start().await;
    let mut kv = KvClient::new(server.channel.clone());
    let mut lease = LeaseClient::new(server.channel.clone());
    let granted = lease.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 }).await.unwrap().into_inner();
    assert_eq!(granted.ttl, 2);
    let id = granted.id;
    kv.put(pb::PutRequest { lease: id, ..put("a", "1") }).await.unwrap();
    let asks = futures::stream::iter([pb::LeaseKeepAliveRequest { id }, pb::LeaseKeepAliveRequest { id: id + 1 }]);
    let mut renewed = lease.lease_keep_alive(asks).await.unwrap().into_inner();
    assert_eq!(renewed.message().await.unwrap().unwrap().ttl, 2);
    assert_eq!(renewed.message().await.unwrap().unwrap().ttl, 0);
    let ask = pb::LeaseTimeToLiveRequest { id, keys: true };
    let lives = lease.lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!((lives.granted_ttl, lives.keys), (2, vec![Bytes::from_static(b"a")]));
    let again = lease.lease_grant(pb::LeaseGrantRequest { ttl: 10, id }).await;
    refused(again, Code::FailedPrecondition, "etcdserver: lease already exists");
    lease.lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap();
    assert_eq!(kv.range(range("a")).await.unwrap().into_inner().count, 0);
    assert_eq!(lease.lease_time_to_live(ask).await.unwrap().into_inner().ttl, -1);
}

/// Found by etcd's robustness tests: a client that takes up a broken watch behind the last notification got what it never
/// asked for.
#[tokio::test]
async fn a_watch_of_the_future_says_nothing_before_its_begin() {
    let progress_interval = Duration::from_millis(20);
    let settings = Settings { progress_interval, ..Settings::default() };
    let server = start_as(Arc::new(SimDisk::new()), settings).await;
    let mut kv = KvClient::new(server.channel.clone());
    let mut stream = WatchStream::open(&server).await;
    let from = |start_revision| pb::WatchCreateRequest { progress_notify: true, ..all_from(start_revision) };
    assert!(stream.watch(from(4)).await.created);
    stream.send(RequestUnion::CreateRequest(from(0))).await;
    let mut heard = 0;
    while heard < 4 {
        let response = stream.next().await;
        assert_eq!(response.watch_id, 1, "{response:?}");
        heard += i32::from(!response.created);
    }
    for value in ["1", "2", "3"] {
        kv.put(put("a", value)).await.unwrap();
    }
    loop {
        let response = stream.next().await;
        let revision = response.header.unwrap().revision;
        assert!(response.watch_id == 1 || revision >= 3, "{revision}");
        if response.watch_id == 0 && response.events.is_empty() {
            break;
        }
    }
}

/// Found by etcd's robustness tests: an answer that named the newest revision by then could not be put in order.
#[tokio::test]
async fn a_lease_answer_names_the_revision_at_which_it_took_effect() {
    let server = start().await;
    let (mut kv, mut lease) = (KvClient::new(server.channel.clone()), LeaseClient::new(server.channel.clone()));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut kv = kv.clone();
            let key = format!("other{writer}");
            AbortOnDropHandle::new(tokio::spawn(async move { while kv.put(put(&key, "x")).await.is_ok() {} }))
        })
        .collect();
    for id in 1..40 {
        let granted = lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id }).await.unwrap().into_inner();
        let attached = kv.put(pb::PutRequest { lease: id, ..put("a", "1") }).await.unwrap().into_inner();
        let revoked = lease.lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap().into_inner();
        let revision = |header: Option<pb::ResponseHeader>| header.unwrap().revision;
        let gone_at = revision(revoked.header);
        assert!(revision(granted.header) < revision(attached.header));
        let at = |revision| pb::RangeRequest { revision, ..range("a") };
        let counts = [
            kv.range(at(gone_at - 1)).await.unwrap().into_inner().count,
            kv.range(at(gone_at)).await.unwrap().into_inner().count,
        ];
        assert_eq!(counts, [1, 0], "lease {id} says that it ended at {gone_at}");
    }
    drop(writers);
}

/// Found by etcd's robustness tests: a member that took another's place answered from nothing until it had the state.
#[tokio::test]
async fn a_member_is_ready_only_when_it_has_what_the_cluster_agreed_on() {
    let Settings { name, client_urls, .. } = Settings::default();
    let member = |id| MemberInfo { id, name: name.clone(), client_urls: client_urls.clone(), ..MemberInfo::default() };
    let open = async |ids: &[u64]| {
        let initial_members = ids.iter().copied().map(member).collect();
        let config = Config { member_id: Some(1), initial_members, ..Config::default() };
        let clock = Arc::new(SystemClock::new());
        let store = Store::open(config, Arc::new(SimDisk::new()), clock.clone(), Arc::new(store::NoPeers)).unwrap();
        EtcdServer::new(Arc::new(store), Settings::default(), clock).await.unwrap()
    };
    open(&[1]).await.publish().await;
    let unheard = open(&[1, 2, 3]).await;
    assert!(unheard.publish().now_or_never().is_none(), "ready without the others");
}

#[tokio::test]
async fn a_streamed_range_puts_together_what_a_range_gives() {
    let server = start().await;
    let mut kv = KvClient::new(server.channel.clone());
    let value = "x".repeat(300 << 10);
    for key in ["a", "b", "c", "d", "e"] {
        kv.put(put(key, &value)).await.unwrap();
    }
    // A target without an order is none: it is streamed, and of unary ranges it sorts what was chosen by key.
    let by_version = pb::range_request::SortTarget::Version as i32;
    let request = pb::RangeRequest { range_end: "z".into(), limit: 4, sort_target: by_version, ..range("a") };
    let whole = kv.range(request.clone()).await.unwrap().into_inner();
    let mut parts = kv.range_stream(request).await.unwrap().into_inner();
    let (mut kvs, mut count) = (Vec::new(), 0);
    let mut last = None;
    while let Some(part) = parts.message().await.unwrap() {
        count += 1;
        let part = part.range_response.unwrap();
        kvs.extend(part.kvs);
        last = Some((part.header, part.more, part.count));
    }
    assert_eq!((kvs, last), (whole.kvs, Some((whole.header, true, 5))));
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_saved_snapshot_brings_everything_back() {
    let server = start().await;
    let mut kv = KvClient::new(server.channel.clone());
    for value in ["1", "2"] {
        kv.put(put("a", value)).await.unwrap();
    }
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(server.channel.clone());
    let mut parts = maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let mut saved = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        saved.extend_from_slice(&part.blob);
    }
    let hash = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    let content = etcd::snapshot::read_snapshot(std::io::Cursor::new(saved)).unwrap();
    let disk = Arc::new(SimDisk::new());
    Store::fill(&*disk, content.clone()).unwrap();
    assert!(Store::fill(&*disk, content).is_err(), "a store is never overwritten");
    let restored = start_with(disk).await;
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(restored.channel.clone());
    let same = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_eq!((same.hash, same.hash_revision), (hash.hash, hash.hash_revision));
    assert_ne!(same.header.unwrap().cluster_id, hash.header.unwrap().cluster_id);
    let mut kv = KvClient::new(restored.channel.clone());
    let old = kv.range(pb::RangeRequest { revision: 2, ..range("a") }).await;
    refused(old, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(kv.put(put("a", "3")).await.unwrap().into_inner().header.unwrap().revision, 4);
}

#[tokio::test]
async fn probes_are_answered_on_the_same_port() {
    let server = start().await;
    let check = async |path: &str, status: &str, body: &str| {
        let answer = http(&server, &format!("GET {path}"), "", "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(body), "{path}: {answer}");
    };
    check("/health", "200", r#"{"health":"true","reason":""}"#).await;
    check("/livez", "200", "ok\n").await;
    check("/readyz?verbose&exclude=non_learner", "200", "[+]linearizable_read ok\nok\n").await;
    check("/version", "200", r#""etcdserver":"3.7.3""#).await;
    check("/metrics", "200", "etcd_server_has_leader 1\n").await;
    check("/other", "404", "404 page not found").await;
}

/// One request of HTTP/1.1; the answer until the server ends it, or until it holds `last`.
async fn http(server: &Server, head: &str, body: &str, last: &str) -> String {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let length = body.len();
    let request = format!("{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let text = |answer: &[u8]| String::from_utf8_lossy(answer).into_owned();
    while stream.read_buf(&mut answer).await.unwrap() > 0 && (last.is_empty() || !text(&answer).contains(last)) {}
    text(&answer)
}

#[tokio::test]
async fn who_speaks_no_grpc_is_answered_in_json() {
    let server = start().await;
    let check = async |head: &str, body: &str, status: &str, found: &str| {
        let answer = http(&server, head, body, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(found), "{head} {body}: {answer}");
    };
    check("POST /v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#, "200", r#""revision":"2""#).await;
    let kvs =
        r#""kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}],"count":"1"}"#;
    check("POST /v3/kv/range", r#"{"key":"YQ=="}"#, "200", kvs).await;
    check("POST /v3beta/kv/range", r#"{"key":"YQ=="}"#, "200", kvs).await;
    let txn =
        r#"{"compare":[{"target":"VALUE","key":"YQ==","value":"MQ=="}],"success":[{"requestRange":{"key":"YQ=="}}]}"#;
    check("POST /v3/kv/txn", txn, "200", r#""succeeded":true,"responses":[{"response_range":"#).await;
    check("POST /v3/kv/put", "", "400", r#"{"code":3,"message":"etcdserver: key is not provided"}"#).await;
    check("POST /v3/kv/put", "nonsense", "400", r#"{"code":3,"#).await;
    let large = format!(r#"{{"key":"YQ==","value":"{}"}}"#, "A".repeat(5 << 20));
    check("POST /v3/kv/put", &large, "429", r#"{"code":8,"#).await;
    check("POST /v3/lease/revoke", r#"{"ID":"5"}"#, "404", "etcdserver: requested lease not found").await;
    let lease = r#"{"ID":"7","TTL":"100"}"#;
    check("POST /v3/lease/grant", lease, "200", r#""ID":"7","TTL":"100"}"#).await;
    check("POST /v3/lease/keepalive", r#"{"ID":"7"}{"ID":"7"}"#, "200", r#"{"result":{"header":"#).await;
    check("POST /v3/nosuch", "{}", "404", r#"{"code":5,"message":"Not Found"}"#).await;
    check("GET /v3/kv/range", "", "501", r#"{"code":12,"message":"Method Not Allowed"}"#).await;
    check("OPTIONS /v3/kv/range", "", "200", "access-control-allow-origin: *").await;
    let watch = http(&server, "POST /v3/watch", r#"{"create_request":{"key":"dw=="}}"#, r#""create_revision":"#);
    let mut kv = KvClient::new(server.channel.clone());
    // What comes before the watch is there, it misses.
    let write = async {
        loop {
            kv.put(put("w", "1")).await.unwrap();
        }
    };
    let watched = tokio::select! {
        watched = watch => watched,
        () = write => unreachable!("writes for ever"),
    };
    assert!(watched.contains(r#"{"result":{"header":"#) && watched.contains(r#""created":true}}"#), "{watched}");
    assert!(watched.contains(r#""kv":{"key":"dw==","create_revision":"#), "{watched}");

    let settings = Settings { json_gateway: false, ..Settings::default() };
    let without = start_as(Arc::new(SimDisk::new()), settings).await;
    assert!(http(&without, "POST /v3/kv/put", "{}", "").await.starts_with("HTTP/1.1 404"));
}

//! Access control over a real connection: what users may do, with tokens and by the rules of the moment.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use base::SystemClock;
use bytes::Bytes;
use etcd::proto::authpb::Permission;
use etcd::proto::authpb::permission::Type;
use etcd::proto::etcdserverpb::auth_client::AuthClient;
use etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::lease_client::LeaseClient;
use etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd::proto::etcdserverpb::watch_client::WatchClient;
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{self as pb};
use etcd::{AccessSettings, EtcdServer, JwtSettings, Settings};
use store::{Config, Kv as _, NoPeers, Op, Put, SimDisk, Store, Txn};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

struct Server {
    store: Arc<Store>,
    channel: Channel,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sends a token with every request.
#[derive(Clone)]
struct As(Option<String>);

impl Interceptor for As {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        Ok(request)
    }
}

type Client = InterceptedService<Channel, As>;

impl Server {
    async fn start(disk: &Arc<SimDisk>, jwt: Option<JwtSettings>) -> Self {
        let clock = Arc::new(SystemClock::new());
        let store = Store::open(Config::default(), disk.clone(), clock.clone(), Arc::new(NoPeers)).unwrap();
        let store = Arc::new(store);
        // Cheap hashes: what they cost is not what is tested.
        let access = AccessSettings { jwt, bcrypt_cost: 4, ..AccessSettings::default() };
        let settings = Settings { access, ..Settings::default() };
        let server = EtcdServer::new(store.clone(), settings, clock).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let until = stop.clone();
        tokio::spawn(async move { server.serve(listener, None, until).await });
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Self { store, channel, stop }
    }

    fn client(&self, token: &Option<String>) -> Client {
        InterceptedService::new(self.channel.clone(), As(token.clone()))
    }

    fn auth(&self, token: &Option<String>) -> AuthClient<Client> {
        AuthClient::new(self.client(token))
    }

    fn kv(&self, token: &Option<String>) -> KvClient<Client> {
        KvClient::new(self.client(token))
    }

    async fn login(&self, name: &str) -> Option<String> {
        let request = pb::AuthenticateRequest { name: name.into(), password: format!("{name}'s password") };
        Some(self.auth(&None).authenticate(request).await.unwrap().into_inner().token)
    }

    /// Users root and ann; ann has the role `a`, which permits reading and writing what begins with `a/`. On.
    async fn set_up(&self) {
        let mut auth = self.auth(&None);
        for name in ["root", "ann"] {
            let password = format!("{name}'s password");
            let user = pb::AuthUserAddRequest { name: name.into(), password, ..Default::default() };
            auth.user_add(user).await.unwrap();
        }
        auth.role_add(pb::AuthRoleAddRequest { name: "a".into() }).await.unwrap();
        auth.role_grant_permission(grant("a/", "a0")).await.unwrap();
        for (user, role) in [("root", "root"), ("ann", "a")] {
            auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() }).await.unwrap();
        }
        auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    }
}

fn grant(key: &'static str, end: &'static str) -> pb::AuthRoleGrantPermissionRequest {
    let perm = Permission { perm_type: Type::Readwrite as i32, key: key.into(), range_end: end.into() };
    pb::AuthRoleGrantPermissionRequest { name: "a".into(), perm: Some(perm) }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: Bytes::from("v"), ..Default::default() }
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

fn refused<T: std::fmt::Debug>(result: Result<Response<T>, Status>, code: Code, text: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}

const DENIED: &str = "etcdserver: permission denied";
const NOBODY: &str = "etcdserver: user name is empty";
const BAD_TOKEN: &str = "etcdserver: invalid auth token";

#[tokio::test]
async fn users_may_do_what_their_roles_permit() {
    let server = Server::start(&Arc::new(SimDisk::new()), None).await;
    server.kv(&None).put(put("b")).await.unwrap();
    server.set_up().await;
    let (root, ann) = (server.login("root").await, server.login("ann").await);
    server.kv(&ann).put(put("a/1")).await.unwrap();
    assert_eq!(server.kv(&ann).range(get("a/1")).await.unwrap().into_inner().count, 1);
    refused(server.kv(&ann).put(put("b")).await, Code::PermissionDenied, DENIED);
    refused(server.kv(&ann).range(get("b")).await, Code::PermissionDenied, DENIED);
    let compare = pb::Compare { key: "b".into(), ..Default::default() };
    let peek = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    refused(server.kv(&ann).txn(peek.clone()).await, Code::PermissionDenied, DENIED);
    server.kv(&root).txn(peek).await.unwrap();
    refused(server.kv(&None).range(get("a/1")).await, Code::InvalidArgument, NOBODY);
    let forged = Some("rubbish".to_owned());
    refused(server.kv(&forged).range(get("a/1")).await, Code::Unauthenticated, BAD_TOKEN);
    // What is for administrators alone, and what is for anybody known.
    let compact = pb::CompactionRequest { revision: 2, physical: false };
    refused(server.kv(&ann).compact(compact).await, Code::PermissionDenied, DENIED);
    let mut cluster = ClusterClient::new(server.client(&ann));
    refused(cluster.member_remove(pb::MemberRemoveRequest { id: 1 }).await, Code::PermissionDenied, DENIED);
    cluster.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap();
    let mut maintenance = MaintenanceClient::new(server.client(&ann));
    refused(maintenance.snapshot(pb::SnapshotRequest {}).await, Code::PermissionDenied, DENIED);
    refused(server.auth(&ann).auth_disable(pb::AuthDisableRequest {}).await, Code::PermissionDenied, DENIED);
    refused(server.auth(&ann).user_list(pb::AuthUserListRequest {}).await, Code::PermissionDenied, DENIED);
    let status = server.auth(&None).auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.enabled, status.auth_revision), (true, 7));
    // The process itself, an API server's, is not asked who it is.
    let own = Op::Put(Put { key: "b".into(), value: "x".into(), ..Put::default() });
    server.store.txn(Txn::of(own)).await.unwrap();
}

#[tokio::test]
async fn a_right_ends_with_what_takes_it_away() {
    let disk = Arc::new(SimDisk::new());
    let server = Server::start(&disk, None).await;
    server.set_up().await;
    let (root, ann) = (server.login("root").await, server.login("ann").await);
    // Writes go on while the right is taken: none is done after that was answered.
    let (mut writing, began) = (server.kv(&ann), Arc::new(tokio::sync::Notify::new()));
    let begin = began.clone();
    let writes = tokio::spawn(async move {
        loop {
            match writing.put(put("a/1")).await {
                Ok(_) => begin.notify_one(),
                Err(status) => return status,
            }
        }
    });
    began.notified().await;
    let revoke = pb::AuthUserRevokeRoleRequest { name: "ann".into(), role: "a".into() };
    let revoked = server.auth(&root).user_revoke_role(revoke).await.unwrap().into_inner();
    let status = writes.await.unwrap();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, DENIED));
    let newest = server.kv(&root).range(get("a/1")).await.unwrap().into_inner();
    assert!(newest.kvs[0].mod_revision <= revoked.header.unwrap().revision);
    // Another password ends the tokens; so does the end of access control. All of it survives a restart.
    let password = pb::AuthUserChangePasswordRequest {
        name: "ann".into(),
        password: "ann's password".into(),
        ..Default::default()
    };
    server.auth(&root).user_change_password(password).await.unwrap();
    refused(server.kv(&ann).range(get("a/1")).await, Code::Unauthenticated, BAD_TOKEN);
    server.store.close();
    drop(server);
    let server = Server::start(&disk, None).await;
    refused(server.kv(&None).range(get("a/1")).await, Code::InvalidArgument, NOBODY);
    let ann = server.login("ann").await;
    refused(server.kv(&ann).range(get("a/1")).await, Code::PermissionDenied, DENIED);
    server.auth(&root).auth_disable(pb::AuthDisableRequest {}).await.unwrap();
    server.kv(&None).range(get("a/1")).await.unwrap();
}

#[tokio::test]
async fn a_lease_is_of_whoever_may_write_its_keys() {
    let server = Server::start(&Arc::new(SimDisk::new()), None).await;
    server.set_up().await;
    let (root, ann) = (server.login("root").await, server.login("ann").await);
    let mut leases = LeaseClient::new(server.client(&ann));
    let grant = pb::LeaseGrantRequest { ttl: 1000, id: 7 };
    refused(LeaseClient::new(server.client(&None)).lease_grant(grant).await, Code::InvalidArgument, NOBODY);
    leases.lease_grant(grant).await.unwrap();
    server.kv(&root).put(pb::PutRequest { lease: 7, ..put("b") }).await.unwrap();
    let attach = pb::PutRequest { lease: 7, ..put("a/1") };
    refused(server.kv(&ann).put(attach).await, Code::PermissionDenied, DENIED);
    refused(leases.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await, Code::PermissionDenied, DENIED);
    let look = |keys| pb::LeaseTimeToLiveRequest { id: 7, keys };
    leases.lease_time_to_live(look(false)).await.unwrap();
    refused(leases.lease_time_to_live(look(true)).await, Code::PermissionDenied, DENIED);
    refused(leases.lease_leases(pb::LeaseLeasesRequest {}).await, Code::PermissionDenied, DENIED);
    let ask = futures::stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
    let mut renewed = leases.lease_keep_alive(ask).await.unwrap().into_inner();
    assert_eq!(renewed.message().await.unwrap_err().code(), Code::PermissionDenied);
    LeaseClient::new(server.client(&root)).lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await.unwrap();
}

#[tokio::test]
async fn a_watch_needs_the_right_to_read() {
    let server = Server::start(&Arc::new(SimDisk::new()), None).await;
    server.set_up().await;
    let ann = server.login("ann").await;
    let create = |key: &'static str| {
        let request = pb::WatchCreateRequest { key: key.into(), ..Default::default() };
        pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
    };
    for (token, key, reason) in [
        (&ann, "a/1", ""),
        (&ann, "b", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
        (&None, "a/1", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
    ] {
        // The stream stays open: its end would end the watch.
        let (requests, open) = tokio::sync::mpsc::channel(1);
        requests.send(create(key)).await.unwrap();
        let requests_end = futures::stream::unfold(open, |mut open| async { Some((open.recv().await?, open)) });
        let mut watch = WatchClient::new(server.client(token)).watch(requests_end).await.unwrap().into_inner();
        let answer = watch.message().await.unwrap().unwrap();
        assert_eq!((answer.created, answer.cancel_reason.as_str()), (true, reason));
        drop(requests);
    }
}

#[tokio::test]
async fn a_signed_token_is_of_the_rules_of_its_time() {
    let settings =
        JwtSettings { method: "HS256".into(), private_key: Some(b"secret".to_vec()), ..JwtSettings::default() };
    let server = Server::start(&Arc::new(SimDisk::new()), Some(settings)).await;
    server.set_up().await;
    let (root, ann) = (server.login("root").await, server.login("ann").await);
    server.kv(&ann).put(put("a/1")).await.unwrap();
    server.auth(&root).role_grant_permission(grant("b", "")).await.unwrap();
    refused(server.kv(&ann).put(put("a/1")).await, Code::InvalidArgument, "etcdserver: revision of auth store is old");
    let ann = server.login("ann").await;
    server.kv(&ann).put(put("b")).await.unwrap();
}

#[tokio::test]
async fn who_has_no_password_gets_no_token() {
    let server = Server::start(&Arc::new(SimDisk::new()), None).await;
    let ask = |name: &str, password: &str| pb::AuthenticateRequest { name: name.into(), password: password.into() };
    let text = "etcdserver: authentication is not enabled";
    refused(server.auth(&None).authenticate(ask("ann", "x")).await, Code::FailedPrecondition, text);
    let user = pb::AuthUserAddRequest { name: "ann".into(), password: "x".repeat(73), ..Default::default() };
    refused(server.auth(&None).user_add(user).await, Code::Unknown, "bcrypt: password length exceeds 72 bytes");
    server.set_up().await;
    let text = "etcdserver: authentication failed, invalid user ID or password";
    refused(server.auth(&None).authenticate(ask("ann", "wrong")).await, Code::InvalidArgument, text);
    refused(server.auth(&None).authenticate(ask("nobody", "x")).await, Code::InvalidArgument, text);
}

//! Three members of `holdfast etcd` lose their leader by a kill, grow by one and shrink again; and a right that one of them takes away
//! is gone on all.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use etcd::proto::authpb::Permission;
use etcd::proto::authpb::permission::Type;
use etcd::proto::etcdserverpb::auth_client::AuthClient;
use etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd::proto::etcdserverpb::{self as pb};
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::process::{Place, Running, eventually, free_port, holdfast};

/// A member of `holdfast etcd`.
struct Member {
    name: String,
    client: String,
    peer: String,
    directory: PathBuf,
}

impl Member {
    fn new(place: &Place, name: &str) -> Self {
        let url = || format!("http://127.0.0.1:{}", free_port());
        Self { name: name.to_owned(), client: url(), peer: url(), directory: place.0.join(name) }
    }

    fn start(&self, cluster: &str, state: &str) -> Running {
        let mut command = holdfast(&["etcd", "--name", &self.name, "--initial-cluster-state", state]);
        command.args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client]);
        command.args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer]);
        // What a password's hash costs is not what is tested.
        command.args(["--initial-cluster", cluster, "--bcrypt-cost", "4"]).arg("--data-dir").arg(&self.directory);
        Running::start(command, &self.directory.with_extension("log"))
    }

    fn channel(&self) -> Channel {
        Endpoint::from_shared(self.client.clone()).unwrap().connect_lazy()
    }

    async fn put(&self, key: u32) -> Option<()> {
        let key = Bytes::from(format!("key-{key:04}"));
        let put = pb::PutRequest { key, value: Bytes::from_static(b"v"), ..Default::default() };
        KvClient::new(self.channel()).put(put).await.ok().map(|_| ())
    }

    /// How many keys it has; `serializable`: by itself.
    async fn count(&self, serializable: bool) -> Option<i64> {
        let (key, range_end) = (Bytes::from_static(b"key-"), Bytes::from_static(b"key."));
        let range = pb::RangeRequest { key, range_end, count_only: true, serializable, ..Default::default() };
        Some(KvClient::new(self.channel()).range(range).await.ok()?.into_inner().count)
    }

    async fn leads(&self) -> bool {
        let status = MaintenanceClient::new(self.channel()).status(pb::StatusRequest::default()).await;
        status.is_ok_and(|status| {
            let status = status.into_inner();
            status.header.is_some_and(|header| header.member_id == status.leader)
        })
    }
}

fn initial_cluster(members: &[&Member]) -> String {
    members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect::<Vec<_>>().join(",")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_lose_their_leader_and_grow_and_shrink() {
    let place = Place::new("etcd");
    let members = ["m1", "m2", "m3"].map(|name| Member::new(&place, name));
    let cluster = initial_cluster(&members.each_ref());
    let mut running = members.each_ref().map(|member| Some(member.start(&cluster, "new")));
    let leader = eventually("a leader", async || {
        for (at, member) in members.iter().enumerate() {
            if member.leads().await {
                return Some(at);
            }
        }
        None
    });
    let leader = leader.await;
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    for key in 0..50 {
        eventually("a write through a follower", async || members[other].put(key).await).await;
    }
    running[leader] = None;
    for key in 50..100 {
        eventually("a write after the leader was killed", async || members[other].put(key).await).await;
    }
    assert_eq!(eventually("a read", async || members[third].count(false).await).await, 100);
    running[leader] = Some(members[leader].start(&cluster, "new"));
    eventually("catching up", async || (members[leader].count(true).await? == 100).then_some(())).await;
    grow_and_shrink(&place, &members).await;
    let ended = running[third].take().unwrap().end_by_term();
    assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()), "as an etcd, it ends by the signal that ended it");
    assert_eq!(eventually("a read without the one that ended", async || members[other].count(false).await).await, 100);
}

async fn grow_and_shrink(place: &Place, members: &[Member; 3]) {
    let added = Member::new(place, "m4");
    let mut client = ClusterClient::new(members[0].channel());
    let add = pb::MemberAddRequest { peer_urls: vec![added.peer.clone()], is_learner: true };
    let id = client.member_add(add).await.unwrap().into_inner().member.unwrap().id;
    let [m1, m2, m3] = members.each_ref();
    let mut fourth = added.start(&initial_cluster(&[m1, m2, m3, &added]), "existing");
    let promote = pb::MemberPromoteRequest { id };
    eventually("promotion", async || client.member_promote(promote).await.ok()).await;
    assert_eq!(eventually("a read from the new one", async || added.count(false).await).await, 100);
    let left = client.member_remove(pb::MemberRemoveRequest { id }).await.unwrap().into_inner().members.len();
    assert_eq!((left, fourth.wait()), (3, false));
}

/// Users root and ann with their names as passwords; ann may read and write `a`. On from now.
async fn enable_access_control(member: &Member) {
    let mut auth = AuthClient::new(member.channel());
    for name in ["root", "ann"] {
        let (name, password) = (name.to_owned(), name.to_owned());
        auth.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await.unwrap();
    }
    auth.role_add(pb::AuthRoleAddRequest { name: "a".into() }).await.unwrap();
    let perm = Permission { perm_type: Type::Readwrite as i32, key: "a".into(), range_end: Bytes::new() };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "a".into(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.unwrap();
    for (user, role) in [("root", "root"), ("ann", "a")] {
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() }).await.unwrap();
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

async fn login(member: &Member, name: &str) -> String {
    let request = pb::AuthenticateRequest { name: name.into(), password: name.into() };
    AuthClient::new(member.channel()).authenticate(request).await.unwrap().into_inner().token
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away_at_one_member_is_gone_on_all() {
    let place = Place::new("etcd-access");
    let members = ["m1", "m2", "m3"].map(|name| Member::new(&place, name));
    let cluster = initial_cluster(&members.each_ref());
    let _running = members.each_ref().map(|member| member.start(&cluster, "new"));
    for member in &members {
        eventually("a write", async || member.put(0).await).await;
    }
    enable_access_control(&members[0]).await;
    let (root, ann) = (login(&members[0], "root").await, login(&members[0], "ann").await);
    let put = async |member: &Member| {
        let put = pb::PutRequest { key: "a".into(), ..Default::default() };
        KvClient::new(member.channel()).put(with_token(&ann, put)).await.map(|_| ())
    };
    let get = async |member: &Member| {
        let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
        KvClient::new(member.channel()).range(with_token(&ann, range)).await.map(|_| ())
    };
    for member in &members {
        put(member).await.expect("every member knows the token that one has made");
        assert_eq!(member.put(1).await, None, "nobody in particular may do nothing");
    }
    let revoke = pb::AuthUserRevokeRoleRequest { name: "ann".into(), role: "a".into() };
    AuthClient::new(members[0].channel()).user_revoke_role(with_token(&root, revoke)).await.unwrap();
    for member in &members {
        for refused in [put(member).await, get(member).await] {
            assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied, "{}", member.name);
        }
    }
}

//! Clusters of several real processes on the loopback: three members of `holdfast etcd`, three servers that joined by token.
//!
//! Each loses its leader by a kill: writes go on, nothing that was acknowledged is lost, and the killed one comes back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;

use std::path::PathBuf;

use bytes::Bytes;
use etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd::proto::etcdserverpb::{self as pb};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use process::{Place, Running, eventually, free_port, holdfast, output_of};
use tonic::transport::{Channel, Endpoint};

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
        command.args(["--initial-cluster", cluster]).arg("--data-dir").arg(&self.directory);
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

/// A `holdfast server`.
struct Server {
    directory: PathBuf,
    port: String,
    peer_port: String,
}

impl Server {
    fn new(place: &Place, name: &str) -> Self {
        let directory = place.0.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self { directory, port: free_port().to_string(), peer_port: free_port().to_string() }
    }

    fn start(&self, join: &[&str]) -> Running {
        let mut command = holdfast(&["server", "--advertise-address", "127.0.0.1"]);
        command.args(["--port", &self.port, "--peer-port", &self.peer_port]).args(join);
        command.arg("--data-dir").arg(self.data()).arg("--run-dir").arg(self.directory.join("run"));
        let log = self.directory.join("log");
        Running::start(command, &log).until_ready(&log)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    async fn maps(&self) -> kube::Api<ConfigMap> {
        let kubeconfig = Kubeconfig::read_from(self.data().join("admin.kubeconfig")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        kube::Api::default_namespaced(kube::Client::try_from(config).unwrap())
    }

    async fn create(&self, name: &str) -> Option<()> {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        match self.maps().await.create(&PostParams::default(), &map).await {
            // An attempt whose answer was lost has done it.
            Err(kube::Error::Api(status)) if status.code == 409 => Some(()),
            created => created.ok().map(|_| ()),
        }
    }

    fn command(&self, args: &[&str]) -> String {
        let mut command = holdfast(&args[..1]);
        command.arg("--data-dir").arg(self.data()).args(&args[1..]);
        output_of(command)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_join_by_token_and_lose_their_leader() {
    let place = Place::new("servers");
    let servers = ["s1", "s2", "s3"].map(|name| Server::new(&place, name));
    let first = servers[0].start(&[]);
    let printed = servers[0].command(&["token"]);
    let join: Vec<&str> = printed.split_whitespace().skip(2).collect();
    let mut running = [Some(first), Some(servers[1].start(&join)), Some(servers[2].start(&join))];
    servers[1].create("one").await.unwrap();
    // What one server has answered, every other one shows at once.
    for server in &servers {
        server.maps().await.get("one").await.unwrap();
    }
    let leader = eventually("three voters", async || {
        let list = servers[1].command(&["member", "list"]);
        let is_whole = list.lines().count() == 3 && !list.contains("learner");
        let led = list.lines().find(|line| line.contains("  leader  ")).filter(|_| is_whole)?;
        servers.iter().position(|server| led.ends_with(&format!(":{}", server.peer_port)))
    });
    let leader = leader.await;
    running[leader] = None;
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    eventually("a write after the leader was killed", async || servers[other].create("two").await).await;
    servers[third].maps().await.get("two").await.unwrap();
    running[leader] = Some(servers[leader].start(&[]));
    for name in ["one", "two"] {
        servers[leader].maps().await.get(name).await.unwrap();
    }
    let wrong = join.iter().map(|word| word.replace("::server:", "::server:x")).collect::<Vec<_>>();
    let stranger = Server::new(&place, "s4");
    let mut command = holdfast(&["server", "--advertise-address", "127.0.0.1", "--port", &stranger.port]);
    command.args(&wrong).arg("--data-dir").arg(stranger.data()).arg("--run-dir").arg(stranger.directory.join("run"));
    let refused = command.output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("Unauthorized"));
}

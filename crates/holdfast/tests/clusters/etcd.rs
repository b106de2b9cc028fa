//! Three members of `holdfast etcd` lose their leader by a kill, grow by one and shrink again.

use std::path::PathBuf;

use bytes::Bytes;
use etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd::proto::etcdserverpb::{self as pb};
use tonic::transport::{Channel, Endpoint};

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

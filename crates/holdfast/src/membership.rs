//! This server as a member of its cluster: the network to the others, its own entry in the list, and what joiners get.
//!
//! Invariants: other servers connect with certificates of the member CA alone; a joiner gets what all servers share and a
//! place in the list before it starts; it votes once it has caught up.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::join::{ClusterHandler, JoinRequest};
use apiserver::pki::Pki;
use base::{OsRng, Rng as _};
use futures::future::BoxFuture;
use peers::tls::Material;
use peers::{ClusterView, PeerError, PeerTls};
use serde_json::{Value, json};
use store::{MemberChange, MemberChangeError, MemberInfo, Store};

use crate::network::server_url;

/// All member certificates carry this name; members are dialed by address.
pub const MEMBER_NAME: &str = "member.holdfast.internal";
/// The keys that Secrets are encrypted with, below the data directory; none where a file with keys is given.
pub const ENCRYPTION_FILE: &str = "encryption.yaml";
/// What all servers have in common besides, below the data directory.
const SHARED_FILES: [&str; 9] = [
    "pki/ca.crt",
    "pki/ca.key",
    "pki/front-proxy-ca.crt",
    "pki/front-proxy-ca.key",
    "pki/member-ca.crt",
    "pki/member-ca.key",
    "pki/etcd-ca.crt",
    "pki/etcd-ca.key",
    "pki/sa.key",
];
/// The names of what all servers share, with [`ENCRYPTION_FILE`] or without it.
pub fn shared_files(with_encryption: bool) -> impl Iterator<Item = &'static str> {
    SHARED_FILES.into_iter().chain(with_encryption.then_some(ENCRYPTION_FILE))
}

/// Between attempts to tell the cluster something of this member.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// For one change of the membership.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);

/// TLS between the servers, from the shared member CA.
pub fn peer_tls(pki: &Pki) -> Result<PeerTls, Box<dyn std::error::Error + Send + Sync>> {
    let credential = pki.member(MEMBER_NAME)?;
    Ok(mutual_tls(&credential.certificate_pem, &credential.key_pem, pki.member_ca().certificate_pem())?)
}

/// The same for a command beside a server, from the files that the server keeps.
pub fn read_peer_tls(data_dir: &Path) -> Result<PeerTls, Box<dyn std::error::Error>> {
    let read = |name: &str| {
        let path = data_dir.join("pki").join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    Ok(mutual_tls(&read("member.crt")?, &read("member.key")?, &read("member-ca.crt")?)?)
}

fn mutual_tls(chain_pem: &str, key_pem: &str, authority_pem: &str) -> Result<PeerTls, PeerError> {
    PeerTls::mutual(&Material { chain_pem, key_pem, authority_pem }, Some(MEMBER_NAME))
}

/// Keeps this member's entry as it should be, and asks for a vote while it has none.
pub async fn run_own_entry(store: Arc<Store>, member: u64, name: String, peer_url: String, client_url: String) {
    loop {
        let members = store.members();
        let Some(own) = members.iter().find(|info| info.id == member) else {
            tokio::time::sleep(TRY_AGAIN).await;
            continue;
        };
        let change = if own.peer_urls != [peer_url.clone()] {
            MemberChange::Update { id: member, peer_urls: vec![peer_url.clone()] }
        } else if own.name != name || own.client_urls != [client_url.clone()] {
            MemberChange::Publish { id: member, name: name.clone(), client_urls: vec![client_url.clone()] }
        } else if own.is_learner {
            MemberChange::Promote { id: member }
        } else {
            return;
        };
        match tokio::time::timeout(CHANGE_WITHIN, store.change_members(change)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the own entry is not as it should be yet");
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Err(_) => tracing::debug!("the cluster does not answer about the own entry"),
        }
    }
}

/// Serves joiners and administrators.
pub struct Membership {
    pub store: Arc<Store>,
    pub cluster_id: u64,
    pub member_id: u64,
    pub data_dir: PathBuf,
    /// Secrets are encrypted with [`ENCRYPTION_FILE`].
    pub own_keys: bool,
    pub cluster_cidr: String,
    pub service_cidr: String,
}

impl Membership {
    /// The members but this one.
    pub fn others(&self) -> Vec<MemberInfo> {
        let mut members = self.store.members();
        members.retain(|member| member.id != self.member_id);
        members
    }

    pub async fn change(&self, change: MemberChange) -> Result<Vec<MemberInfo>, MemberChangeError> {
        let unanswered = |_| Err(store::KvError::Unavailable { reason: "the cluster does not answer".into() }.into());
        tokio::time::timeout(CHANGE_WITHIN, self.store.change_members(change)).await.unwrap_or_else(unanswered)
    }

    async fn add(&self, request: &JoinRequest) -> Result<ClusterView, String> {
        let url = server_url(request.address, request.peer_port);
        // First: such a place is the one that a learner may have, and nobody else gets another.
        let (member_id, members) = match self.taken_place(&url)? {
            Some(taken) => taken,
            None => {
                let id = OsRng.next_u64() | 1;
                (id, self.add_learner(id, &url).await.map_err(|error| error.to_string())?)
            }
        };
        tracing::info!(name = request.name, url, member = %format_args!("{member_id:x}"), "a server joins");
        Ok(ClusterView { cluster_id: self.cluster_id, member_id, members })
    }

    /// Waits for its turn: the one that joined before must vote first.
    async fn add_learner(&self, id: u64, url: &str) -> Result<Vec<MemberInfo>, MemberChangeError> {
        let attempts = CHANGE_WITHIN.as_millis() / TRY_AGAIN.as_millis();
        for _ in 0..attempts {
            match self.change(MemberChange::AddLearner { id, peer_urls: vec![url.to_owned()] }).await {
                Err(MemberChangeError::TooManyLearners { .. }) => {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                ended => return ended,
            }
        }
        self.change(MemberChange::AddLearner { id, peer_urls: vec![url.to_owned()] }).await
    }

    /// A joiner that did not come to its start takes up the place that was made for it. Refuses the address of a member that has.
    fn taken_place(&self, url: &str) -> Result<Option<(u64, Vec<MemberInfo>)>, String> {
        let members = self.store.members();
        let holder = members.iter().find(|member| member.peer_urls.iter().any(|known| known == url));
        match holder {
            Some(holder) if holder.is_learner && holder.name.is_empty() => Ok(Some((holder.id, members.clone()))),
            Some(holder) => Err(format!(
                "member {:x} ({}) has the address {url}; remove it first: holdfast member remove {:x}",
                holder.id, holder.name, holder.id
            )),
            None => Ok(None),
        }
    }

    async fn bundle(&self) -> Result<Value, String> {
        let mut files = serde_json::Map::new();
        for name in shared_files(self.own_keys) {
            let text = tokio::fs::read_to_string(self.data_dir.join(name)).await;
            files.insert(name.to_owned(), text.map_err(|error| format!("{name}: {error}"))?.into());
        }
        Ok(json!({ "files": files, "clusterCIDR": self.cluster_cidr, "serviceCIDR": self.service_cidr }))
    }
}

impl ClusterHandler for Membership {
    fn shared(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(self.bundle())
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async move { Ok(json!({ "view": peers::inquiry::render_view(&self.add(&request).await?) })) })
    }

    fn members(&self) -> Result<Value, String> {
        let leader = self.store.subscribe_leader().borrow().leader;
        let members = self.store.members().into_iter().map(|member| {
            json!({
                "id": format!("{:x}", member.id), "name": member.name, "peerURLs": member.peer_urls,
                "clientURLs": member.client_urls, "isLearner": member.is_learner, "isLeader": member.id == leader,
            })
        });
        Ok(members.collect())
    }

    fn remove(&self, id: u64) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async move {
            let leaves = self.store.members().into_iter().find(|member| member.id == id);
            self.change(MemberChange::Remove { id }).await.map_err(|error| error.to_string())?;
            if let Some(address) = leaves.and_then(|member| address_of(member.client_urls.first()?)) {
                // Its key would end by itself, only later.
                if let Err(error) = apiserver::masters::forget(&*self.store, address).await {
                    tracing::info!(%error, %address, "the endpoints name the removed server for some more seconds");
                }
            }
            self.members()
        })
    }
}

fn address_of(url: &str) -> Option<IpAddr> {
    peers::PeerUrl::parse(url).ok()?.host.parse().ok()
}

/// Answers for a server whose state is in an etcd of somebody else's: that one's members are no affair of ours.
pub struct NoMembers {
    /// As it is shown.
    pub datastore: String,
}

impl NoMembers {
    fn refusal(&self) -> String {
        let datastore = &self.datastore;
        format!("this cluster's state is in {datastore}: its members are etcd's own, see `etcdctl member list`")
    }
}

impl ClusterHandler for NoMembers {
    fn shared(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { Err(self.refusal()) })
    }

    fn join(&self, _request: JoinRequest) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { Err(self.refusal()) })
    }

    fn members(&self) -> Result<Value, String> {
        Err(self.refusal())
    }

    fn remove(&self, _id: u64) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { Err(self.refusal()) })
    }
}

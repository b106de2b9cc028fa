//! An outside etcd as the store: [`store::Kv`] over etcd's v3 gRPC API.
//!
//! ```text
//! store::Kv --words--> links (one connection, to the leader; a new one when it fails) --gRPC--> etcd 3.4 or newer
//! ```
//!
//! Invariants: a write is sent once; it goes to another server only if the first has certainly not taken it up, and what
//! nobody knows is [`KvError::Unavailable`]. Reads are repeated, once a server. Long ranges are read in pages of one revision.
//! No server of a cluster whose id is another than at the start is used. Outside of the caller's root nothing is read, unless
//! the caller does.
//! Not here: who compacts (the API server), files and flags (the binary), membership (etcd's own affair).

mod address;
mod dial;
mod failure;
mod links;
mod watching;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use prost::Message as _;
use store::{
    Kv, KvError, LeaseGranted, LeaseStatus, RangeRequest, RangeResponse, Txn, TxnResponse, Watch, WatchRequest,
    key_after,
};
use tls::pem::PemError;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub use address::{Address, AddressError, Addresses};
pub use dial::TlsTexts;

use crate::listener::LEADER_WANTED;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::lease_client::LeaseClient;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::range_options::{parse_response, wire_range};
use crate::refusals::{COMPACTED, FUTURE_REVISION};
use crate::txn_words::{parse_txn_response, wire_txn};
use failure::{About, Failure, error_of};
use links::{Links, ask_server};

/// Longer than etcd itself takes to say that the cluster does not answer (7 s).
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Keys that are asked for at once.
const PAGE: usize = 2_000;
/// etcd's own client's bound; lists are large.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// An etcd cluster that somebody else runs. Cheap to clone.
#[derive(Clone)]
pub struct RemoteStore {
    shared: Arc<Shared>,
}

struct Shared {
    links: Links,
    root: Root,
    watches: AtomicU64,
}

/// Where the caller's keys are: with etcd's access control on, the others may be hidden from it.
#[derive(Debug, Clone)]
pub struct Root(Bytes);

impl Root {
    /// The keys that begin with `prefix`; with an empty one, all.
    pub fn new(prefix: impl Into<Bytes>) -> Self {
        Self(prefix.into())
    }

    /// A read of one key, of which only the answer's header counts.
    fn any_key(&self) -> RangeRequest {
        let key = if self.0.is_empty() { Bytes::from_static(b"\0") } else { self.0.clone() };
        RangeRequest { key, count_only: true, ..RangeRequest::default() }
    }

    fn all_keys(&self) -> RangeRequest {
        RangeRequest { end: store::prefix_end(&self.0), ..self.any_key() }
    }
}

/// Why an etcd cannot be the store.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{given} speaks TLS, but nothing says whose certificates to believe; give --datastore-cafile")]
    NoAuthority { given: String },
    #[error("a certificate for the datastore cannot be used: {0}")]
    Certificate(#[from] PemError),
    #[error("the datastore cannot be used: {0}; see `etcdctl endpoint health`")]
    Unusable(String),
    #[error("the datastore's servers are of different clusters: {0}; name the servers of one")]
    Clusters(String),
}

impl RemoteStore {
    /// Asks every server once. One that answers is enough; those that don't are logged.
    pub async fn connect(addresses: &Addresses, tls: Option<&TlsTexts>, root: Root) -> Result<Self, ConnectError> {
        let tls = match (addresses.secure, tls) {
            (false, _) => None,
            (true, Some(texts)) => Some(dial::connector(texts)?),
            (true, None) => return Err(ConnectError::NoAuthority { given: addresses.to_string() }),
        };
        let (mut ids, mut reasons) = (Vec::new(), Vec::new());
        let probe = wire_range(&root.any_key());
        let asked = addresses.servers.iter().map(|server| ask_server(server, tls.as_ref(), &probe));
        for (server, answer) in addresses.servers.iter().zip(join_all(asked).await) {
            match answer {
                Ok(living) => ids.push((living.cluster_id, server)),
                Err(error) => reasons.push(format!("{server}: {error}")),
            }
        }
        let reasons = reasons.join("; ");
        let Some((cluster_id, _)) = ids.first().copied() else { return Err(ConnectError::Unusable(reasons)) };
        if ids.iter().any(|(id, _)| *id != cluster_id) {
            let each = ids.iter().map(|(id, server)| format!("{server} of {id:x}")).collect::<Vec<_>>();
            return Err(ConnectError::Clusters(each.join(", ")));
        }
        if !reasons.is_empty() {
            tracing::warn!("some of the datastore's servers don't answer: {reasons}");
        }
        let links = Links::new(addresses.servers.clone(), tls, probe, cluster_id);
        Ok(Self { shared: Arc::new(Shared { links, root, watches: AtomicU64::new(0) }) })
    }
}

fn silent() -> String {
    format!("no answer within {} s", REQUEST_WITHIN.as_secs())
}

/// A request that a server without a leader refuses at once.
fn wanting_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(LEADER_WANTED, tonic::metadata::MetadataValue::from_static("true"));
    request
}

async fn range_once(
    channel: Channel,
    request: Request<pb::RangeRequest>,
) -> Result<Response<pb::RangeResponse>, Status> {
    KvClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).range(request).await
}

/// Whether a request may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It reads, or doing it twice is doing it once.
    Safe,
    Never,
}

/// An answer, which says in which term of Raft it was given.
trait Answer {
    fn header(&self) -> Option<&pb::ResponseHeader>;
}

macro_rules! answers {
    ($($message:ident)*) => {
        $(impl Answer for pb::$message {
            fn header(&self) -> Option<&pb::ResponseHeader> {
                self.header.as_ref()
            }
        })*
    };
}

answers! {
    RangeResponse TxnResponse CompactionResponse StatusResponse
    LeaseGrantResponse LeaseRevokeResponse LeaseKeepAliveResponse LeaseTimeToLiveResponse LeaseLeasesResponse
}

impl Shared {
    /// Asks the server in use, and others as far as [`Repeat`], the failure and the time allow. `about`: for the words of a refusal.
    async fn ask<T, F>(&self, repeat: Repeat, about: About, call: impl Fn(Channel) -> F) -> Result<T, KvError>
    where
        T: Answer,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (mut reason, began): (Arc<str>, _) = ("".into(), Instant::now());
        for _ in 0..self.links.attempts() {
            let link = self.links.link().await.map_err(|reason| KvError::Unavailable { reason })?;
            let failed = match timeout(REQUEST_WITHIN, call(link.channel.clone())).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    if answer.header().is_some_and(|header| header.raft_term > link.term) {
                        // Somebody else may lead by now.
                        self.links.give_up(&link).await;
                    }
                    return Ok(answer);
                }
                Ok(Err(status)) => Failure::of(status),
                Err(_) => Failure::Unknown(silent()),
            };
            let (why, again) = match failed {
                Failure::Refused(status) => return Err(self.explain(&status, about).await),
                Failure::NotTaken(why) => (why, true),
                Failure::Unknown(why) => (why, repeat == Repeat::Safe),
            };
            tracing::debug!(server = %link.server, why, again, "the datastore has not answered");
            self.links.give_up(&link).await;
            reason = format!("{}: {why}", link.server).into();
            if !again || began.elapsed() >= REQUEST_WITHIN {
                break;
            }
        }
        Err(KvError::Unavailable { reason })
    }

    /// The store's error. Etcd says that a revision is gone or not there yet, but not which ones are: that is asked.
    async fn explain(&self, refusal: &Status, about: About) -> KvError {
        if refusal.message() == COMPACTED.1 {
            let oldest = self.compact_revision().await;
            oldest.map_or_else(|error| error, |compact_revision| KvError::Compacted { compact_revision })
        } else if refusal.message() == FUTURE_REVISION.1 {
            let newest = self.range(self.root.any_key()).await;
            newest.map_or_else(|error| error, |found| KvError::FutureRevision { revision: found.revision })
        } else {
            error_of(refusal, about)
        }
    }

    /// Reads one page. Boxed, because explaining a refusal reads in turn.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, KvError>> {
        async move {
            let message = wire_range(&request);
            let call = |channel| range_once(channel, wanting_leader(message.clone()));
            Ok(parse_response(self.ask(Repeat::Safe, About::default(), call).await?, 0))
        }
        .boxed()
    }

    /// Reads as many pages as the request needs, all as of the first one's revision.
    async fn range_in_pages(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let room = |found: usize| if request.limit == 0 { PAGE } else { PAGE.min(request.limit - found) };
        let mut whole = self.range(RangeRequest { limit: room(0), ..request.clone() }).await?;
        while whole.more && (request.limit == 0 || whole.kvs.len() < request.limit) && !request.count_only {
            let Some(last) = whole.kvs.last() else { break };
            let next = RangeRequest {
                key: key_after(&last.key),
                revision: if request.revision > 0 { request.revision } else { whole.revision },
                limit: room(whole.kvs.len()),
                // Another server may be asked for this page, and must not be behind the first one.
                serializable: false,
                ..request.clone()
            };
            let page = self.range(next).await?;
            whole.kvs.extend(page.kvs);
            whole.more = page.more;
        }
        Ok(whole)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        let message = wire_txn(&txn);
        let about = About::txn(&txn, message.encoded_len());
        let call = |channel| {
            let request = wanting_leader(message.clone());
            async move { KvClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).txn(request).await }
        };
        Ok(parse_txn_response(self.ask(Repeat::Never, about, call).await?, 0))
    }

    async fn compact(&self, revision: i64) -> Result<(), KvError> {
        let call = |channel| async move {
            KvClient::new(channel).compact(wanting_leader(pb::CompactionRequest { revision, physical: false })).await
        };
        self.ask(Repeat::Never, About::default(), call).await.map(|_| ())
    }

    async fn lease_grant(&self, id: i64, ttl_seconds: i64) -> Result<LeaseGranted, KvError> {
        if ttl_seconds < 1 || id < 0 {
            return Err(KvError::LeaseTtl { ttl_seconds });
        }
        let call = |channel| async move {
            LeaseClient::new(channel).lease_grant(wanting_leader(pb::LeaseGrantRequest { ttl: ttl_seconds, id })).await
        };
        let granted = self.ask(Repeat::Never, About { lease: id, ttl_seconds, bytes: 0 }, call).await?;
        let revision = granted.header.map_or(0, |header| header.revision);
        Ok(LeaseGranted { id: granted.id, ttl_seconds: granted.ttl, revision })
    }

    async fn lease_revoke(&self, id: i64) -> Result<i64, KvError> {
        let call = |channel| async move {
            LeaseClient::new(channel).lease_revoke(wanting_leader(pb::LeaseRevokeRequest { id })).await
        };
        let revoked = self.ask(Repeat::Never, About::lease(id), call).await?;
        Ok(revoked.header.map_or(0, |header| header.revision))
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<i64, KvError> {
        let call = |channel| async move {
            let asks = futures::stream::iter([pb::LeaseKeepAliveRequest { id }]);
            let mut answers = LeaseClient::new(channel).lease_keep_alive(wanting_leader(asks)).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable("the stream ended without an answer"))
        };
        let answer = self.ask(Repeat::Safe, About::lease(id), call).await?;
        if answer.ttl > 0 { Ok(answer.ttl) } else { Err(KvError::LeaseNotFound { id }) }
    }

    async fn lease_time_to_live(&self, id: i64) -> Result<LeaseStatus, KvError> {
        let call = |channel| async move {
            let request = wanting_leader(pb::LeaseTimeToLiveRequest { id, keys: true });
            LeaseClient::new(channel).lease_time_to_live(request).await
        };
        let answer = self.ask(Repeat::Safe, About::lease(id), call).await?;
        if answer.ttl < 0 {
            return Err(KvError::LeaseNotFound { id });
        }
        let mut keys: Vec<Bytes> = answer.keys;
        keys.sort();
        let (granted_ttl_seconds, remaining_seconds) = (answer.granted_ttl, answer.ttl);
        Ok(LeaseStatus { id, granted_ttl_seconds, remaining_seconds, keys })
    }

    async fn leases(&self) -> Result<Vec<i64>, KvError> {
        let call = |channel| async move {
            LeaseClient::new(channel).lease_leases(wanting_leader(pb::LeaseLeasesRequest {})).await
        };
        let answer = self.ask(Repeat::Safe, About::default(), call).await?;
        let mut ids: Vec<i64> = answer.leases.iter().map(|lease| lease.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// What etcd tells of the server in use; its disk and its log are its own affair.
    async fn status(&self) -> Result<store::Status, KvError> {
        let call =
            |channel| async move { MaintenanceClient::new(channel).status(Request::new(pb::StatusRequest {})).await };
        let answer = self.ask(Repeat::Safe, About::default(), call).await?;
        let header = answer.header.unwrap_or_default();
        let number = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
        Ok(store::Status {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision,
            compact_revision: self.compact_revision().await?,
            term: answer.raft_term,
            committed_index: answer.raft_index,
            applied_index: answer.raft_applied_index,
            leader: answer.leader,
            is_learner: answer.is_learner,
            keys: number(self.range(self.root.all_keys()).await?.count),
            db_bytes: number(answer.db_size),
            live_bytes: number(answer.db_size_in_use),
            quota_bytes: number(answer.db_size_quota),
            leases: self.leases().await?.len() as u64,
            watchers: self.watches.load(Ordering::Relaxed),
            ..store::Status::default()
        })
    }
}

impl Kv for RemoteStore {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, KvError>> {
        self.shared.range_in_pages(request).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, KvError>> {
        self.shared.txn(txn).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, KvError>> {
        watching::open(Arc::clone(&self.shared), request).boxed()
    }

    fn compact(&self, revision: i64) -> BoxFuture<'_, Result<(), KvError>> {
        self.shared.compact(revision).boxed()
    }

    fn lease_grant(&self, id: i64, ttl_seconds: i64) -> BoxFuture<'_, Result<LeaseGranted, KvError>> {
        self.shared.lease_grant(id, ttl_seconds).boxed()
    }

    fn lease_revoke(&self, id: i64) -> BoxFuture<'_, Result<i64, KvError>> {
        self.shared.lease_revoke(id).boxed()
    }

    fn lease_keep_alive(&self, id: i64) -> BoxFuture<'_, Result<i64, KvError>> {
        self.shared.lease_keep_alive(id).boxed()
    }

    fn lease_time_to_live(&self, id: i64) -> BoxFuture<'_, Result<LeaseStatus, KvError>> {
        self.shared.lease_time_to_live(id).boxed()
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<i64>, KvError>> {
        self.shared.leases().boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<store::Status, KvError>> {
        self.shared.status().boxed()
    }
}

//! What one server is made of: the store, its settings, its identity and its counters, shared by all services.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use base::Clock;
use bytes::Bytes;
use store::{
    Kv, KvError, LeaderView, MemberChange, MemberChangeError, MemberInfo, RangeRequest, RangeResponse, Store, Txn,
    TxnResponse,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use crate::access::{AccessControl, AccessSettings, Caller, JUDGEMENTS_MAX, JwtSettingsError, Rights, leases_of};
use crate::grpc_figures::GrpcFigures;
use crate::refusals::{INVALID_TOKEN, OLD_AUTH_REVISION, status_of};

use crate::proto::etcdserverpb::ResponseHeader;

/// etcd's bound: five seconds and two election timeouts. What became of the request is not known then.
const REQUEST_WITHIN: Duration = Duration::from_secs(7);
/// After a failed attempt to publish the own name.
const PUBLISH_AGAIN: Duration = Duration::from_millis(500);

/// What the binary says about this member, already parsed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Human-readable name of the member.
    pub name: String,
    /// Where clients reach it, as they are told.
    pub client_urls: Vec<String>,
    pub peer_urls: Vec<String>,
    /// Operations in one list of a transaction, nested ones counted along the deepest path.
    pub txn_operations_max: usize,
    /// A request may be so large.
    pub request_bytes_max: usize,
    /// A watch that asked for progress notifications gets one after so much silence.
    pub progress_interval: Duration,
    /// JSON over HTTP is answered, under `/v3/`.
    pub json_gateway: bool,
    pub access: AccessSettings,
}

impl Default for Settings {
    /// etcd's defaults.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            client_urls: vec!["http://localhost:2379".to_owned()],
            peer_urls: vec!["http://localhost:2380".to_owned()],
            txn_operations_max: 128,
            request_bytes_max: 3 << 19,
            progress_interval: Duration::from_secs(600),
            json_gateway: true,
            access: AccessSettings::default(),
        }
    }
}

/// Shared by all services and connections.
pub(crate) struct Member {
    pub(crate) store: Arc<Store>,
    pub(crate) settings: Settings,
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) clock: Arc<dyn Clock>,
    leader: watch::Receiver<LeaderView>,
    pub(crate) access: AccessControl,
    pub(crate) counters: Counters,
}

/// Why a server cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] KvError),
    #[error("--auth-token")]
    Tokens(#[from] JwtSettingsError),
}

/// Counters that the store does not keep.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) ranges: AtomicU64,
    pub(crate) puts: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) txns: AtomicU64,
    pub(crate) leases_granted: AtomicU64,
    pub(crate) leases_revoked: AtomicU64,
    pub(crate) leases_renewed: AtomicU64,
    pub(crate) failed_writes: AtomicU64,
    pub(crate) health_successes: AtomicU64,
    pub(crate) health_failures: AtomicU64,
    pub(crate) watch_streams: AtomicI64,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) failed_reads: AtomicU64,
    pub(crate) promotions: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) grpc: Arc<GrpcFigures>,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Member {
    pub(crate) async fn new(store: Arc<Store>, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let status = store.status().await?;
        let leader = store.subscribe_leader();
        Ok(Self {
            access: AccessControl::new(Arc::clone(&store), &settings.access, Arc::clone(&clock))?,
            store,
            settings,
            cluster_id: status.cluster_id,
            member_id: status.member_id,
            clock,
            leader,
            counters: Counters::default(),
        })
    }

    /// The header of every response.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.leader().term,
        }
    }

    /// A header with the newest revision.
    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.revision())
    }

    /// The newest applied revision.
    pub(crate) fn revision(&self) -> i64 {
        self.store.range_now(&any_key()).map_or(0, |response| response.revision)
    }

    /// The store's figures.
    pub(crate) async fn status(&self) -> Result<store::Status, KvError> {
        self.store.status().await
    }

    /// Who leads, as far as is known here.
    pub(crate) fn leader(&self) -> LeaderView {
        *self.leader.borrow()
    }

    pub(crate) fn subscribe_leader(&self) -> watch::Receiver<LeaderView> {
        self.leader.clone()
    }

    /// All members; of itself this one knows more than it may have told the others yet.
    pub(crate) fn members(&self) -> Vec<MemberInfo> {
        let mut members = self.store.members();
        if let Some(own) = members.iter_mut().find(|member| member.id == self.member_id) {
            let settings = &self.settings;
            if own.name.is_empty() {
                (own.name, own.client_urls) = (settings.name.clone(), settings.client_urls.clone());
            }
            if own.peer_urls.is_empty() {
                own.peer_urls = settings.peer_urls.clone();
            }
        }
        members
    }

    pub(crate) fn is_learner(&self) -> bool {
        self.store.members().iter().any(|member| member.id == self.member_id && member.is_learner)
    }

    /// Reads for a caller; unless the request says otherwise, what the whole cluster has agreed on.
    pub(crate) async fn range(&self, caller: &Caller, request: &RangeRequest) -> Result<RangeResponse, Status> {
        for _ in 0..JUDGEMENTS_MAX {
            let rights = self.rights(caller).await?;
            rights.check_read(&request.key, request.end.as_ref())?;
            match bounded(self.store.judged(rights.judged_by()).range(request)).await {
                Err(KvError::PolicyChanged) => {}
                read => {
                    return read.map_err(|error| {
                        if !request.serializable && matches!(error, KvError::Unavailable { .. }) {
                            count(&self.counters.failed_reads);
                        }
                        status_of(&error)
                    });
                }
            }
        }
        Err(OLD_AUTH_REVISION.into())
    }

    /// Executes a transaction for a caller.
    pub(crate) async fn txn(&self, caller: &Caller, txn: Txn) -> Result<TxnResponse, Status> {
        for _ in 0..JUDGEMENTS_MAX {
            let rights = self.rights(caller).await?;
            rights.check_txn(&txn)?;
            if rights.is_limited() {
                let mut leases = Vec::new();
                leases_of(&txn, &mut leases);
                for lease in leases {
                    self.check_lease(&rights, lease).await?;
                }
            }
            match bounded(self.store.judged(rights.judged_by()).txn(txn.clone())).await {
                Err(KvError::PolicyChanged) => {}
                done => {
                    return done.map_err(|error| {
                        count(&self.counters.failed_writes);
                        status_of(&error)
                    });
                }
            }
        }
        Err(OLD_AUTH_REVISION.into())
    }

    /// Ends a lease for a caller. Returns the revision.
    pub(crate) async fn revoke(&self, caller: &Caller, lease: i64) -> Result<i64, Status> {
        for _ in 0..JUDGEMENTS_MAX {
            let rights = self.rights(caller).await?;
            self.check_lease(&rights, lease).await?;
            match bounded(self.store.judged(rights.judged_by()).lease_revoke(lease)).await {
                Err(KvError::PolicyChanged) => {}
                revoked => return revoked.map_err(|error| status_of(&error)),
            }
        }
        Err(OLD_AUTH_REVISION.into())
    }

    /// That the caller may write all keys of a lease: whoever ends it deletes them.
    pub(crate) async fn check_lease(&self, rights: &Rights, lease: i64) -> Result<(), Status> {
        rights.check_known()?;
        if !rights.is_limited() {
            return Ok(());
        }
        let keys = self.lease_keys(lease).await?;
        Ok(keys.iter().try_for_each(|key| rights.check_write(key, None))?)
    }

    /// The keys of a lease. One that is not there has none.
    pub(crate) async fn lease_keys(&self, lease: i64) -> Result<Vec<Bytes>, Status> {
        match bounded(self.store.lease_time_to_live(lease)).await {
            Ok(lease) => Ok(lease.keys),
            Err(KvError::LeaseNotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(status_of(&error)),
        }
    }

    /// What the caller may do. A token that is not known here may be of rules that are not here yet: then they are waited for.
    pub(crate) async fn rights(&self, caller: &Caller) -> Result<Rights, Status> {
        match self.access.rights(caller) {
            Err(INVALID_TOKEN) => {
                self.check_agreement().await.map_err(|error| status_of(&error))?;
                Ok(self.access.rights(caller)?)
            }
            rights => Ok(rights?),
        }
    }

    /// Whether the cluster answers: a read that needs its agreement.
    pub(crate) async fn check_agreement(&self) -> Result<(), KvError> {
        bounded(self.store.range(any_key())).await.map(|_| ())
    }

    /// Joins in: resolves once this member has what the cluster had agreed on when this was called, and the cluster knows
    /// this member's name and client URLs. Before that, what it has may be old, or nothing.
    pub(crate) async fn publish(&self) {
        while let Err(error) = self.try_publish().await {
            tracing::warn!(%error, "this member has not joined in yet and serves no clients; trying again");
            tokio::time::sleep(PUBLISH_AGAIN).await;
        }
    }

    async fn try_publish(&self) -> Result<(), MemberChangeError> {
        self.check_agreement().await?;
        let (name, client_urls) = (&self.settings.name, &self.settings.client_urls);
        let members = self.store.members();
        let own = members.iter().find(|member| member.id == self.member_id);
        if own.is_some_and(|own| own.name == *name && own.client_urls == *client_urls) {
            return Ok(());
        }
        let change = MemberChange::Publish { id: self.member_id, name: name.clone(), client_urls: client_urls.clone() };
        self.store.change_members(change).await.map(|_| ())
    }
}

/// Ends a request that the cluster does not answer.
pub(crate) async fn bounded<T>(request: impl Future<Output = Result<T, KvError>>) -> Result<T, KvError> {
    let unanswered = |_| Err(KvError::Unavailable { reason: "the cluster does not answer".into() });
    timeout(REQUEST_WITHIN, request).await.unwrap_or_else(unanswered)
}

fn any_key() -> RangeRequest {
    RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..RangeRequest::default() }
}

//! What one server is made of: the store, its settings, its identity and its counters, shared by all services.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use store::{Kv, KvError, RangeRequest, Status, Store};

use crate::proto::etcdserverpb::ResponseHeader;

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
        }
    }
}

/// Shared by all services and connections.
pub(crate) struct Member {
    pub(crate) store: Arc<Store>,
    pub(crate) settings: Settings,
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    term: AtomicU64,
    pub(crate) counters: Counters,
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
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Member {
    pub(crate) async fn new(store: Arc<Store>, settings: Settings) -> Result<Self, KvError> {
        let status = store.status().await?;
        Ok(Self {
            store,
            settings,
            cluster_id: status.cluster_id,
            member_id: status.member_id,
            term: AtomicU64::new(status.term),
            counters: Counters::default(),
        })
    }

    /// The header of every response.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.term.load(Ordering::Relaxed),
        }
    }

    /// A header with the newest revision.
    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.revision())
    }

    /// The newest applied revision.
    pub(crate) fn revision(&self) -> i64 {
        let any = RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..RangeRequest::default() };
        self.store.range_now(&any).map_or(0, |response| response.revision)
    }

    /// The store's figures; takes note of the term.
    pub(crate) async fn status(&self) -> Result<Status, KvError> {
        let status = self.store.status().await?;
        self.term.store(status.term, Ordering::Relaxed);
        Ok(status)
    }
}

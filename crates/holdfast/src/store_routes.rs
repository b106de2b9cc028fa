//! What `holdfast store` asks a running server, for administrators alone, by the usual authentication and authorization.
//!
//! `GET /holdfast/store/snapshot`: everything that is committed, as a snapshot in etcd's form, while writes go on. `?stale=true`:
//! what this server has, without asking the others. `POST /holdfast/store/adopt`: restart on the store that lies prepared in the
//! data directory. `?alone=true`: with other servers in the cluster, take them out first.
//!
//! Invariants: one snapshot at a time; no restore leaves two clusters that both believe to be the one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiserver::body::{Body, full, response, stream};
use apiserver::chain::PathHandler;
use apiserver::request::Query;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use peers::Network;
use store::{Kv as _, MemberChange, RangeRequest};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::membership::Membership;
use crate::replacement;

pub const SNAPSHOT_PATH: &str = "/holdfast/store/snapshot";
pub const ADOPT_PATH: &str = "/holdfast/store/adopt";
/// For the agreement of the others.
const AGREE_WITHIN: Duration = Duration::from_secs(7);
/// For a server that is taken out to hear of it from this one. Who is down hears nothing, and finds another cluster when it is back.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// Serves the two paths.
pub struct StoreRoutes {
    membership: Arc<Membership>,
    network: Arc<Network>,
    data_dir: PathBuf,
    /// Told that the process must restart.
    restart: CancellationToken,
    snapshots: Arc<Semaphore>,
}

impl StoreRoutes {
    pub fn new(
        membership: Arc<Membership>,
        network: Arc<Network>,
        data_dir: PathBuf,
        restart: CancellationToken,
    ) -> Self {
        Self { membership, network, data_dir, restart, snapshots: Arc::new(Semaphore::new(1)) }
    }

    async fn snapshot(&self, stale: bool) -> Result<Response<Body>, (StatusCode, String)> {
        let store = &self.membership.store;
        let permit = Arc::clone(&self.snapshots).try_acquire_owned();
        let permit =
            permit.map_err(|_| (StatusCode::TOO_MANY_REQUESTS, "another snapshot is being saved".to_owned()))?;
        if !stale {
            let any = RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..RangeRequest::default() };
            let agreed = tokio::time::timeout(AGREE_WITHIN, store.range(any)).await;
            let unavailable = "no majority of the servers answers; --stale saves what this server has, which may lack the last writes";
            if !matches!(agreed, Ok(Ok(_))) {
                return Err((StatusCode::SERVICE_UNAVAILABLE, unavailable.to_owned()));
            }
        }
        let mut chunks = etcd::snapshot::spawn_snapshot(store.content());
        let chunks = futures::stream::poll_fn(move |context| {
            let _held_until_dropped = &permit;
            chunks.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map_err(Into::into)))
        });
        Ok(Response::new(stream(chunks)))
    }

    async fn adopt(&self, alone: bool) -> Result<Response<Body>, (StatusCode, String)> {
        let refused = |reason: String| (StatusCode::CONFLICT, reason);
        if !replacement::is_prepared(&self.data_dir) {
            return Err(refused(format!("nothing is prepared in {}", self.data_dir.display())));
        }
        let others = self.membership.others();
        if !others.is_empty() && !alone {
            let names: Vec<&str> = others.iter().map(|member| member.name.as_str()).collect();
            return Err(refused(format!(
                "{} other servers run in this cluster ({}): a restore makes this one the whole cluster, the others end and must join again with empty data directories; --alone says that this is wanted",
                names.len(),
                names.join(", ")
            )));
        }
        for member in &others {
            // A majority has agreed to it, so those that are left out can't go on without us.
            let removed = self.membership.change(MemberChange::Remove { id: member.id }).await;
            removed.map_err(|error| refused(format!("{} cannot be taken out: {error}", member.name)))?;
        }
        let all_told = futures::future::join_all(others.iter().map(|member| self.network.told_of_removal(member.id)));
        if tokio::time::timeout(TOLD_WITHIN, all_told).await.is_err() {
            tracing::warn!(
                "not all servers that were taken out have heard of it; they need empty data directories to join again"
            );
        }
        self.restart.cancel();
        Ok(Response::new(full("restarting\n")))
    }
}

impl PathHandler for StoreRoutes {
    fn serve<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Option<Response<Body>>> {
        Box::pin(async move {
            let query = Query::parse(parts.uri.query().unwrap_or_default());
            let answer = match (&parts.method, parts.uri.path()) {
                (&Method::GET, SNAPSHOT_PATH) => self.snapshot(query.flag("stale")).await,
                (&Method::POST, ADOPT_PATH) => self.adopt(query.flag("alone")).await,
                _ => return None,
            };
            Some(answer.unwrap_or_else(|(code, reason)| response(code, full(reason))))
        })
    }
}

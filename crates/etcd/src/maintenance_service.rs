//! The service `Maintenance`: figures, hashes, snapshots, and what one member answers to the rest.
//!
//! Alarms: there are none, the store protects its space itself (deletes and compaction always go). Defragmentation: there is
//! nothing to do, space is given back as it becomes free.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::downgrade;
use crate::member::{Member, bounded};
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use crate::refusals::{BAD_LEADER_TRANSFEREE, NO_LEADER, NOT_LEADER, TOO_MANY_REQUESTS, status_of};
use crate::snapshot::stream_snapshot;
use crate::state_hash::hash_state;
use crate::{ETCD_CLUSTER_VERSION, ETCD_VERSION};

pub(crate) struct MaintenanceService {
    pub(crate) member: Arc<Member>,
    /// Snapshots that may be under way: each holds one state and one thread.
    pub(crate) snapshots: Arc<Semaphore>,
}

#[async_trait::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        if request.get_ref().action() != AlarmAction::Get {
            self.member.rights(&Caller::from(&request)).await?.check_admin()?;
        }
        Ok(Response::new(AlarmResponse { header: Some(self.member.header_now()), alarms: Vec::new() }))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.member.status().await.map_err(|error| status_of(&error))?;
        let leader = self.member.leader();
        let mut errors: Vec<String> = status.stopped.iter().map(|reason| format!("store stopped: {reason}")).collect();
        if leader.leader == 0 {
            errors.push(NO_LEADER.1.to_owned());
        }
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            header: Some(self.member.header(status.revision)),
            version: ETCD_VERSION.to_owned(),
            // etcdctl divides by it, also when there is nothing yet.
            db_size: number(status.db_bytes).max(1),
            leader: leader.leader,
            raft_index: status.committed_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: number(status.live_bytes),
            is_learner: self.member.is_learner(),
            storage_version: ETCD_CLUSTER_VERSION.to_owned(),
            db_size_quota: number(status.quota_bytes),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn defragment(&self, _request: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        Ok(Response::new(DefragmentResponse { header: Some(self.member.header_now()) }))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let (hash, revision) = self.hash_at(0).await?;
        Ok(Response::new(HashResponse { header: Some(self.member.header(revision)), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let status = self.member.status().await.map_err(|error| status_of(&error))?;
        let (hash, hash_revision) = self.hash_at(request.get_ref().revision).await?;
        let header = Some(self.member.header_now());
        Ok(Response::new(HashKvResponse { header, hash, compact_revision: status.compact_revision, hash_revision }))
    }

    async fn snapshot(&self, _request: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let permit = Arc::clone(&self.snapshots).try_acquire_owned().map_err(|_| TOO_MANY_REQUESTS)?;
        Ok(Response::new(Box::pin(stream_snapshot(&self.member, permit))))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        let target = request.get_ref().target_id;
        if self.member.leader().leader != self.member.member_id {
            return Err(NOT_LEADER.into());
        }
        if !self.member.members().iter().any(|member| member.id == target && !member.is_learner) {
            return Err(BAD_LEADER_TRANSFEREE.into());
        }
        if target != self.member.member_id {
            bounded(self.member.store.transfer_leadership(target)).await.map_err(|error| status_of(&error))?;
        }
        Ok(Response::new(MoveLeaderResponse { header: Some(self.member.header_now()) }))
    }

    async fn downgrade(&self, request: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        let request = request.get_ref();
        let version = downgrade::answer(request.action(), &request.version, ETCD_CLUSTER_VERSION)?;
        Ok(Response::new(DowngradeResponse { header: Some(self.member.header_now()), version }))
    }
}

impl MaintenanceService {
    /// Hashing reads everything: on a thread of its own.
    async fn hash_at(&self, revision: i64) -> Result<(u32, i64), Status> {
        let store = Arc::clone(&self.member.store);
        let hashed = tokio::task::spawn_blocking(move || hash_state(&store, revision)).await;
        hashed.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| status_of(&error))
    }
}

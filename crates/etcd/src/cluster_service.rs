//! The service `Cluster`: who the members are, and changes of that.
//!
//! Changes are the store's: this is etcd's words for them, with etcd's ids for new members.

use std::sync::Arc;

use store::{MemberChange, MemberInfo};
use tonic::{Request, Response, Status};

use crate::ids::derive_added_id;
use crate::member::{Member, count};
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    self as pb, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use crate::refusals::{MEMBER_BAD_URLS, Refusal, TIMEOUT, refusal_of_change, status_of};

/// A change may need the election of another leader first.
const CHANGE_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

pub(crate) struct ClusterService {
    pub(crate) member: Arc<Member>,
}

#[async_trait::async_trait]
impl Cluster for ClusterService {
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        let MemberAddRequest { peer_urls, is_learner } = request.into_inner();
        check_urls(&peer_urls)?;
        let id = derive_added_id(&peer_urls, self.member.clock.now().as_second());
        let change = if is_learner {
            MemberChange::AddLearner { id, peer_urls: peer_urls.clone() }
        } else {
            MemberChange::AddVoter { id, peer_urls: peer_urls.clone() }
        };
        let members = self.change(change).await?;
        let added = pb::Member { id, peer_urls, is_learner, ..pb::Member::default() };
        Ok(Response::new(MemberAddResponse { header: self.header(), member: Some(added), members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let id = request.get_ref().id;
        let members = self.change(MemberChange::Remove { id }).await?;
        Ok(Response::new(MemberRemoveResponse { header: self.header(), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let MemberUpdateRequest { id, peer_urls } = request.into_inner();
        check_urls(&peer_urls)?;
        let members = self.change(MemberChange::Update { id, peer_urls }).await?;
        Ok(Response::new(MemberUpdateResponse { header: self.header(), members }))
    }

    async fn member_list(&self, request: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.member.check_agreement().await.map_err(|error| status_of(&error))?;
        }
        let members = self.member.members().into_iter().map(wire_member).collect();
        Ok(Response::new(MemberListResponse { header: self.header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let id = request.get_ref().id;
        let members = self.change(MemberChange::Promote { id }).await?;
        count(&self.member.counters.promotions);
        Ok(Response::new(MemberPromoteResponse { header: self.header(), members }))
    }
}

impl ClusterService {
    /// As in etcd, without a revision.
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.member.header(0))
    }

    async fn change(&self, change: MemberChange) -> Result<Vec<pb::Member>, Refusal> {
        let changed = tokio::time::timeout(CHANGE_WITHIN, self.member.store.change_members(change)).await;
        let members = changed.map_err(|_| TIMEOUT)?.map_err(|error| refusal_of_change(&error))?;
        Ok(members.into_iter().map(wire_member).collect())
    }
}

fn wire_member(member: MemberInfo) -> pb::Member {
    let MemberInfo { id, name, peer_urls, client_urls, is_learner } = member;
    pb::Member { id, name, peer_urls, client_urls, is_learner }
}

fn check_urls(urls: &[String]) -> Result<(), Refusal> {
    let is_url = |url: &String| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        rest.is_some_and(|address| address.contains(':') && !address.contains('/'))
    };
    if urls.is_empty() || !urls.iter().all(is_url) { Err(MEMBER_BAD_URLS) } else { Ok(()) }
}

//! The service `Cluster` for a cluster of one member: it can be listed; changes are refused.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::member::Member;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    self as pb, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use crate::refusals::{
    MEMBER_BAD_URLS, MEMBER_NOT_FOUND, MEMBER_NOT_LEARNER, NOT_CAPABLE, NOT_ENOUGH_STARTED, PEER_URL_EXISTS, Refusal,
};

pub(crate) struct ClusterService {
    pub(crate) member: Arc<Member>,
}

#[async_trait::async_trait]
impl Cluster for ClusterService {
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        self.check_urls(&request.get_ref().peer_urls)?;
        Err(NOT_CAPABLE.into())
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.check_known(request.get_ref().id)?;
        Err(NOT_ENOUGH_STARTED.into())
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.check_known(request.get_ref().id)?;
        self.check_urls(&request.get_ref().peer_urls)?;
        Err(NOT_CAPABLE.into())
    }

    async fn member_list(&self, _request: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let settings = &self.member.settings;
        let myself = pb::Member {
            id: self.member.member_id,
            name: settings.name.clone(),
            peer_urls: settings.peer_urls.clone(),
            client_urls: settings.client_urls.clone(),
            is_learner: false,
        };
        // As in etcd, without a revision.
        Ok(Response::new(MemberListResponse { header: Some(self.member.header(0)), members: vec![myself] }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.check_known(request.get_ref().id)?;
        Err(MEMBER_NOT_LEARNER.into())
    }
}

impl ClusterService {
    fn check_known(&self, id: u64) -> Result<(), Refusal> {
        if id == self.member.member_id { Ok(()) } else { Err(MEMBER_NOT_FOUND) }
    }

    fn check_urls(&self, urls: &[String]) -> Result<(), Refusal> {
        let is_url = |url: &String| {
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            rest.is_some_and(|address| address.contains(':') && !address.contains('/'))
        };
        if urls.is_empty() || !urls.iter().all(is_url) {
            return Err(MEMBER_BAD_URLS);
        }
        if urls.iter().any(|url| self.member.settings.peer_urls.contains(url)) { Err(PEER_URL_EXISTS) } else { Ok(()) }
    }
}

//! The service `Lease`.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use store::{Kv as _, KvError};
use tonic::{Request, Response, Status, Streaming};

use crate::access::Caller;
use crate::member::{Member, bounded, count};
use crate::proto::etcdserverpb::lease_server::Lease;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::refusals::status_of;

/// etcd raises shorter times to live to this: one and a half election timeouts, rounded up.
const TTL_SECONDS_MIN: i64 = 2;

pub(crate) struct LeaseService {
    pub(crate) member: Arc<Member>,
}

#[async_trait::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        self.member.rights(&Caller::from(&request)).await?.check_known()?;
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        let granted = bounded(self.member.store.lease_grant(id, ttl.max(TTL_SECONDS_MIN))).await;
        let granted = granted.map_err(|error| status_of(&error))?;
        count(&self.member.counters.leases_granted);
        // Not the newest revision by now: clients order what they know by it.
        let header = Some(self.member.header(granted.revision));
        let (id, ttl) = (granted.id, granted.ttl_seconds);
        Ok(Response::new(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let revision = self.member.revoke(&Caller::from(&request), request.get_ref().id).await?;
        count(&self.member.counters.leases_revoked);
        Ok(Response::new(LeaseRevokeResponse { header: Some(self.member.header(revision)) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (member, caller) = (Arc::clone(&self.member), Caller::from(&request));
        // One answer for each request, in order: the client's own pace is the bound.
        let answers = futures::stream::try_unfold(request.into_inner(), move |mut asks| {
            let (member, caller) = (Arc::clone(&member), caller.clone());
            async move {
                let Some(ask) = asks.message().await? else { return Ok(None) };
                member.check_lease(&member.rights(&caller).await?, ask.id).await?;
                Ok(Some((keep_alive(&member, ask.id).await?, asks)))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let rights = self.member.rights(&Caller::from(&request)).await?;
        rights.check_known()?;
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let header = Some(self.member.header_now());
        match bounded(self.member.store.lease_time_to_live(id)).await {
            Ok(lease) => {
                let keys = if keys { lease.keys } else { Vec::new() };
                keys.iter().try_for_each(|key| rights.check_read(key, None))?;
                let (ttl, granted_ttl) = (lease.remaining_seconds, lease.granted_ttl_seconds);
                Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys }))
            }
            // No error in etcd: the time to live says it.
            Err(KvError::LeaseNotFound { .. }) => {
                Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl: -1, ..LeaseTimeToLiveResponse::default() }))
            }
            Err(error) => Err(status_of(&error)),
        }
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let rights = self.member.rights(&Caller::from(&request)).await?;
        rights.check_known()?;
        let ids = bounded(self.member.store.leases()).await.map_err(|error| status_of(&error))?;
        if rights.is_limited() {
            for id in &ids {
                // Who sees a lease among others may read all its keys.
                self.member.lease_keys(*id).await?.iter().try_for_each(|key| rights.check_read(key, None))?;
            }
        }
        let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.member.header_now()), leases }))
    }
}

/// Renews a lease; one that does not exist is answered with a time to live of 0.
async fn keep_alive(member: &Member, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
    // The header first: a renewal must not claim a revision at which the lease was gone already.
    let header = Some(member.header_now());
    let ttl = match bounded(member.store.lease_keep_alive(id)).await {
        Ok(ttl) => ttl,
        Err(KvError::LeaseNotFound { .. }) => 0,
        Err(error) => return Err(status_of(&error)),
    };
    count(&member.counters.leases_renewed);
    Ok(LeaseKeepAliveResponse { header, id, ttl })
}

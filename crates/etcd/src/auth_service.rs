//! The service `Auth` while access control is off and has no users: etcd's answers in that state.
//!
//! Access control by users and roles is not offered: users and roles can't be added. Who may connect is for mutual TLS to
//! decide.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::refusals::{
    AUTH_NOT_ENABLED, NOT_CAPABLE, ROLE_EMPTY, ROLE_NOT_FOUND, ROOT_USER_MISSING, Refusal, USER_EMPTY, USER_NOT_FOUND,
};

pub(crate) struct AuthService {
    pub(crate) member: Arc<Member>,
}

type Answer<T> = Result<Response<T>, Status>;

#[async_trait::async_trait]
impl Auth for AuthService {
    async fn auth_enable(&self, _request: Request<pb::AuthEnableRequest>) -> Answer<pb::AuthEnableResponse> {
        Err(ROOT_USER_MISSING.into())
    }

    async fn auth_disable(&self, _request: Request<pb::AuthDisableRequest>) -> Answer<pb::AuthDisableResponse> {
        Ok(Response::new(pb::AuthDisableResponse { header: Some(self.member.header_now()) }))
    }

    async fn auth_status(&self, _request: Request<pb::AuthStatusRequest>) -> Answer<pb::AuthStatusResponse> {
        Ok(Response::new(pb::AuthStatusResponse {
            header: Some(self.member.header_now()),
            enabled: false,
            auth_revision: 1,
        }))
    }

    async fn authenticate(&self, _request: Request<pb::AuthenticateRequest>) -> Answer<pb::AuthenticateResponse> {
        Err(AUTH_NOT_ENABLED.into())
    }

    async fn user_add(&self, request: Request<pb::AuthUserAddRequest>) -> Answer<pb::AuthUserAddResponse> {
        Err(refuse_name(&request.get_ref().name, USER_EMPTY).into())
    }

    async fn user_get(&self, _request: Request<pb::AuthUserGetRequest>) -> Answer<pb::AuthUserGetResponse> {
        Err(USER_NOT_FOUND.into())
    }

    async fn user_list(&self, _request: Request<pb::AuthUserListRequest>) -> Answer<pb::AuthUserListResponse> {
        Ok(Response::new(pb::AuthUserListResponse { header: Some(self.member.header_now()), users: Vec::new() }))
    }

    async fn user_delete(&self, _request: Request<pb::AuthUserDeleteRequest>) -> Answer<pb::AuthUserDeleteResponse> {
        Err(USER_NOT_FOUND.into())
    }

    async fn user_change_password(
        &self,
        _request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        Err(USER_NOT_FOUND.into())
    }

    async fn user_grant_role(
        &self,
        _request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Answer<pb::AuthUserGrantRoleResponse> {
        Err(USER_NOT_FOUND.into())
    }

    async fn user_revoke_role(
        &self,
        _request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Answer<pb::AuthUserRevokeRoleResponse> {
        Err(USER_NOT_FOUND.into())
    }

    async fn role_add(&self, request: Request<pb::AuthRoleAddRequest>) -> Answer<pb::AuthRoleAddResponse> {
        Err(refuse_name(&request.get_ref().name, ROLE_EMPTY).into())
    }

    async fn role_get(&self, _request: Request<pb::AuthRoleGetRequest>) -> Answer<pb::AuthRoleGetResponse> {
        Err(ROLE_NOT_FOUND.into())
    }

    async fn role_list(&self, _request: Request<pb::AuthRoleListRequest>) -> Answer<pb::AuthRoleListResponse> {
        Ok(Response::new(pb::AuthRoleListResponse { header: Some(self.member.header_now()), roles: Vec::new() }))
    }

    async fn role_delete(&self, _request: Request<pb::AuthRoleDeleteRequest>) -> Answer<pb::AuthRoleDeleteResponse> {
        Err(ROLE_NOT_FOUND.into())
    }

    async fn role_grant_permission(
        &self,
        _request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        Err(ROLE_NOT_FOUND.into())
    }

    async fn role_revoke_permission(
        &self,
        _request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        Err(ROLE_NOT_FOUND.into())
    }
}

/// etcd looks at the name first.
fn refuse_name(name: &str, if_empty: Refusal) -> Refusal {
    if name.is_empty() { if_empty } else { NOT_CAPABLE }
}

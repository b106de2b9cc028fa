//! The service `Auth`: users, roles, permissions and tokens. What only administrators may ask is checked before, in `listener`.
//!
//! A change is planned on the rules as they are here and made only if they are still these: otherwise it is planned anew.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use store::KvError;
use tonic::{Request, Response, Status};

use crate::access::rules::{Planned, Rules};
use crate::access::{AccessControl, Caller, JUDGEMENTS_MAX, Rights, new_token_key};
use crate::member::{Member, bounded};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::refusals::{NO_PASSWORD_USER, OLD_AUTH_REVISION, USER_NOT_FOUND, status_of};

pub(crate) struct AuthService {
    pub(crate) member: Arc<Member>,
}

type Answer<T> = Result<Response<T>, Status>;

impl AuthService {
    /// Makes a change of the rules that the caller, an administrator, has asked for.
    async fn change(&self, caller: &Caller, plan: impl Fn(&Rules) -> Planned) -> Result<Header, Status> {
        // Rules that are old would refuse what may be done by now.
        self.member.check_agreement().await.map_err(|error| status_of(&error))?;
        for _ in 0..JUDGEMENTS_MAX {
            let rights = self.member.rights(caller).await?;
            rights.check_admin()?;
            let changes = plan(rights.rules())?;
            if changes.is_empty() {
                return Ok(Some(self.member.header_now()));
            }
            match bounded(self.member.store.judged(rights.judged_by()).change_policy(changes)).await {
                Ok(_) => return Ok(Some(self.member.header_now())),
                Err(KvError::PolicyChanged) => {}
                Err(error) => return Err(status_of(&error)),
            }
        }
        Err(OLD_AUTH_REVISION.into())
    }

    /// The caller's rights by rules that are not older than the request.
    async fn rights<T>(&self, request: &Request<T>) -> Result<Rights, Status> {
        self.member.check_agreement().await.map_err(|error| status_of(&error))?;
        self.member.rights(&Caller::from(request)).await
    }
}

type Header = Option<pb::ResponseHeader>;

#[async_trait::async_trait]
impl Auth for AuthService {
    async fn auth_enable(&self, request: Request<pb::AuthEnableRequest>) -> Answer<pb::AuthEnableResponse> {
        let header = self.change(&Caller::from(&request), |rules| rules.plan_enable(new_token_key())).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(&self, request: Request<pb::AuthDisableRequest>) -> Answer<pb::AuthDisableResponse> {
        let header = self.change(&Caller::from(&request), |rules| Ok(rules.plan_disable())).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(&self, _request: Request<pb::AuthStatusRequest>) -> Answer<pb::AuthStatusResponse> {
        self.member.check_agreement().await.map_err(|error| status_of(&error))?;
        let rules = self.member.access.rules();
        let header = Some(self.member.header_now());
        Ok(Response::new(pb::AuthStatusResponse { header, enabled: rules.enabled, auth_revision: rules.revision }))
    }

    async fn authenticate(&self, request: Request<pb::AuthenticateRequest>) -> Answer<pb::AuthenticateResponse> {
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        self.member.check_agreement().await.map_err(|error| status_of(&error))?;
        let access = &self.member.access;
        for _ in 0..JUDGEMENTS_MAX {
            let rules = access.rules();
            let hash = AccessControl::password_hash(&rules, &name)?;
            access.passwords.check(password.clone(), hash).await?;
            if access.rules().judged_by != rules.judged_by {
                continue;
            }
            if let Some(token) = access.assign_token(&rules, &name)? {
                let header = Some(self.member.header_now());
                return Ok(Response::new(pb::AuthenticateResponse { header, token }));
            }
            let judged = self.member.store.judged(rules.judged_by);
            match bounded(judged.change_policy(rules.plan_token_key(new_token_key()))).await {
                Ok(_) | Err(KvError::PolicyChanged) => {}
                Err(error) => return Err(status_of(&error)),
            }
        }
        Err(OLD_AUTH_REVISION.into())
    }

    async fn user_add(&self, request: Request<pb::AuthUserAddRequest>) -> Answer<pb::AuthUserAddResponse> {
        let caller = Caller::from(&request);
        let pb::AuthUserAddRequest { name, password, options, .. } = request.into_inner();
        let hash = match options {
            Some(options) if options.no_password => None,
            _ => Some(self.member.access.passwords.hash(password).await?),
        };
        let header = self.change(&caller, |rules| rules.plan_user_add(&name, hash.clone())).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    /// Users may see their own roles.
    async fn user_get(&self, request: Request<pb::AuthUserGetRequest>) -> Answer<pb::AuthUserGetResponse> {
        let rights = self.rights(&request).await?;
        let name = &request.get_ref().name;
        if rights.user() != Some(name) {
            rights.check_admin()?;
        }
        let roles = rights.rules().users.get(name).ok_or(USER_NOT_FOUND)?.roles.clone();
        Ok(Response::new(pb::AuthUserGetResponse { header: Some(self.member.header_now()), roles }))
    }

    async fn user_list(&self, request: Request<pb::AuthUserListRequest>) -> Answer<pb::AuthUserListResponse> {
        let users = self.rights(&request).await?.rules().users.keys().cloned().collect();
        Ok(Response::new(pb::AuthUserListResponse { header: Some(self.member.header_now()), users }))
    }

    async fn user_delete(&self, request: Request<pb::AuthUserDeleteRequest>) -> Answer<pb::AuthUserDeleteResponse> {
        let name = &request.get_ref().name;
        let header = self.change(&Caller::from(&request), |rules| rules.plan_user_delete(name)).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        let caller = Caller::from(&request);
        let pb::AuthUserChangePasswordRequest { name, password, hashed_password } = request.into_inner();
        // As in etcd, a client may send the hash itself; no password and no hash is one that nobody can give.
        let hash = if password.is_empty() {
            BASE64_STANDARD.decode(hashed_password).map_err(|_| NO_PASSWORD_USER)?
        } else {
            self.member.access.passwords.hash(password).await?
        };
        let header = self.change(&caller, |rules| rules.plan_password(&name, hash.clone())).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Answer<pb::AuthUserGrantRoleResponse> {
        let pb::AuthUserGrantRoleRequest { user, role } = request.get_ref();
        let header = self.change(&Caller::from(&request), |rules| rules.plan_role_grant(user, role)).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Answer<pb::AuthUserRevokeRoleResponse> {
        let pb::AuthUserRevokeRoleRequest { name, role } = request.get_ref();
        let header = self.change(&Caller::from(&request), |rules| rules.plan_role_revoke(name, role)).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(&self, request: Request<pb::AuthRoleAddRequest>) -> Answer<pb::AuthRoleAddResponse> {
        let name = &request.get_ref().name;
        let header = self.change(&Caller::from(&request), |rules| rules.plan_role_add(name)).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    /// Users may see what the roles that they have permit.
    async fn role_get(&self, request: Request<pb::AuthRoleGetRequest>) -> Answer<pb::AuthRoleGetResponse> {
        let rights = self.rights(&request).await?;
        let role = &request.get_ref().role;
        if !rights.user().is_some_and(|user| rights.rules().has_role(user, role)) {
            rights.check_admin()?;
        }
        let perm = rights.rules().shown_permissions(role)?;
        Ok(Response::new(pb::AuthRoleGetResponse { header: Some(self.member.header_now()), perm }))
    }

    async fn role_list(&self, request: Request<pb::AuthRoleListRequest>) -> Answer<pb::AuthRoleListResponse> {
        let roles = self.rights(&request).await?.rules().roles.keys().cloned().collect();
        Ok(Response::new(pb::AuthRoleListResponse { header: Some(self.member.header_now()), roles }))
    }

    async fn role_delete(&self, request: Request<pb::AuthRoleDeleteRequest>) -> Answer<pb::AuthRoleDeleteResponse> {
        let role = &request.get_ref().role;
        let header = self.change(&Caller::from(&request), |rules| rules.plan_role_delete(role)).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        let pb::AuthRoleGrantPermissionRequest { name, perm } = request.get_ref();
        let plan = |rules: &Rules| rules.plan_permission_grant(name, perm.clone());
        let header = self.change(&Caller::from(&request), plan).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request.get_ref();
        let plan = |rules: &Rules| rules.plan_permission_revoke(role, key, range_end);
        let header = self.change(&Caller::from(&request), plan).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}

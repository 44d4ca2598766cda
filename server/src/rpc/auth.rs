//! Auth: authentication is off and there are no users or roles; making some is not there yet.
//!
//! Until then each rpc answers what etcd answers with an empty auth store: a user that is looked for is not found,
//! enabling fails because there is no user root.

use super::header::header_now;
use super::status::{Error, not_yet};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::serving::Serving;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Revision of an auth store in which nothing was ever changed.
const AUTH_REVISION: u64 = 1;

/// The service on one serving thread.
pub(crate) struct AuthService {
    pub(crate) serving: Arc<Serving>,
}

type Answer<T> = Result<Response<T>, Status>;

fn refused<T>(error: Error) -> Answer<T> {
    Err(error.into())
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(&self, _: Request<pb::AuthEnableRequest>) -> Answer<pb::AuthEnableResponse> {
        refused(Error::RootUserNotExist)
    }

    async fn auth_disable(&self, _: Request<pb::AuthDisableRequest>) -> Answer<pb::AuthDisableResponse> {
        Ok(Response::new(pb::AuthDisableResponse { header: header_now(&self.serving.shared) }))
    }

    async fn auth_status(&self, _: Request<pb::AuthStatusRequest>) -> Answer<pb::AuthStatusResponse> {
        Ok(Response::new(pb::AuthStatusResponse {
            header: header_now(&self.serving.shared),
            enabled: false,
            auth_revision: AUTH_REVISION,
        }))
    }

    async fn authenticate(&self, _: Request<pb::AuthenticateRequest>) -> Answer<pb::AuthenticateResponse> {
        refused(Error::AuthNotEnabled)
    }

    async fn user_add(&self, request: Request<pb::AuthUserAddRequest>) -> Answer<pb::AuthUserAddResponse> {
        if request.get_ref().name.is_empty() {
            return refused(Error::UserEmpty);
        }
        Err(not_yet("UserAdd"))
    }

    async fn user_get(&self, _: Request<pb::AuthUserGetRequest>) -> Answer<pb::AuthUserGetResponse> {
        refused(Error::UserNotFound)
    }

    async fn user_list(&self, _: Request<pb::AuthUserListRequest>) -> Answer<pb::AuthUserListResponse> {
        let header = header_now(&self.serving.shared);
        Ok(Response::new(pb::AuthUserListResponse { header, users: Vec::new() }))
    }

    async fn user_delete(&self, _: Request<pb::AuthUserDeleteRequest>) -> Answer<pb::AuthUserDeleteResponse> {
        refused(Error::UserNotFound)
    }

    async fn user_change_password(
        &self,
        _: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        refused(Error::UserNotFound)
    }

    async fn user_grant_role(
        &self,
        _: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Answer<pb::AuthUserGrantRoleResponse> {
        refused(Error::UserNotFound)
    }

    async fn user_revoke_role(
        &self,
        _: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Answer<pb::AuthUserRevokeRoleResponse> {
        refused(Error::UserNotFound)
    }

    async fn role_add(&self, request: Request<pb::AuthRoleAddRequest>) -> Answer<pb::AuthRoleAddResponse> {
        if request.get_ref().name.is_empty() {
            return refused(Error::RoleEmpty);
        }
        Err(not_yet("RoleAdd"))
    }

    async fn role_get(&self, _: Request<pb::AuthRoleGetRequest>) -> Answer<pb::AuthRoleGetResponse> {
        refused(Error::RoleNotFound)
    }

    async fn role_list(&self, _: Request<pb::AuthRoleListRequest>) -> Answer<pb::AuthRoleListResponse> {
        let header = header_now(&self.serving.shared);
        Ok(Response::new(pb::AuthRoleListResponse { header, roles: Vec::new() }))
    }

    async fn role_delete(&self, _: Request<pb::AuthRoleDeleteRequest>) -> Answer<pb::AuthRoleDeleteResponse> {
        refused(Error::RoleNotFound)
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        if request.get_ref().perm.is_none() {
            return refused(Error::PermissionNotGiven);
        }
        refused(Error::RoleNotFound)
    }

    async fn role_revoke_permission(
        &self,
        _: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        refused(Error::RoleNotFound)
    }
}

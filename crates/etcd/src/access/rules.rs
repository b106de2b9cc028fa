//! Users, their roles and what these permit, as the store's policy records say; and the changes of it. Pure.
//!
//! ```text
//! state       AccessState
//! user/NAME   authpb.User
//! role/NAME   authpb.Role
//! ```
//!
//! A change is planned on the rules that are, and proposed as judged by them: it never overwrites another one. What is
//! refused, and in which words, is etcd's (3.7.3, `server/auth/store.go`).

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use store::{Policy, PolicyChange};

use super::permissions::{Permissions, is_valid_grant};
use crate::proto::authpb::permission::Type;
use crate::proto::authpb::{AccessState, Permission, Role, User, UserAddOptions};
use crate::refusals::{
    INVALID_MANAGEMENT, PERMISSION_NOT_GIVEN, PERMISSION_NOT_GRANTED, ROLE_EMPTY, ROLE_EXISTS, ROLE_NOT_FOUND,
    ROLE_NOT_GRANTED, ROOT_ROLE_MISSING, ROOT_USER_MISSING, Refusal, USER_EMPTY, USER_EXISTS, USER_NOT_FOUND,
};

/// The name of the user without whom access control cannot be enabled, and of the role that permits everything.
pub(crate) const ROOT: &str = "root";

const STATE: &[u8] = b"state";
const USER: &str = "user/";
const ROLE: &str = "role/";

/// Changes to be made together; none if nothing is to be done.
pub(crate) type Planned = Result<Vec<PolicyChange>, Refusal>;

/// The rules as of one revision of the policy.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// The policy's.
    pub(crate) judged_by: u64,
    pub(crate) enabled: bool,
    /// etcd's: counts changes of users and roles.
    pub(crate) revision: u64,
    /// Signs simple tokens; empty while there are none.
    pub(crate) token_key: Bytes,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) roles: BTreeMap<String, Role>,
    permissions: BTreeMap<String, Permissions>,
}

impl Rules {
    /// Records that make no sense are not there: then nobody has what they would permit.
    pub(crate) fn of(policy: &Policy) -> Self {
        Self::of_records(policy.revision, &policy.records)
    }

    pub(crate) fn of_records(judged_by: u64, records: &BTreeMap<Bytes, Bytes>) -> Self {
        let state = records.get(STATE).and_then(|state| AccessState::decode(state.as_ref()).ok());
        let AccessState { enabled, revision, token_key } = state.unwrap_or_default();
        let revision = revision.max(1);
        let mut rules = Self { judged_by, enabled, revision, token_key, ..Self::default() };
        for (name, value) in records {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if let Some(name) = name.strip_prefix(USER) {
                rules.users.extend(User::decode(value.as_ref()).ok().map(|user| (name.to_owned(), user)));
            } else if let Some(name) = name.strip_prefix(ROLE) {
                rules.roles.extend(Role::decode(value.as_ref()).ok().map(|role| (name.to_owned(), role)));
            }
        }
        rules.permissions = rules.users.iter().map(|(name, user)| (name.clone(), rules.merge(user))).collect();
        rules
    }

    /// The records that say the same.
    pub(crate) fn records(state: &AccessState, users: &[User], roles: &[Role]) -> BTreeMap<Bytes, Bytes> {
        let users = users.iter().map(|user| (record_name(USER, &user.name), user.encode_to_vec().into()));
        let roles = roles.iter().map(|role| (record_name(ROLE, &role.name), role.encode_to_vec().into()));
        let state = (Bytes::from_static(STATE), state.encode_to_vec().into());
        users.chain(roles).chain([state]).collect()
    }

    fn merge(&self, user: &User) -> Permissions {
        Permissions::of(user.roles.iter().filter_map(|role| self.roles.get(role)).flat_map(|role| &role.key_permission))
    }

    pub(crate) fn permissions_of(&self, user: &str) -> Option<&Permissions> {
        self.permissions.get(user)
    }

    pub(crate) fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.roles.iter().any(|granted| granted == role))
    }

    fn state(&self, enabled: bool, revision: u64, token_key: Bytes) -> PolicyChange {
        let state = AccessState { enabled, revision, token_key };
        (Bytes::from_static(STATE), Some(state.encode_to_vec().into()))
    }

    /// Changes of users and roles, which are counted.
    fn counted(&self, mut changes: Vec<PolicyChange>) -> Vec<PolicyChange> {
        changes.push(self.state(self.enabled, self.revision + 1, self.token_key.clone()));
        changes
    }

    /// Turns access control on. `token_key`: a new one.
    pub(crate) fn plan_enable(&self, token_key: Bytes) -> Planned {
        if self.enabled {
            return Ok(Vec::new());
        }
        let root = self.users.get(ROOT).ok_or(ROOT_USER_MISSING)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(ROOT_ROLE_MISSING);
        }
        Ok(vec![self.state(true, self.revision, token_key)])
    }

    /// Tokens end with it.
    pub(crate) fn plan_disable(&self) -> Vec<PolicyChange> {
        if self.enabled { vec![self.state(false, self.revision + 1, Bytes::new())] } else { Vec::new() }
    }

    /// Rules that come from elsewhere have no key.
    pub(crate) fn plan_token_key(&self, token_key: Bytes) -> Vec<PolicyChange> {
        vec![self.state(self.enabled, self.revision, token_key)]
    }

    /// `hash`: of the password; `None` for a user without.
    pub(crate) fn plan_user_add(&self, name: &str, hash: Option<Vec<u8>>) -> Planned {
        if name.is_empty() {
            return Err(USER_EMPTY);
        }
        if self.users.contains_key(name) {
            return Err(USER_EXISTS);
        }
        let options = Some(UserAddOptions { no_password: hash.is_none() });
        let password = hash.unwrap_or_default().into();
        let user = User { name: name.to_owned().into(), password, roles: Vec::new(), options };
        Ok(self.counted(vec![put_user(&user)]))
    }

    pub(crate) fn plan_user_delete(&self, name: &str) -> Planned {
        if self.enabled && name == ROOT {
            return Err(INVALID_MANAGEMENT);
        }
        let user = self.users.get(name).ok_or(USER_NOT_FOUND)?;
        Ok(self.counted(vec![(record_name(USER, &user.name), None)]))
    }

    /// A user without a password stays so.
    pub(crate) fn plan_password(&self, name: &str, hash: Vec<u8>) -> Planned {
        let user = self.users.get(name).ok_or(USER_NOT_FOUND)?;
        let password = if has_no_password(user) { Bytes::new() } else { hash.into() };
        Ok(self.counted(vec![put_user(&User { password, ..user.clone() })]))
    }

    pub(crate) fn plan_role_grant(&self, user: &str, role: &str) -> Planned {
        let user = self.users.get(user).ok_or(USER_NOT_FOUND)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(ROLE_NOT_FOUND);
        }
        let mut user = user.clone();
        match user.roles.binary_search_by(|granted| granted.as_str().cmp(role)) {
            Ok(_) => Ok(Vec::new()),
            Err(at) => {
                user.roles.insert(at, role.to_owned());
                Ok(self.counted(vec![put_user(&user)]))
            }
        }
    }

    pub(crate) fn plan_role_revoke(&self, user: &str, role: &str) -> Planned {
        if self.enabled && user == ROOT && role == ROOT {
            return Err(INVALID_MANAGEMENT);
        }
        let user = self.users.get(user).ok_or(USER_NOT_FOUND)?;
        let without = without_role(user, role).ok_or(ROLE_NOT_GRANTED)?;
        Ok(self.counted(vec![put_user(&without)]))
    }

    pub(crate) fn plan_role_add(&self, name: &str) -> Planned {
        if name.is_empty() {
            return Err(ROLE_EMPTY);
        }
        if self.roles.contains_key(name) {
            return Err(ROLE_EXISTS);
        }
        Ok(self.counted(vec![put_role(&Role { name: name.to_owned().into(), key_permission: Vec::new() })]))
    }

    /// Whoever has the role has it no more.
    pub(crate) fn plan_role_delete(&self, name: &str) -> Planned {
        if self.enabled && name == ROOT {
            return Err(INVALID_MANAGEMENT);
        }
        let role = self.roles.get(name).ok_or(ROLE_NOT_FOUND)?;
        let users = self.users.values().filter_map(|user| without_role(user, name)).map(|user| put_user(&user));
        Ok(self.counted(users.chain([(record_name(ROLE, &role.name), None)]).collect()))
    }

    pub(crate) fn plan_permission_grant(&self, role: &str, permission: Option<Permission>) -> Planned {
        let permission = permission.ok_or(PERMISSION_NOT_GIVEN)?;
        if !is_valid_grant(&permission.key, &permission.range_end) {
            return Err(INVALID_MANAGEMENT);
        }
        let mut role = self.roles.get(role).ok_or(ROLE_NOT_FOUND)?.clone();
        let is_same = |known: &&mut Permission| known.key == permission.key && known.range_end == permission.range_end;
        match role.key_permission.iter_mut().find(is_same) {
            Some(known) => known.perm_type = permission.perm_type,
            None => role.key_permission.push(permission),
        }
        role.key_permission.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(self.counted(vec![put_role(&role)]))
    }

    pub(crate) fn plan_permission_revoke(&self, role: &str, key: &[u8], range_end: &[u8]) -> Planned {
        let mut role = self.roles.get(role).ok_or(ROLE_NOT_FOUND)?.clone();
        let before = role.key_permission.len();
        role.key_permission.retain(|known| known.key != key || known.range_end != range_end);
        if role.key_permission.len() == before {
            return Err(PERMISSION_NOT_GRANTED);
        }
        Ok(self.counted(vec![put_role(&role)]))
    }

    /// What a role permits, as it is shown.
    pub(crate) fn shown_permissions(&self, role: &str) -> Result<Vec<Permission>, Refusal> {
        let found = self.roles.get(role).ok_or(ROLE_NOT_FOUND)?;
        let all =
            Permission { perm_type: Type::Readwrite as i32, key: Bytes::new(), range_end: Bytes::from_static(b"\0") };
        Ok(if role == ROOT { vec![all] } else { found.key_permission.clone() })
    }
}

pub(crate) fn has_no_password(user: &User) -> bool {
    user.options.as_ref().is_some_and(|options| options.no_password)
}

fn record_name(kind: &str, name: &[u8]) -> Bytes {
    [kind.as_bytes(), name].concat().into()
}

fn put_user(user: &User) -> PolicyChange {
    (record_name(USER, &user.name), Some(user.encode_to_vec().into()))
}

fn put_role(role: &Role) -> PolicyChange {
    (record_name(ROLE, &role.name), Some(role.encode_to_vec().into()))
}

/// `None`: the user does not have it.
fn without_role(user: &User, role: &str) -> Option<User> {
    let mut without = user.clone();
    without.roles.retain(|granted| granted != role);
    (without.roles.len() < user.roles.len()).then_some(without)
}

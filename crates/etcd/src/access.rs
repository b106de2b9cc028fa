//! Access control: who a caller is, and what the rules permit it. etcd's users, roles and tokens.
//!
//! ```text
//! headers, certificate -> Caller -> AccessControl -> Rights -> store::Judged
//! ```
//!
//! The rules are policy records of the store ([`rules`]). A request is checked by the rules as they are here, and the store
//! does it only while they are that revision: if they have changed, it is checked anew. So a right ends, everywhere, with
//! the entry that takes it away. Off, as in etcd, until it is enabled.

mod jwt;
mod passwords;
mod permissions;
pub(crate) mod rules;
mod simple_tokens;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base::{Clock, OsRng, Rng as _};
use bytes::Bytes;
use store::{Op, Store, Txn};
use tonic::Request;

pub use jwt::{JwtSettings, JwtSettingsError};
pub(crate) use passwords::Passwords;
use permissions::Permissions;
use rules::{ROOT, Rules};

use self::jwt::JwtTokens;
use self::simple_tokens::SimpleTokens;
use crate::refusals::{
    AUTH_FAILED, AUTH_NOT_ENABLED, INVALID_TOKEN, NO_PASSWORD_USER, OLD_AUTH_REVISION, PERMISSION_DENIED, Refusal,
    USER_EMPTY, USER_NOT_FOUND, VERIFY_ONLY,
};

/// How often a request is checked anew because the rules changed under it; then its client hears so.
pub(crate) const JUDGEMENTS_MAX: usize = 16;
const TOKEN_KEY_BYTES: usize = 32;

/// What the binary says about access control.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// `None`: simple tokens.
    pub jwt: Option<JwtSettings>,
    /// Of simple tokens, after their last use.
    pub token_time_to_live: Duration,
    /// Of bcrypt, 4 to 31.
    pub bcrypt_cost: u32,
    /// A client without a token is the user whom its certificate names (CN).
    pub trusts_common_names: bool,
}

impl Default for AccessSettings {
    /// etcd's defaults.
    fn default() -> Self {
        Self { jwt: None, token_time_to_live: Duration::from_secs(300), bcrypt_cost: 10, trusts_common_names: false }
    }
}

/// What a request says about who makes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    pub(crate) token: Option<String>,
    pub(crate) common_name: Option<Arc<str>>,
}

impl Caller {
    /// The headers that etcd's clients send, and the name in the certificate of the connection.
    pub(crate) fn of(headers: &http::HeaderMap, common_name: Option<Arc<str>>) -> Self {
        let header = headers.get("token").or_else(|| headers.get("authorization"));
        let token = header.and_then(|token| token.to_str().ok());
        let token = token.map(|token| token.strip_prefix("Bearer ").unwrap_or(token).to_owned());
        // A gateway's certificate does not name who asks the gateway.
        let is_gateway = headers.contains_key("grpcgateway-accept");
        Self { token, common_name: common_name.filter(|_| !is_gateway) }
    }

    /// The caller of a request that came through the listener.
    pub(crate) fn from<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }
}

enum Tokens {
    Simple(SimpleTokens),
    Jwt(Box<JwtTokens>),
}

/// The access control of one server.
pub(crate) struct AccessControl {
    store: Arc<Store>,
    /// As of the last look at the policy.
    rules: RwLock<Arc<Rules>>,
    tokens: Tokens,
    pub(crate) passwords: Passwords,
    trusts_common_names: bool,
}

impl AccessControl {
    pub(crate) fn new(
        store: Arc<Store>,
        settings: &AccessSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, JwtSettingsError> {
        let tokens = match &settings.jwt {
            Some(jwt) => Tokens::Jwt(Box::new(JwtTokens::new(jwt, clock)?)),
            None => Tokens::Simple(SimpleTokens::new(clock, settings.token_time_to_live)),
        };
        let rules = RwLock::new(Arc::new(Rules::of(&store.policy())));
        let (passwords, trusts_common_names) = (Passwords::new(settings.bcrypt_cost), settings.trusts_common_names);
        Ok(Self { store, rules, tokens, passwords, trusts_common_names })
    }

    /// The names in certificates say who calls.
    pub(crate) fn heeds_common_names(&self) -> bool {
        self.trusts_common_names && self.rules().enabled
    }

    /// The rules as they are here now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        let policy = self.store.policy();
        let known = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        if known.judged_by == policy.revision {
            return known;
        }
        let rules = Arc::new(Rules::of(&policy));
        let mut newest = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        if newest.judged_by < rules.judged_by {
            *newest = Arc::clone(&rules);
        }
        rules
    }

    /// What the caller may do. `INVALID_TOKEN`: perhaps of a member that is ahead of this one; worth another look once this
    /// one has caught up.
    pub(crate) fn rights(&self, caller: &Caller) -> Result<Rights, Refusal> {
        let rules = self.rules();
        let who = if rules.enabled { self.identify(&rules, caller)? } else { Who::Nobody };
        Ok(Rights { rules, who })
    }

    fn identify(&self, rules: &Rules, caller: &Caller) -> Result<Who, Refusal> {
        if let Some(token) = &caller.token {
            return match &self.tokens {
                Tokens::Simple(tokens) => {
                    let name = tokens.verify(rules, token).ok_or(INVALID_TOKEN)?;
                    Ok(Who::User { name, revision: rules.revision })
                }
                Tokens::Jwt(tokens) => {
                    let claims = tokens.verify(token).ok_or(INVALID_TOKEN)?;
                    Ok(Who::User { name: claims.user, revision: claims.revision })
                }
            };
        }
        let name = caller.common_name.as_ref().filter(|_| self.trusts_common_names);
        Ok(name.map_or(Who::Nobody, |name| Who::User { name: name.to_string(), revision: rules.revision }))
    }

    /// The hash that a password must have for its user to get a token.
    pub(crate) fn password_hash(rules: &Rules, user: &str) -> Result<Vec<u8>, Refusal> {
        if !rules.enabled {
            return Err(AUTH_NOT_ENABLED);
        }
        let user = rules.users.get(user).ok_or(AUTH_FAILED)?;
        if rules::has_no_password(user) { Err(NO_PASSWORD_USER) } else { Ok(user.password.to_vec()) }
    }

    /// A token for a user whose password is right by these rules. `None`: they have no key yet, which simple tokens need.
    pub(crate) fn assign_token(&self, rules: &Rules, user: &str) -> Result<Option<String>, Refusal> {
        match &self.tokens {
            Tokens::Simple(_) if rules.token_key.is_empty() => Ok(None),
            Tokens::Simple(tokens) => Ok(Some(tokens.assign(rules, user))),
            Tokens::Jwt(tokens) => tokens.assign(user, rules.revision).map(Some).ok_or(VERIFY_ONLY),
        }
    }
}

/// A new key for simple tokens.
pub(crate) fn new_token_key() -> Bytes {
    let mut key = Vec::with_capacity(TOKEN_KEY_BYTES);
    while key.len() < TOKEN_KEY_BYTES {
        key.extend_from_slice(&OsRng.next_u64().to_be_bytes());
    }
    key.into()
}

enum Who {
    /// Without a token or a name, or nobody asks for one.
    Nobody,
    /// `revision`: of the rules that the token is of.
    User { name: String, revision: u64 },
}

/// What one caller may do by the rules of one moment.
pub(crate) struct Rights {
    rules: Arc<Rules>,
    who: Who,
}

impl Rights {
    /// The policy's revision, for [`Store::judged`].
    pub(crate) fn judged_by(&self) -> u64 {
        self.rules.judged_by
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn user(&self) -> Option<&str> {
        match &self.who {
            Who::User { name, .. } => Some(name),
            Who::Nobody => None,
        }
    }

    /// That the caller is somebody.
    pub(crate) fn check_known(&self) -> Result<(), Refusal> {
        if self.rules.enabled && self.user().is_none() { Err(USER_EMPTY) } else { Ok(()) }
    }

    /// That the caller may administer the store.
    pub(crate) fn check_admin(&self) -> Result<(), Refusal> {
        if !self.rules.enabled {
            return Ok(());
        }
        let name = self.user().filter(|name| !name.is_empty()).ok_or(USER_EMPTY)?;
        match self.rules.users.get(name) {
            None => Err(USER_NOT_FOUND),
            Some(_) if self.rules.has_role(name, ROOT) => Ok(()),
            Some(_) => Err(PERMISSION_DENIED),
        }
    }

    /// `None`: everything.
    fn permissions(&self) -> Result<Option<&Permissions>, Refusal> {
        if !self.rules.enabled {
            return Ok(None);
        }
        let Who::User { name, revision } = &self.who else { return Err(USER_EMPTY) };
        if *revision < self.rules.revision {
            return Err(OLD_AUTH_REVISION);
        }
        let permissions = self.rules.permissions_of(name).ok_or(PERMISSION_DENIED)?;
        Ok((!self.rules.has_role(name, ROOT)).then_some(permissions))
    }

    pub(crate) fn check_read(&self, key: &Bytes, end: Option<&Bytes>) -> Result<(), Refusal> {
        let permissions = self.permissions()?;
        if permissions.is_none_or(|may| may.may_read(key, end)) { Ok(()) } else { Err(PERMISSION_DENIED) }
    }

    pub(crate) fn check_write(&self, key: &Bytes, end: Option<&Bytes>) -> Result<(), Refusal> {
        let permissions = self.permissions()?;
        if permissions.is_none_or(|may| may.may_write(key, end)) { Ok(()) } else { Err(PERMISSION_DENIED) }
    }

    /// Whether it matters which keys a lease has: who may do everything, or nothing, is not asked.
    pub(crate) fn is_limited(&self) -> bool {
        self.permissions().is_ok_and(|permissions| permissions.is_some())
    }

    /// All that a transaction might do, whichever branch it takes, but for the keys of its leases.
    pub(crate) fn check_txn(&self, txn: &Txn) -> Result<(), Refusal> {
        for compare in &txn.compares {
            self.check_read(&compare.key, compare.end.as_ref())?;
        }
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Range(range) => self.check_read(&range.key, range.end.as_ref()),
            Op::Put(put) => {
                self.check_write(&put.key, None)?;
                if put.prev_kv { self.check_read(&put.key, None) } else { Ok(()) }
            }
            Op::Delete(delete) => {
                self.check_write(&delete.key, delete.end.as_ref())?;
                if delete.prev_kv { self.check_read(&delete.key, delete.end.as_ref()) } else { Ok(()) }
            }
            Op::Txn(nested) => self.check_txn(nested),
        })
    }
}

/// The leases that a transaction may attach keys to.
pub(crate) fn leases_of(txn: &Txn, leases: &mut Vec<i64>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put(put) if put.lease != 0 && !leases.contains(&put.lease) => leases.push(put.lease),
            Op::Txn(nested) => leases_of(nested, leases),
            _ => {}
        }
    }
}

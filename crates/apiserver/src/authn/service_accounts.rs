//! Bound service-account tokens: what they say, and whether it still holds.
//!
//! In: token text and the audiences asked for; live objects through [`Reader`]. Out: [`Verified`], or the reason against.
//!
//! Invariants: a token lives no longer than what it is bound to: the account, and the pod, secret or node if any, must
//! exist with the very uid in the token (one minute of grace after deletion began, as upstream). A signature is checked
//! once and remembered by the token's digest; the objects and the clock are asked every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CREDENTIAL_ID;
use super::jwt::{JwtError, SigningKey};
use crate::chain::Identity;
use crate::reader::Reader;

/// The issuer, and the audience of tokens for this API server.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Clocks may differ this much, seconds.
const LEEWAY: i64 = 60;
/// Signatures remembered at once; when full, all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// A token's payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    pub nbf: i64,
    pub sub: String,
}

/// What the token is bound to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Who a token stands for, and for which of the asked audiences.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    pub identity: Identity,
    pub audiences: Vec<String>,
}

/// Why a token is refused. The texts are upstream's, for TokenReview.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("invalid bearer token")]
    NotOurs(#[source] JwtError),
    #[error("invalid bearer token")]
    Claims(#[source] serde_json::Error),
    #[error("invalid bearer token")]
    Issuer,
    #[error("[invalid bearer token, {0}]")]
    Refused(String),
}

/// Issues (see [`super::token_request`]) and verifies.
pub struct ServiceAccountTokens {
    pub(super) key: SigningKey,
    pub(super) clock: Arc<dyn Clock>,
    reader: Arc<dyn Reader>,
    verified: Mutex<HashMap<Vec<u8>, Arc<Claims>>>,
}

impl ServiceAccountTokens {
    pub fn new(key_pem: &str, reader: Arc<dyn Reader>, clock: Arc<dyn Clock>) -> Result<Self, JwtError> {
        let key = SigningKey::from_pem(key_pem)?;
        Ok(Self { key, clock, reader, verified: Mutex::new(HashMap::new()) })
    }

    /// Audiences of this API server.
    pub fn default_audiences(&self) -> Vec<String> {
        vec![ISSUER.to_owned()]
    }

    pub(super) fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Who `token` stands for, if it is meant for one of `audiences`.
    pub fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Verified, TokenError> {
        let claims = self.claims(token)?;
        if claims.iss != ISSUER {
            return Err(TokenError::Issuer);
        }
        let matching: Vec<String> = audiences.iter().filter(|wanted| claims.aud.contains(wanted)).cloned().collect();
        if matching.is_empty() {
            let why = format!(
                "token audiences {} is invalid for the target audiences {}",
                show(&claims.aud),
                show(audiences)
            );
            return Err(TokenError::Refused(why));
        }
        self.check_time(&claims).and_then(|()| self.check_objects(&claims)).map_err(TokenError::Refused)?;
        Ok(Verified { identity: identity_of(&claims), audiences: matching })
    }

    fn claims(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let fingerprint = digest(&SHA256, token.as_bytes()).as_ref().to_vec();
        let lock = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&fingerprint) {
            return Ok(Arc::clone(known));
        }
        let bytes = self.key.verify(token).map_err(TokenError::NotOurs)?;
        let claims: Arc<Claims> = Arc::new(serde_json::from_slice(&bytes).map_err(TokenError::Claims)?);
        let mut known = lock();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(fingerprint, Arc::clone(&claims));
        Ok(claims)
    }

    fn check_time(&self, claims: &Claims) -> Result<(), String> {
        let now = self.clock.now().as_second();
        if now - LEEWAY > claims.exp {
            return Err("service account token has expired".to_owned());
        }
        if now + LEEWAY < claims.nbf {
            return Err("service account token is not valid yet".to_owned());
        }
        if now + LEEWAY < claims.iat {
            return Err("service account token is issued in the future".to_owned());
        }
        Ok(())
    }

    fn check_objects(&self, claims: &Claims) -> Result<(), String> {
        let bound = &claims.kubernetes;
        let (namespace, account) = (bound.namespace.as_str(), &bound.serviceaccount);
        let found = self.reader.get("", "serviceaccounts", namespace, &account.name);
        let found = found.ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
        let uid = text(&found["metadata"]["uid"]);
        if uid != account.uid {
            return Err(format!("service account UID ({uid}) does not match claim ({})", account.uid));
        }
        if self.is_long_deleted(&found) {
            return Err(format!("service account {namespace}/{} has been deleted", account.name));
        }
        if let Some(secret) = &bound.secret {
            self.check_bound("secrets", namespace, secret, "secret", "service account token secret")?;
        }
        match (&bound.pod, &bound.node) {
            (Some(pod), _) => self.check_bound("pods", namespace, pod, "pod", "service account pod"),
            (None, Some(node)) => self.check_bound("nodes", "", node, "node", "service account node"),
            (None, None) => Ok(()),
        }
    }

    fn check_bound(
        &self,
        resource: &str,
        namespace: &str,
        to: &Reference,
        word: &str,
        claim: &str,
    ) -> Result<(), String> {
        let invalidated = || "service account token has been invalidated".to_owned();
        let found = self.reader.get("", resource, namespace, &to.name).ok_or_else(invalidated)?;
        let uid = text(&found["metadata"]["uid"]);
        if uid != to.uid {
            return Err(format!("{word} UID ({uid}) does not match {claim} ref claim ({})", to.uid));
        }
        if self.is_long_deleted(&found) { Err(invalidated()) } else { Ok(()) }
    }

    fn is_long_deleted(&self, object: &Value) -> bool {
        let deleted = object["metadata"]["deletionTimestamp"].as_str();
        let deleted = deleted.and_then(|time| time.parse::<jiff::Timestamp>().ok());
        deleted.is_some_and(|time| time.as_second() < self.clock.now().as_second() - LEEWAY)
    }
}

fn identity_of(claims: &Claims) -> Identity {
    let bound = &claims.kubernetes;
    let mut extra = std::collections::BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = &bound.pod {
        put("pod-name", &pod.name);
        put("pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        put("node-name", &node.name);
        put("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", claims.jti)]);
    }
    Identity {
        user: user_name(&bound.namespace, &bound.serviceaccount.name),
        uid: bound.serviceaccount.uid.clone(),
        groups: group_names(&bound.namespace),
        extra,
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The groups of every account in `namespace`.
pub fn group_names(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// Namespace and name of a service account's user name.
pub fn split_user_name(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn show(list: &[String]) -> String {
    crate::rbac::rule::quote_list(list)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

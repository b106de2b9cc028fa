//! Authentication: who sends this request?
//!
//! In: the head of a request with the client's certificates. Out: an [`Identity`], or 401.
//!
//! Order: client certificate, bearer token, anonymous. A certificate of a foreign CA counts as none; a bearer token that
//! is not ours is refused at once. Anonymous requests reach the health endpoints only. Then impersonation headers change
//! who the request acts as, if the authorizer allows it.
//!
//! Reading order: this file, [`certificates`], [`service_accounts`], [`jwt`], [`token_request`], [`impersonation`],
//! [`reviews`], [`oidc`].

pub mod certificates;
pub mod impersonation;
pub mod jwt;
pub mod oidc;
pub mod reviews;
pub mod service_accounts;
pub mod token_request;

use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;

use crate::chain::{Authenticator, Authorizer, Identity, PeerCertificates};
use crate::error::ApiError;

pub use certificates::CertificateAuthenticator;
pub use service_accounts::ServiceAccountTokens;

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
/// Key in the user's extra that tells which credential was used.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Paths that need no identity.
const ANONYMOUS_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];
/// Browsers cannot set headers on a WebSocket; they send the token as a subprotocol with this prefix, base64url.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
/// Longer tokens are refused unread.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The server's authenticator.
pub struct Authentication {
    certificates: CertificateAuthenticator,
    tokens: Arc<ServiceAccountTokens>,
    authorizer: Arc<dyn Authorizer>,
}

impl Authentication {
    /// `authorizer` decides on impersonation.
    pub fn new(
        certificates: CertificateAuthenticator,
        tokens: Arc<ServiceAccountTokens>,
        authorizer: Arc<dyn Authorizer>,
    ) -> Self {
        Self { certificates, tokens, authorizer }
    }

    fn identify(&self, parts: &Parts) -> Result<Identity, ApiError> {
        if let Some(PeerCertificates(chain)) = parts.extensions.get::<PeerCertificates>()
            && let Some(identity) = self.certificates.identify(chain)
        {
            return Ok(authenticated(identity));
        }
        if let Some(token) = bearer_token(parts) {
            return match self.tokens.authenticate(&token, &self.tokens.default_audiences()) {
                Ok(verified) => Ok(authenticated(verified.identity)),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "bearer token refused");
                    Err(ApiError::unauthorized())
                }
            };
        }
        if ANONYMOUS_PATHS.contains(&parts.uri.path()) {
            return Ok(Identity {
                user: ANONYMOUS.to_owned(),
                groups: vec![UNAUTHENTICATED.to_owned()],
                ..Identity::default()
            });
        }
        Err(ApiError::unauthorized())
    }
}

impl Authenticator for Authentication {
    fn authenticate<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Result<Identity, ApiError>> {
        Box::pin(async move {
            let identity = self.identify(parts)?;
            impersonation::apply(identity, &parts.headers, &*self.authorizer).await
        })
    }
}

/// Adds `system:authenticated`, once.
pub(crate) fn authenticated(mut identity: Identity) -> Identity {
    if !identity.in_group(AUTHENTICATED) {
        identity.groups.push(AUTHENTICATED.to_owned());
    }
    identity
}

/// The token of `Authorization: Bearer` or of the WebSocket subprotocol. Too long a token reads as an empty one, which
/// no one accepts.
fn bearer_token(parts: &Parts) -> Option<String> {
    let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let from_header = header.and_then(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned()).filter(|token| !token.is_empty())
    });
    let token = from_header.or_else(|| {
        let offered = parts.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let encoded =
            offered.flat_map(|list| list.split(',')).find_map(|one| one.trim().strip_prefix(WEBSOCKET_TOKEN_PREFIX))?;
        String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
    })?;
    Some(if token.len() > TOKEN_BYTES_MAX { String::new() } else { token })
}

#[cfg(test)]
mod tests;

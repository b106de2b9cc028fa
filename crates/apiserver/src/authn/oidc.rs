//! OpenID discovery of the service-account issuer: how others verify our tokens.
//!
//! In: GET of the two well-known paths. Out: the issuer's metadata and its public keys.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use serde_json::json;

use super::service_accounts::{ISSUER, ServiceAccountTokens};
use crate::body::{Body, full};
use crate::chain::PathHandler;

const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
const KEYS_PATH: &str = "/openid/v1/jwks";
const MAX_AGE: &str = "public, max-age=3600";

/// Serves [`CONFIGURATION_PATH`] and [`KEYS_PATH`].
pub struct OpenIdDiscovery {
    tokens: Arc<ServiceAccountTokens>,
}

impl OpenIdDiscovery {
    pub fn new(tokens: Arc<ServiceAccountTokens>) -> Self {
        Self { tokens }
    }

    fn answer(&self, path: &str) -> Option<Response<Body>> {
        let (body, media_type) = match path {
            CONFIGURATION_PATH => (
                json!({
                    "issuer": ISSUER,
                    "jwks_uri": format!("{ISSUER}{KEYS_PATH}"),
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": [self.tokens.signing_key().algorithm()],
                }),
                "application/json",
            ),
            KEYS_PATH => (json!({"keys": [self.tokens.signing_key().jwk()]}), "application/jwk-set+json"),
            _ => return None,
        };
        let mut response = Response::new(full(body.to_string()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(MAX_AGE));
        Some(response)
    }
}

impl PathHandler for OpenIdDiscovery {
    fn paths(&self) -> Vec<String> {
        vec![CONFIGURATION_PATH.to_owned(), KEYS_PATH.to_owned()]
    }

    fn serve<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Option<Response<Body>>> {
        Box::pin(async move { self.answer(parts.uri.path()) })
    }
}

//! The authentication.k8s.io reviews: who is this token, who am I?
//!
//! In: a TokenReview or SelfSubjectReview. Out: the same object with its status.
//!
//! Invariant: a refused token is an answer (`authenticated: false` and the reason), not an error.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{ServiceAccountTokens, authenticated};
use crate::chain::{Attributes, Identity, Review};
use crate::error::ApiError;

const GROUP: &str = "authentication.k8s.io";

/// Serves both kinds.
pub struct IdentityReviews {
    tokens: Arc<ServiceAccountTokens>,
}

impl IdentityReviews {
    pub fn new(tokens: Arc<ServiceAccountTokens>) -> Self {
        Self { tokens }
    }

    fn review_token(&self, mut object: Value) -> Result<Value, ApiError> {
        let token = object["spec"]["token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = object["spec"]["audiences"].as_array().into_iter().flatten();
        let mut audiences: Vec<String> = asked.filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences = self.tokens.default_audiences();
        }
        object["status"] = match self.tokens.authenticate(&token, &audiences) {
            Ok(verified) => json!({
                "authenticated": true,
                "user": user_info(&authenticated(verified.identity)),
                "audiences": verified.audiences,
            }),
            Err(error) => json!({"authenticated": false, "user": {}, "error": error.to_string()}),
        };
        Ok(object)
    }
}

impl Review for IdentityReviews {
    fn resources(&self) -> Vec<(&'static str, &'static str)> {
        vec![(GROUP, "tokenreviews"), (GROUP, "selfsubjectreviews")]
    }

    fn review<'a>(
        &'a self,
        resource: &'a str,
        mut object: Value,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        Box::pin(async move {
            if resource == "tokenreviews" {
                return self.review_token(object);
            }
            // The question is not repeated.
            object["metadata"] = json!({"creationTimestamp": semantics::time::rfc3339(self.tokens.clock.now())});
            object["status"] = json!({"userInfo": user_info(&attributes.identity)});
            Ok(object)
        })
    }
}

/// A UserInfo; empty parts are left out.
pub fn user_info(identity: &Identity) -> Value {
    let mut info = json!({"username": identity.user});
    if !identity.uid.is_empty() {
        info["uid"] = identity.uid.as_str().into();
    }
    if !identity.groups.is_empty() {
        info["groups"] = json!(identity.groups);
    }
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}

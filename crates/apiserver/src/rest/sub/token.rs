//! Token: a bound token for a ServiceAccount, from the configured issuer.

use http::{Response, StatusCode};

use crate::body::Body;
use crate::error::ApiError;
use crate::managed;
use crate::rest::Call;
use crate::rest::body::{self, Expected};
use crate::stored::decode_entry;

/// How long a token lives that is asked for without a time.
const SECONDS_DEFAULT: i64 = 3600;

pub async fn create(call: &Call, request_body: Body) -> Result<Response<Body>, ApiError> {
    call.plain_output()?;
    let expected = Expected {
        api_version: "authentication.k8s.io/v1",
        kind: "TokenRequest",
        message: api::schema::by_kind("authentication.k8s.io", "v1", "TokenRequest"),
    };
    let (mut request, _) = body::posted(call, request_body, expected).await?;
    let namespace = request["metadata"]["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && namespace != call.namespace() {
        return Err(ApiError::wrong_namespace());
    }
    if request["spec"]["expirationSeconds"].is_null() {
        request["spec"]["expirationSeconds"] = SECONDS_DEFAULT.into();
    }
    managed::track_asked(call, &mut request, expected);
    let account = decode_entry(&*call.current()?, &call.resource.source).map_err(ApiError::internal)?;
    let issuer = call.core.config.token_issuer.as_ref().ok_or_else(ApiError::no_such_resource)?;
    let answer = issuer.issue(&account, request, call.registry()).await?;
    call.reply_value(StatusCode::CREATED, &answer)
}

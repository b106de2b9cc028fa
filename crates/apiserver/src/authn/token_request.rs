//! Issuing bound tokens: `create serviceaccounts/token`.
//!
//! In: a ServiceAccount, a TokenRequest. Out: the TokenRequest with its token, or upstream's errors.
//!
//! Rules: a life of 10 minutes to 2^32 seconds; a bound pod must use the account; a given uid must be the live one. A
//! pod's token for this API server with the kubelet's own 3607 seconds stays valid for a year, and carries `warnafter`:
//! old clients that never read their token file anew go on to work, and are seen.

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::service_accounts::{Claims, ISSUER, KubernetesClaims, Reference, ServiceAccountTokens, user_name};
use crate::chain::TokenIssuer;
use crate::error::ApiError;
use crate::reader::Reader;

const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
/// What the projected volume of every pod asks for; the odd number marks it.
const PROJECTED_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

impl ServiceAccountTokens {
    fn issue_token(&self, account: &Value, mut request: Value, reader: &dyn Reader) -> Result<Value, ApiError> {
        let (name, namespace) = (text(&account["metadata"]["name"]), text(&account["metadata"]["namespace"]));
        let uid = text(&account["metadata"]["uid"]);
        fill_metadata(&mut request, name, namespace, uid)?;
        if strings(&request["spec"]["audiences"]).is_empty() {
            request["spec"]["audiences"] = json!(self.default_audiences());
        }
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or_default();
        validate(seconds, &request["spec"]["attestations"])?;
        let audiences = strings(&request["spec"]["audiences"]);
        let mut bound = find_bound(&request["spec"]["boundObjectRef"], name, namespace, reader)?;
        bound.namespace = namespace.to_owned();
        bound.serviceaccount = Reference { name: name.to_owned(), uid: uid.to_owned() };

        let now = self.clock.now();
        let for_us = audiences.iter().all(|audience| audience == ISSUER);
        let mut lifetime = seconds;
        if bound.pod.is_some() && seconds == PROJECTED_SECONDS && for_us {
            bound.warnafter = Some(now.as_second() + seconds);
            lifetime = EXTENDED_SECONDS;
        }
        let claims = Claims {
            aud: audiences,
            exp: now.as_second() + lifetime,
            iat: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: base::id::uid(&mut base::OsRng),
            kubernetes: bound,
            nbf: now.as_second(),
            sub: user_name(namespace, name),
        };
        let bytes = serde_json::to_vec(&claims).map_err(ApiError::internal)?;
        let token = self.signing_key().sign(&bytes).map_err(ApiError::internal)?;
        if request["spec"]["boundObjectRef"].is_null() {
            // Shown even if it is none.
            request["spec"]["boundObjectRef"] = Value::Null;
        }
        let whole_second = |seconds: i64| jiff::Timestamp::from_second(seconds).map(|time| time.to_string());
        request["metadata"]["creationTimestamp"] = whole_second(now.as_second()).map_err(ApiError::internal)?.into();
        let expires = whole_second(now.as_second() + seconds).map_err(ApiError::internal)?;
        request["status"] = json!({"token": token, "expirationTimestamp": expires});
        Ok(request)
    }
}

impl TokenIssuer for ServiceAccountTokens {
    fn issue<'a>(
        &'a self,
        account: &'a Value,
        request: Value,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        Box::pin(async move { self.issue_token(account, request, reader) })
    }
}

/// Name, namespace and uid must be the account's if given, and are filled in if not.
fn fill_metadata(request: &mut Value, name: &str, namespace: &str, uid: &str) -> Result<(), ApiError> {
    for (field, wanted, word) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
        let given = text(&request["metadata"][field]);
        if !given.is_empty() && given != wanted {
            let why = format!("must match the service account {word} if specified");
            return Err(invalid(name, &format!("metadata.{field}"), &json!(given), &why));
        }
    }
    let given = text(&request["metadata"]["uid"]);
    if !given.is_empty() && given != uid {
        let why =
            format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        return Err(ApiError::conflict("authentication.k8s.io", "TokenRequest", name, &why));
    }
    if !request["metadata"].is_object() {
        request["metadata"] = json!({});
    }
    request["metadata"]["name"] = name.into();
    request["metadata"]["namespace"] = namespace.into();
    request["metadata"]["uid"] = uid.into();
    Ok(())
}

fn validate(seconds: i64, attestations: &Value) -> Result<(), ApiError> {
    let field = "spec.expirationSeconds";
    if seconds < SECONDS_MIN {
        return Err(invalid("", field, &json!(seconds), "may not specify a duration less than 10 minutes"));
    }
    if seconds > SECONDS_MAX {
        return Err(invalid("", field, &json!(seconds), "may not specify a duration larger than 2^32 seconds"));
    }
    if attestations.as_object().is_some_and(|map| !map.is_empty()) {
        let why = "attestations may only be specified with a webhook bound object reference";
        return Err(invalid("", "spec.attestations", attestations, why));
    }
    Ok(())
}

/// Looks the bound object up and checks it.
fn find_bound(
    reference: &Value,
    account: &str,
    namespace: &str,
    reader: &dyn Reader,
) -> Result<KubernetesClaims, ApiError> {
    let mut claims = KubernetesClaims::default();
    if !reference.is_object() {
        return Ok(claims);
    }
    let (kind, name) = (text(&reference["kind"]), text(&reference["name"]));
    let api_version = text(&reference["apiVersion"]);
    let find = |resource: &str, namespace: &str| {
        reader.get("", resource, namespace, name).ok_or_else(|| ApiError::not_found("", resource, name))
    };
    let core = !api_version.contains('/');
    let found = match kind {
        "Pod" if core => find("pods", namespace)?,
        "Secret" if core => find("secrets", namespace)?,
        "Node" if core => find("nodes", "")?,
        _ => {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(ApiError::bad_request(why));
        }
    };
    if kind == "Pod" && found["spec"]["serviceAccountName"] != account {
        let why = format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        );
        return Err(ApiError::bad_request(why));
    }
    let (wanted, uid) = (text(&reference["uid"]), text(&found["metadata"]["uid"]));
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", kind, name, &why));
    }
    let bound = Some(Reference { name: name.to_owned(), uid: uid.to_owned() });
    match kind {
        "Pod" => {
            claims.pod = bound;
            claims.node = node_of(&found, reader);
        }
        "Secret" => claims.secret = bound,
        _ => claims.node = bound,
    }
    Ok(claims)
}

/// The node a pod is on; without uid when the Node object is not there.
fn node_of(pod: &Value, reader: &dyn Reader) -> Option<Reference> {
    let name = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())?;
    let node = reader.get("", "nodes", "", name);
    let uid = node.as_ref().map(|node| text(&node["metadata"]["uid"]).to_owned()).unwrap_or_default();
    Some(Reference { name: name.to_owned(), uid })
}

fn invalid(name: &str, field: &str, shown: &Value, why: &str) -> ApiError {
    let cause = json!({
        "reason": "FieldValueInvalid", "field": field, "message": format!("Invalid value: {shown}: {why}"),
    });
    ApiError::invalid("authentication.k8s.io", "TokenRequest", name, vec![cause])
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

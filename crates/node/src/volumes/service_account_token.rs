//! serviceAccountToken projections: a token bound to the pod, asked of the API and renewed in time.
//!
//! Invariant: renewed at 80 % of its life, or after 24 hours; a renewal that fails keeps the old token and is retried.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::Api;
use kube::api::PostParams;
use podlife::payload::{File, check_path};
use podlife::spec::{containers, namespace, pod_spec};

use super::{Collected, VolumeContext, ownership};

const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
const RETRY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
struct Token {
    text: String,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

/// Tokens of one pod, by volume and source.
#[derive(Debug, Default)]
pub struct Tokens {
    known: BTreeMap<String, Token>,
}

impl Tokens {
    pub(super) async fn collect(
        &mut self,
        context: &VolumeContext,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
        mode: u32,
        key: &str,
    ) -> Result<Collected, String> {
        check_path(&source.path)?;
        let now = context.clock.now();
        let due = self.known.get(key).is_none_or(|token| now >= token.refresh_at);
        if due {
            match request_token(context, pod, source, now).await {
                Ok(token) => {
                    self.known.insert(key.to_owned(), token);
                }
                Err(error) => match self.known.get_mut(key).filter(|token| token.expires_at > now) {
                    Some(token) => {
                        tracing::warn!(%error, "cannot renew a service account token; the old one is kept for now");
                        token.refresh_at = now.checked_add(RETRY).unwrap_or(now);
                    }
                    None => return Err(format!("failed to fetch token: {error}")),
                },
            }
        }
        let Some(token) = self.known.get(key) else { return Err("no token".to_owned()) };
        let owner = common_user(pod);
        // Readable for the one user or group that was chosen, else as the volume says.
        let mode = if owner.is_some() || ownership::fs_group(pod).is_some() { 0o600 } else { mode };
        let file = File { bytes: token.text.clone().into_bytes(), mode, owner };
        let files = BTreeMap::from([(source.path.clone(), file)]);
        Ok(Collected { files, refresh_at: Some(token.refresh_at) })
    }
}

/// The user that all containers run as, if it is one.
fn common_user(pod: &Pod) -> Option<u32> {
    let of = |container| podlife::security::derive_effective(pod, container).run_as_user;
    let init = podlife::spec::init_containers(pod);
    let mut users = containers(pod).iter().chain(init).map(of);
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

async fn request_token(
    context: &VolumeContext,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    now: Timestamp,
) -> Result<Token, String> {
    let audiences = source.audience.iter().filter(|audience| !audience.is_empty()).cloned().collect::<Vec<_>>();
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audiences),
            expiration_seconds: Some(source.expiration_seconds.unwrap_or(3600)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(context.client.clone(), namespace(pod));
    let account = pod_spec(pod).service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let mut attempt = Duration::from_millis(50);
    let reply: TokenRequest = loop {
        match api.create_subresource("token", account, &PostParams::default(), &request).await {
            // The authorizer may learn of the pod's binding a moment after us.
            Err(kube::Error::Api(status)) if status.code == 403 && attempt < Duration::from_secs(1) => {
                tokio::time::sleep(attempt).await;
                attempt *= 2;
            }
            Err(error) => return Err(error.to_string()),
            Ok(reply) => break reply,
        }
    };
    let status = reply.status.ok_or_else(|| "the API gave no token".to_owned())?;
    let missing = || "the API gave no token".to_owned();
    let expires_at = status.expiration_timestamp.ok_or_else(missing)?.0;
    let life = podlife::backoff::elapsed(now, expires_at);
    let refresh_after = (life / 5 * 4).min(AGE_MAX);
    let refresh_at = now.checked_add(refresh_after).unwrap_or(expires_at);
    Ok(Token { text: status.token.ok_or_else(missing)?, refresh_at, expires_at })
}

//! Makes sure that a container's image is there. Input: image, policy, credentials. Output: what the runtime calls it.
//!
//! Invariant: at most [`PULLS_AT_ONCE`] pulls run, and two pods that want the same image pull it once. Does not decide
//! when to try again (the worker's back-off does) and removes nothing (`garbage` does).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base64::Engine as _;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use podlife::image::{PullDecision, apply_default_tag, decide_pull, default_pull_policy, registry_of};
use podlife::spec::{namespace, pod_spec};
use tokio::sync::Semaphore;

use crate::cri::{Cri, v1};
use crate::objects::Objects;
use crate::recorder::PodRecorder;

/// Bounds disk and network; upstream pulls one at a time by default.
const PULLS_AT_ONCE: usize = 3;

/// A waiting reason and its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFailure {
    pub reason: &'static str,
    pub message: String,
    /// Counted in the pull's back-off, unlike a name that will never be one.
    pub retryable: bool,
}

/// What a container's configuration needs of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentImage {
    /// To be passed to the runtime.
    pub reference: String,
    pub uid: Option<i64>,
    pub username: String,
}

/// Who wants an image, and what a pull needs besides.
pub struct ImageRequest<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub sandbox: &'a v1::PodSandboxConfig,
    pub objects: &'a Objects,
    pub recorder: &'a PodRecorder,
}

pub struct Images {
    cri: Cri,
    slots: Semaphore,
    /// One lock an image being pulled.
    pulling: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Images {
    pub fn new(cri: Cri) -> Self {
        Self { cri, slots: Semaphore::new(PULLS_AT_ONCE), pulling: Mutex::new(HashMap::new()) }
    }

    /// Present, or pulled.
    pub async fn ensure(&self, request: &ImageRequest<'_>) -> Result<PresentImage, ImageFailure> {
        let ImageRequest { pod, container, recorder, .. } = request;
        let requested = container.image.as_deref().unwrap_or_default();
        let image = apply_default_tag(requested).map_err(|error| {
            let message = format!("Failed to apply default image tag \"{requested}\": {error}");
            recorder.warning(pod, &container.name, "InspectFailed", &message);
            ImageFailure { reason: "InvalidImageName", message, retryable: false }
        })?;
        let policy = container.image_pull_policy.as_deref().unwrap_or_else(|| default_pull_policy(requested));
        let present = if policy == "Always" { None } else { self.inspect(&image, requested).await? };
        match decide_pull(policy, present.is_some()) {
            PullDecision::UsePresent => {
                let message = format!(
                    "Container image \"{requested}\" already present on machine and can be accessed by the pod"
                );
                recorder.normal(pod, &container.name, "Pulled", &message);
                present.ok_or_else(|| inspect_failure(requested, "vanished"))
            }
            PullDecision::Refuse => {
                let message = format!("Container image \"{requested}\" is not present with pull policy of Never");
                recorder.warning(pod, &container.name, "ErrImageNeverPull", &message);
                Err(ImageFailure { reason: "ErrImageNeverPull", message, retryable: true })
            }
            PullDecision::Pull => self.pull(request, &image).await,
        }
    }

    async fn inspect(&self, image: &str, requested: &str) -> Result<Option<PresentImage>, ImageFailure> {
        let request = v1::ImageStatusRequest { image: Some(spec_of(image)), verbose: false };
        let reply = self.cri.image_status(request).await;
        let reply = reply.map_err(|error| inspect_failure(requested, error.message()))?;
        Ok(reply.image.map(|image| PresentImage {
            reference: image.id,
            uid: image.uid.map(|uid| uid.value),
            username: image.username,
        }))
    }

    async fn pull(&self, request: &ImageRequest<'_>, image: &str) -> Result<PresentImage, ImageFailure> {
        let ImageRequest { pod, container, sandbox, objects, recorder } = request;
        let requested = container.image.as_deref().unwrap_or_default();
        recorder.normal(pod, &container.name, "Pulling", &format!("Pulling image \"{requested}\""));
        let turn = self.turn(image);
        let _turn = turn.lock().await;
        // A closed semaphore would mean that the node is shutting down; then the pull goes on without a slot.
        let _slot = self.slots.acquire().await.ok();
        let started = tokio::time::Instant::now();
        let mut failure = None;
        for auth in find_credentials(pod, image, objects).await {
            let request =
                v1::PullImageRequest { image: Some(spec_of(image)), auth, sandbox_config: Some((*sandbox).clone()) };
            match self.cri.pull_image(request).await {
                Ok(_) => {
                    failure = None;
                    break;
                }
                Err(error) => failure = Some(error.message().to_owned()),
            }
        }
        if let Some(error) = failure {
            let message = format!("Failed to pull image \"{requested}\": {error}");
            recorder.warning(pod, &container.name, "Failed", &message);
            recorder.warning(pod, &container.name, "Failed", "Error: ErrImagePull");
            return Err(ImageFailure { reason: "ErrImagePull", message: error, retryable: true });
        }
        let took = started.elapsed();
        let message = format!("Successfully pulled image \"{requested}\" in {}ms", took.as_millis());
        recorder.normal(pod, &container.name, "Pulled", &message);
        self.inspect(image, requested).await?.ok_or_else(|| inspect_failure(requested, "not there after the pull"))
    }

    fn turn(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        pulling.retain(|_, turn| turn.strong_count() > 0);
        let known = pulling.get(image).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::new(tokio::sync::Mutex::new(()));
            pulling.insert(image.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}

fn spec_of(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() }
}

fn inspect_failure(image: &str, error: &str) -> ImageFailure {
    let message = format!("Failed to inspect image \"{image}\": {error}");
    ImageFailure { reason: "ImageInspectError", message, retryable: true }
}

/// What to try, in order: matching pull secrets, or once without any.
async fn find_credentials(pod: &Pod, image: &str, objects: &Objects) -> Vec<Option<v1::AuthConfig>> {
    let mut found = Vec::new();
    for reference in pod_spec(pod).image_pull_secrets.iter().flatten() {
        match objects.fetch::<Secret>(namespace(pod), &reference.name).await {
            Ok(Some(secret)) => found.extend(credentials_in(&secret, image).map(Some)),
            // As upstream: a missing pull secret is no reason not to try.
            Ok(None) => tracing::info!(secret = %reference.name, "image pull secret does not exist"),
            Err(error) => tracing::warn!(%error, secret = %reference.name, "cannot read image pull secret"),
        }
    }
    if found.is_empty() {
        found.push(None);
    }
    found
}

fn credentials_in(secret: &Secret, image: &str) -> Option<v1::AuthConfig> {
    let data = secret.data.as_ref()?;
    let (auths, nested) = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
        (Some(bytes), _) => (bytes, true),
        (None, Some(bytes)) => (bytes, false),
        (None, None) => return None,
    };
    let parsed: serde_json::Value = serde_json::from_slice(&auths.0).ok()?;
    let auths = if nested { parsed.get("auths")? } else { &parsed };
    let registry = registry_of(image);
    let entry = auths.as_object()?.iter().find(|(key, _)| key_matches(key, registry, image))?.1;
    let field = |name: &str| entry.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let mut auth = v1::AuthConfig {
        username: field("username"),
        password: field("password"),
        identity_token: field("identitytoken"),
        registry_token: field("registrytoken"),
        ..Default::default()
    };
    if auth.username.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(field("auth")).ok()?;
        let pair = String::from_utf8(decoded).ok()?;
        let (username, password) = pair.split_once(':')?;
        (auth.username, auth.password) = (username.to_owned(), password.to_owned());
    }
    Some(auth)
}

/// Keys are hosts, URLs or prefixes of repositories.
fn key_matches(key: &str, registry: &str, image: &str) -> bool {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let key = key.trim_end_matches("/v1").trim_end_matches("/v2");
    let is_hub = matches!(key, "index.docker.io" | "docker.io" | "registry-1.docker.io") && registry == "docker.io";
    is_hub || key == registry || image.strip_prefix(key).is_some_and(|rest| rest.starts_with(['/', ':', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        let json = br#"{"auths":{"https://r.example:5000/v1/":{"auth":"dTpw"}}}"#;
        let data = [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(json.to_vec()))];
        let secret = Secret { data: Some(data.into()), ..Default::default() };
        let auth = credentials_in(&secret, "r.example:5000/a/b:1").unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p"));
        assert!(credentials_in(&secret, "other/a:1").is_none());
    }
}

//! ServiceAccount: every pod runs as one, and has its token mounted.
//!
//! In: pod creates (and new ephemeral containers). Out: the account named, the projected volume `kube-api-access-xxxxx`
//! mounted in every container unless the pod or the account opts out, the account's pull secrets; or 403.
//!
//! The account `default` is made by a controller soon after its namespace: a pod that comes earlier waits up to a second.

use std::sync::Arc;
use std::time::Duration;

use base::OsRng;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{is_core, is_mirror_pod, list_mut, refuse, text};
use crate::authz::references::{refers_to_any_secret, secret_references};
use crate::chain::{Admission, AdmissionRequest, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Old but alive: an account with this annotation may only use the secrets it lists.
const ENFORCE_ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";
const DEFAULT_ACCOUNT: &str = "default";
const WAIT_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub struct ServiceAccount;

impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if is_core(request, "pods", Operation::Create) { prepare_pod(request, reader).await } else { Ok(()) }
        })
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let adds_ephemeral = request.group.is_empty()
                && request.resource == "pods"
                && request.subresource == "ephemeralcontainers"
                && request.operation == Operation::Update;
            if !adds_ephemeral && !is_core(request, "pods", Operation::Create) {
                return Ok(());
            }
            let Some(pod) = &request.object else { return Ok(()) };
            if is_mirror_pod(pod) {
                return check_mirror_pod(request, pod);
            }
            let account = find_account(request, text(&pod["spec"]["serviceAccountName"]), reader).await?;
            check_secret_references(request, pod, &account)
        })
    }
}

async fn prepare_pod(request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
    let Some(mut pod) = request.object.take() else { return Ok(()) };
    let result = fill_pod(request, &mut pod, reader).await;
    request.object = Some(pod);
    result
}

async fn fill_pod(request: &AdmissionRequest, pod: &mut Value, reader: &dyn Reader) -> Result<(), ApiError> {
    if is_mirror_pod(pod) || !pod["spec"].is_object() {
        return Ok(());
    }
    if text(&pod["spec"]["serviceAccountName"]).is_empty() {
        pod["spec"]["serviceAccountName"] = DEFAULT_ACCOUNT.into();
        pod["spec"]["serviceAccount"] = DEFAULT_ACCOUNT.into();
    }
    let name = text(&pod["spec"]["serviceAccountName"]).to_owned();
    // Refusals name the pod, which is out of the request while it is being filled.
    let account = match lookup(&request.namespace, &name, reader).await {
        Some(account) => account,
        None => {
            let mut about = request.clone();
            about.object = Some(pod.clone());
            return Err(missing(&about, &name));
        }
    };
    let wants = pod["spec"]["automountServiceAccountToken"].as_bool();
    if wants.or_else(|| account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        mount_token(&mut pod["spec"]);
    }
    let pull_secrets = account["imagePullSecrets"].as_array().filter(|list| !list.is_empty());
    if let Some(pull_secrets) = pull_secrets
        && pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
    {
        pod["spec"]["imagePullSecrets"] = pull_secrets.iter().map(|secret| json!({"name": secret["name"]})).collect();
    }
    Ok(())
}

async fn find_account(request: &AdmissionRequest, name: &str, reader: &dyn Reader) -> Result<Arc<Value>, ApiError> {
    if name.is_empty() {
        let pod = request.object.as_ref().map(|pod| text(&pod["metadata"]["name"])).unwrap_or_default();
        return Err(refuse(request, &format!("no service account specified for pod {}/{pod}", request.namespace)));
    }
    lookup(&request.namespace, name, reader).await.ok_or_else(|| missing(request, name))
}

fn missing(request: &AdmissionRequest, name: &str) -> ApiError {
    let namespace = &request.namespace;
    let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
    refuse(request, &why)
}

async fn lookup(namespace: &str, name: &str, reader: &dyn Reader) -> Option<Arc<Value>> {
    const RESOURCE: &str = "serviceaccounts";
    let appears = async {
        loop {
            // Before the look, so that no change falls in between.
            let revision = reader.revision("", RESOURCE);
            if let Some(account) = reader.get("", RESOURCE, namespace, name) {
                return account;
            }
            reader.changed("", RESOURCE, revision).await;
        }
    };
    if name == DEFAULT_ACCOUNT {
        return tokio::time::timeout(WAIT_MAX, appears).await.ok();
    }
    reader.get("", RESOURCE, namespace, name)
}

/// Mounts the token volume in every container that has nothing at its path, and adds it if one needs it.
fn mount_token(spec: &mut Value) {
    let volumes = spec["volumes"].as_array().into_iter().flatten().map(|volume| text(&volume["name"]));
    let existing = volumes.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let generated = || format!("{VOLUME_PREFIX}{}", base::id::name_suffix(&mut OsRng, 5));
    let volume_name = existing.clone().unwrap_or_else(generated);
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let taken = |mount: &Value| mount["mountPath"] == MOUNT_PATH;
            let Some(mounts) = list_mut(container, "volumeMounts") else { continue };
            if !mounts.iter().any(taken) {
                mounts.push(json!({"name": volume_name, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
        }
    }
    if needed
        && existing.is_none()
        && let Some(volumes) = list_mut(spec, "volumes")
    {
        volumes.push(token_volume(&volume_name));
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

fn check_mirror_pod(request: &AdmissionRequest, pod: &Value) -> Result<(), ApiError> {
    if !text(&pod["spec"]["serviceAccountName"]).is_empty() {
        return Err(refuse(request, "a mirror pod may not reference service accounts"));
    }
    if refers_to_any_secret(pod) {
        return Err(refuse(request, "a mirror pod may not reference secrets"));
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    if sources.any(|source| source["serviceAccountToken"].is_object()) {
        return Err(refuse(request, "a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn check_secret_references(request: &AdmissionRequest, pod: &Value, account: &Value) -> Result<(), ApiError> {
    let enforced = matches!(
        text(&account["metadata"]["annotations"][ENFORCE_ANNOTATION]),
        "1" | "t" | "T" | "true" | "TRUE" | "True"
    );
    if !enforced {
        return Ok(());
    }
    let account_name = text(&account["metadata"]["name"]);
    let listed =
        |field: &str, name: &str| account[field].as_array().into_iter().flatten().any(|secret| secret["name"] == name);
    for (place, name) in secret_references(pod) {
        if !listed("secrets", &name) {
            let why = format!(
                "{place} secret.secretName=\"{name}\" is not allowed because service account {account_name} does not reference that secret"
            );
            return Err(refuse(request, &why));
        }
    }
    for (index, secret) in pod["spec"]["imagePullSecrets"].as_array().into_iter().flatten().enumerate() {
        let name = text(&secret["name"]);
        if !listed("imagePullSecrets", name) {
            let why = format!(
                "imagePullSecrets[{index}].name=\"{name}\" is not allowed because service account {account_name} does not reference that imagePullSecret"
            );
            return Err(refuse(request, &why));
        }
    }
    Ok(())
}

//! Applying writes and live reads: [`Write`] -> one HTTP request -> what came of it.
//!
//! Invariant: NotFound, Conflict, AlreadyExists and "could not ask" stay apart. A delete of what is already gone, or
//! was replaced by another object of that name, is done. Does not retry.

use http::{Method, Request, header};
use kube::Client;
use kube::core::Status;
use reconcile::{Observation, Observe, PatchKind, ResourceId, Verb, Write};
use serde_json::{Value, json};

const METADATA_ACCEPT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST_ACCEPT: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Why a write wasn't done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another writer came first; plan again.
    #[error("conflict: {0}")]
    Conflict(String),
    #[error("already exists: {0}")]
    AlreadyExists(String),
    #[error("not found: {0}")]
    NotFound(String),
    /// The namespace is being deleted: nothing more can be created in it, nor needs to be.
    #[error("namespace is being terminated: {0}")]
    NamespaceTerminating(String),
    /// The API refused for another reason.
    #[error("{message}")]
    Refused { reason: String, message: String },
    #[error("build the request")]
    Build(#[source] http::Error),
    /// The API could not be asked.
    #[error("reach the API server")]
    Reach(#[source] Box<kube::Error>),
}

impl WriteError {
    /// The Status reason, where the API gave one.
    pub fn reason(&self) -> &str {
        match self {
            Self::Conflict(_) => "Conflict",
            Self::AlreadyExists(_) => "AlreadyExists",
            Self::NotFound(_) => "NotFound",
            Self::NamespaceTerminating(_) => "Forbidden",
            Self::Refused { reason, .. } => reason,
            Self::Build(_) | Self::Reach(_) => "",
        }
    }

    /// The API's own words, as upstream's components put them into Events.
    pub fn message(&self) -> String {
        match self {
            Self::Conflict(message)
            | Self::AlreadyExists(message)
            | Self::NotFound(message)
            | Self::NamespaceTerminating(message)
            | Self::Refused { message, .. } => message.clone(),
            Self::Build(source) => source.to_string(),
            Self::Reach(source) => source.to_string(),
        }
    }
}

/// Makes one write. Returns what the API answered: the object, or the Status of a delete.
pub async fn apply_write(client: &Client, write: &Write) -> Result<Value, WriteError> {
    let request = derive_request(write).map_err(WriteError::Build)?;
    let deletes = matches!(write.verb, Verb::Delete { .. } | Verb::DeleteCollection { .. });
    match client.request::<Value>(request).await.map_err(classify) {
        Err(WriteError::NotFound(_) | WriteError::Conflict(_)) if deletes && !is_guarded_by_version(write) => {
            Ok(Value::Null)
        }
        Err(WriteError::NotFound(_)) if deletes => Ok(Value::Null),
        other => other,
    }
}

/// Makes one live read of metadata.
pub async fn observe(client: &Client, wanted: &Observe) -> Observation {
    match wanted {
        Observe::Get { resource, key } => {
            observe_path(client, &resource.path(&key.namespace, Some(&key.name)), METADATA_ACCEPT)
                .await
                .map_or_else(observation_of_error, Observation::Found)
        }
        Observe::List { resource, namespace } => {
            match observe_path(client, &resource.path(namespace, None), METADATA_LIST_ACCEPT).await {
                Ok(mut list) => match list.get_mut("items").map(Value::take) {
                    Some(Value::Array(items)) => Observation::Listed(items),
                    _ => Observation::Listed(Vec::new()),
                },
                Err(error) => observation_of_error(error),
            }
        }
    }
}

async fn observe_path(client: &Client, path: &str, accept: &str) -> Result<Value, WriteError> {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Vec::new()).map_err(WriteError::Build)?;
    client.request::<Value>(request).await.map_err(classify)
}

fn observation_of_error(error: WriteError) -> Observation {
    match error {
        WriteError::NotFound(_) => Observation::Absent,
        other => Observation::Failed(other.message()),
    }
}

fn is_guarded_by_version(write: &Write) -> bool {
    matches!(&write.verb, Verb::Delete { resource_version: Some(_), .. })
}

fn derive_request(write: &Write) -> Result<Request<Vec<u8>>, http::Error> {
    let ResourceId { .. } = &write.resource;
    let path = |name: Option<&str>, subresource: Option<&str>| {
        let mut path = write.resource.path(&write.key.namespace, name);
        if let Some(subresource) = subresource {
            path.push('/');
            path.push_str(subresource);
        }
        path
    };
    let name = Some(write.key.name.as_str());
    let (method, path, content_type, body) = match &write.verb {
        Verb::Create { object } => (Method::POST, path(None, None), "application/json", object.clone()),
        Verb::Replace { object, subresource } => {
            (Method::PUT, path(name, *subresource), "application/json", object.clone())
        }
        Verb::Patch { body, kind, subresource } => {
            (Method::PATCH, path(name, *subresource), patch_content_type(*kind), body.clone())
        }
        Verb::Delete { .. } => {
            (Method::DELETE, path(name, None), "application/json", derive_delete_options(&write.verb))
        }
        Verb::DeleteCollection { propagation } => {
            let options =
                json!({ "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation.name() });
            (Method::DELETE, path(None, None), "application/json", options)
        }
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ACCEPT, "application/json")
        .body(body.to_string().into_bytes())
}

fn derive_delete_options(verb: &Verb) -> Value {
    let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
    if let Verb::Delete { uid, resource_version, propagation, grace_seconds } = verb {
        let mut preconditions = serde_json::Map::new();
        if let Some(uid) = uid {
            preconditions.insert("uid".to_owned(), json!(uid));
        }
        if let Some(version) = resource_version {
            preconditions.insert("resourceVersion".to_owned(), json!(version));
        }
        if !preconditions.is_empty() {
            options["preconditions"] = Value::Object(preconditions);
        }
        if let Some(policy) = propagation {
            options["propagationPolicy"] = json!(policy.name());
        }
        if let Some(seconds) = grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
    }
    options
}

fn patch_content_type(kind: PatchKind) -> &'static str {
    match kind {
        PatchKind::Json => "application/json-patch+json",
        PatchKind::Merge => "application/merge-patch+json",
        PatchKind::StrategicMerge => "application/strategic-merge-patch+json",
    }
}

fn classify(error: kube::Error) -> WriteError {
    let kube::Error::Api(status) = error else { return WriteError::Reach(Box::new(error)) };
    let message = status.message.clone();
    match (status.reason.as_str(), status.code) {
        ("AlreadyExists", _) => WriteError::AlreadyExists(message),
        ("Conflict", _) => WriteError::Conflict(message),
        ("NotFound", _) | ("", 404) => WriteError::NotFound(message),
        ("Forbidden", _) if names_terminating_namespace(&status) => WriteError::NamespaceTerminating(message),
        (reason, _) => WriteError::Refused { reason: reason.to_owned(), message },
    }
}

fn names_terminating_namespace(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

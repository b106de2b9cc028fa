//! The extension points of a request's way through the server: who asks (authentication), may they (authorization), what
//! the cluster's policy makes of it (admission), and who hears of it (audit); plus the hooks for secrets and nodes.
//!
//! Input: request parts and objects as values. Output: an identity, a decision, a changed object, or an [`ApiError`].
//! Invariant: every request, in process or over TLS, passes all of them in this order; a request extension of type
//! [`Identity`] set by a trusted in-process caller replaces authentication only.
//! What this file does not do: decide anything. The implementations are `authn*`, `authz*`, `rbac*`, `admission*`, `pki*`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::ApiError;
use crate::reader::Reader;

/// Who asks. As a request extension it means: already authenticated by a trusted caller in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Request extension set by the TLS listener: the client's chain, leaf first; empty when the client showed none.
/// The listener checks only that the client holds the leaf's key (see `listener`); trust is the authenticator's question.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Request extension set by the listener.
#[derive(Debug, Clone, Copy)]
pub struct RemoteAddress(pub std::net::SocketAddr);

/// Turns a request into an identity.
pub trait Authenticator: Send + Sync {
    /// `parts.extensions` carries [`PeerCertificates`] and [`RemoteAddress`]; headers carry bearer tokens and impersonation.
    /// An anonymous request that may go on gets the identity `system:anonymous`; an `Err` is answered with its Status
    /// (normally [`ApiError::unauthorized`]).
    fn authenticate<'a>(&'a self, parts: &'a http::request::Parts) -> BoxFuture<'a, Result<Identity, ApiError>>;
}

/// What an identity wants to do; the form of upstream's `authorizer.Attributes`.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    pub identity: Identity,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, ...; the lower-case method for non-resource paths.
    pub verb: String,
    pub is_resource: bool,
    /// Non-resource and resource requests alike.
    pub path: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    /// Empty for list, watch (unless selected by `metadata.name`), create and deletecollection.
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Refused, and nobody else is asked.
    Deny(String),
    /// Nothing known that allows it; refused if nobody else allows it.
    NoOpinion(String),
}

pub trait Authorizer: Send + Sync {
    fn authorize<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Decision>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// Upstream's word in AdmissionReview and policies: `CREATE` ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One write on its way through admission. Mutating steps change `object` (defaulted already, validated afterwards).
#[derive(Debug, Clone)]
pub struct AdmissionRequest {
    pub operation: Operation,
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    /// Plural name of the resource.
    pub resource: Cow<'static, str>,
    /// Empty for the main resource.
    pub subresource: Cow<'static, str>,
    /// Empty for cluster-wide kinds.
    pub namespace: String,
    /// Empty on create with generateName until the name has been generated.
    pub name: String,
    pub identity: Identity,
    pub dry_run: bool,
    /// The new object; `None` for delete. For connect and for virtual subresources (binding, eviction): the options or body.
    pub object: Option<Value>,
    /// The stored object; `None` for create.
    pub old_object: Option<Arc<Value>>,
    /// CreateOptions, UpdateOptions, PatchOptions or DeleteOptions.
    pub options: Value,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// One admission plugin. Steps run in the order of the configuration: all `mutate`, then all `validate`.
pub trait Admission: Send + Sync {
    /// Upstream's plugin name, such as `ServiceAccount`.
    fn name(&self) -> &'static str;

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let (_, _) = (request, reader);
        Box::pin(async { Ok(()) })
    }

    /// Runs on the final object; may run again when an update is retried after a conflict.
    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let (_, _) = (request, reader);
        Box::pin(async { Ok(()) })
    }
}

/// A finished request, for the audit log.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// The client's `Audit-ID`, or one of ours; the response carries it, too.
    pub id: String,
    pub attributes: Attributes,
    pub code: u16,
    pub received: jiff::Timestamp,
    pub latency: std::time::Duration,
    /// The decision's reason.
    pub reason: String,
}

/// Hears of every request once, after its response head was made. Must not block: hand over to a bounded queue.
pub trait AuditSink: Send + Sync {
    fn record(&self, record: AuditRecord);
}

/// Serves a kind that is computed, not stored: TokenReview, SubjectAccessReview, SelfSubjectReview ... `object` is the decoded
/// and defaulted body; the answer is the same object with its status filled in.
pub trait Review: Send + Sync {
    /// (API group, plural resource) pairs that this one answers `create` for.
    fn resources(&self) -> Vec<(&'static str, &'static str)>;

    fn review<'a>(
        &'a self,
        resource: &'a str,
        object: Value,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Value, ApiError>>;
}

/// Issues bound service-account tokens: `create serviceaccounts/token`.
pub trait TokenIssuer: Send + Sync {
    /// `account` is the stored ServiceAccount, `request` the decoded authentication.k8s.io/v1 TokenRequest, its
    /// `spec.expirationSeconds` set; the answer is the TokenRequest with `status.token` and `status.expirationTimestamp`.
    fn issue<'a>(
        &'a self,
        account: &'a Value,
        request: Value,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<Value, ApiError>>;
}

/// A value cannot be written to or read from the store in its protected form.
#[derive(Debug, thiserror::Error)]
#[error("transform value of {key}: {message}")]
pub struct TransformError {
    pub key: String,
    pub message: String,
}

/// Encryption at rest. `key` is the store key and binds the cipher text to its place.
pub trait Transformer: Send + Sync {
    /// Plain envelope -> stored bytes, with upstream's prefix.
    fn seal(&self, key: &[u8], plain: &[u8]) -> Result<Bytes, TransformError>;
    /// Stored bytes -> plain envelope. Bytes without a known prefix are plain already (written before encryption was on).
    fn open(&self, key: &[u8], stored: Bytes) -> Result<Bytes, TransformError>;
}

/// A byte stream to a node, pod or service.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Where the API server wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The kubelet of a node: TLS with the server's client certificate, the node's serving certificate checked.
    Kubelet { node: String, host: String, port: u16 },
    /// A pod, service backend or node port, as seen from the server's host. Plain TCP, or TLS without verification (upstream's
    /// rule for `https:` proxy targets).
    Network { host: String, port: u16, tls: bool },
}

/// Opens connections for logs, exec, attach, port-forward and the proxy subresources.
pub trait NodeConnector: Send + Sync {
    fn connect<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, std::io::Result<Box<dyn Connection>>>;
}

/// Serves non-resource paths (discovery, OpenAPI, OIDC discovery). Asked in order, after authorization.
pub trait PathHandler: Send + Sync {
    /// `None`: not mine. The request has no body worth reading.
    fn serve<'a>(&'a self, parts: &'a http::request::Parts)
    -> BoxFuture<'a, Option<http::Response<crate::body::Body>>>;

    /// What the list of paths at `/` shows of them.
    fn paths(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Adds to `/metrics`.
pub trait MetricsSource: Send + Sync {
    /// Lines in Prometheus' text form, each ended.
    fn render(&self) -> BoxFuture<'_, String>;
}

/// Allows everything; for clusters without authorization and for tests.
#[derive(Debug, Clone, Copy)]
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize<'a>(&'a self, _: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(async { Decision::Allow })
    }
}

/// Knows nobody: only callers in this process (which bring an [`Identity`] extension) get in. The safe default.
#[derive(Debug, Clone, Copy)]
pub struct NobodyAuthenticator;

impl Authenticator for NobodyAuthenticator {
    fn authenticate<'a>(&'a self, _: &'a http::request::Parts) -> BoxFuture<'a, Result<Identity, ApiError>> {
        Box::pin(async { Err(ApiError::unauthorized()) })
    }
}

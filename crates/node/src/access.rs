//! What the streaming routes (exec, attach, port-forward, logs) may ask of the kubelet, and how they are plugged in.
//!
//! Input: namespace, pod, container names from a URL. Output: runtime ids, log paths, the runtime's streaming URLs.
//! Invariant: answers come from the last observed state of the pod's worker; a container that never existed is
//! `LookupError`, never an empty id. Does not stream anything itself.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use http_body_util::combinators::BoxBody;

/// Body of every response of the kubelet's server.
pub type ResponseBody = BoxBody<bytes::Bytes, std::io::Error>;

/// One container as the streaming routes need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerTarget {
    pub pod_uid: String,
    pub container_id: String,
    pub running: bool,
    /// From the container's spec; attach needs them.
    pub tty: bool,
    pub stdin: bool,
    /// The current log file of this container instance. It may not exist yet.
    pub log_path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("pod {0:?} not found")]
    PodNotFound(String),
    #[error("container {container:?} in pod {pod:?} is not available")]
    ContainerNotFound { pod: String, container: String },
    /// Known to the spec, but no instance exists: image pull, init containers and so on. Text as upstream's log errors.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    ContainerWaiting { pod: String, container: String, reason: String },
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious { pod: String, container: String },
    #[error("container runtime: {0}")]
    Runtime(#[from] tonic::Status),
}

/// Options of an exec; `attach` uses all but `command`.
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Implemented by the kubelet; see the module doc. `pod` is the pod's name.
pub trait PodAccess: Send + Sync {
    /// The newest instance of a container (init and ephemeral ones included).
    fn container<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<ContainerTarget, LookupError>>;
    /// The instance before the newest, for `previous=true`.
    fn previous_container<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<ContainerTarget, LookupError>>;
    /// URL of the runtime's streaming server for an exec in `container_id`; valid for about a minute, once.
    fn exec_url<'a>(
        &'a self,
        container_id: &'a str,
        options: &'a StreamOptions,
    ) -> BoxFuture<'a, Result<String, LookupError>>;
    fn attach_url<'a>(
        &'a self,
        container_id: &'a str,
        options: &'a StreamOptions,
    ) -> BoxFuture<'a, Result<String, LookupError>>;
    /// The path of the pod's network namespace (`/var/run/netns/...`); `None` for a pod in the host's network.
    fn network_namespace<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
    ) -> BoxFuture<'a, Result<Option<PathBuf>, LookupError>>;
    /// Changes whenever the pod's containers change; a log follower waits on it to learn that the container ended.
    fn changed<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, ()>;
}

/// Routes that the server asks first. `None` means: not mine. The caller is already authenticated and authorized.
pub trait StreamRoutes: Send + Sync {
    fn handle(
        &self,
        request: http::Request<hyper::body::Incoming>,
        access: Arc<dyn PodAccess>,
    ) -> BoxFuture<'static, RouteOutcome>;
}

/// Either a response, or the request handed back untouched.
pub enum RouteOutcome {
    Handled(http::Response<ResponseBody>),
    NotMine(http::Request<hyper::body::Incoming>),
}

/// No streaming routes.
pub struct NoStreamRoutes;

impl StreamRoutes for NoStreamRoutes {
    fn handle(
        &self,
        request: http::Request<hyper::body::Incoming>,
        _access: Arc<dyn PodAccess>,
    ) -> BoxFuture<'static, RouteOutcome> {
        Box::pin(async move { RouteOutcome::NotMine(request) })
    }
}

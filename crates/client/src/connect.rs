//! Making a `kube::Client`: over a service in this process, or over mTLS to a server.
//!
//! Invariant: both kinds behave the same; a component never knows which one it holds. Does not authenticate anyone:
//! whoever passes a service wraps it so that each request carries the component's identity.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body::Body as HttpBody;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::{Value, json};
use tower::{BoxError, Service};

/// A client over a tower service in this process. No socket is opened; requests carry only a path and query.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}

/// Where a server is and how to prove who we are. All PEM texts are contents, not paths.
#[derive(Debug, Clone)]
pub struct RemoteSpec {
    /// `https://host:port`
    pub server: String,
    /// The certificates that may have signed the server's.
    pub ca_pem: String,
    pub credentials: Credentials,
    /// Name to expect in the server's certificate, where it differs from the host in `server`.
    pub tls_server_name: Option<String>,
}

#[derive(Debug, Clone)]
pub enum Credentials {
    ClientCertificate {
        cert_pem: String,
        key_pem: String,
    },
    Token(String),
    /// Read again once a minute, so that a rotated token is picked up.
    TokenFile(String),
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("describe the server {server}")]
    Describe { server: String, source: serde_json::Error },
    #[error("load the credentials for {server}")]
    Credentials { server: String, source: Box<KubeconfigError> },
    #[error("build a client for {server}")]
    Build { server: String, source: Box<kube::Error> },
}

/// A client over TLS. Connects lazily: an unreachable server shows in the first request.
pub async fn remote(spec: &RemoteSpec) -> Result<Client, RemoteError> {
    let server = spec.server.clone();
    let kubeconfig: Kubeconfig = serde_json::from_value(derive_kubeconfig(spec))
        .map_err(|source| RemoteError::Describe { server: server.clone(), source })?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|source| RemoteError::Credentials { server: server.clone(), source: Box::new(source) })?;
    Client::try_from(config).map_err(|source| RemoteError::Build { server, source: Box::new(source) })
}

fn derive_kubeconfig(spec: &RemoteSpec) -> Value {
    let user = match &spec.credentials {
        Credentials::ClientCertificate { cert_pem, key_pem } => json!({
            "client-certificate-data": BASE64.encode(cert_pem),
            "client-key-data": BASE64.encode(key_pem),
        }),
        Credentials::Token(token) => json!({ "token": token }),
        Credentials::TokenFile(path) => json!({ "tokenFile": path }),
    };
    let mut cluster = json!({ "server": spec.server, "certificate-authority-data": BASE64.encode(&spec.ca_pem) });
    if let Some(name) = &spec.tls_server_name {
        cluster["tls-server-name"] = json!(name);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "holdfast", "cluster": cluster }],
        "users": [{ "name": "self", "user": user }],
        "contexts": [{ "name": "holdfast", "context": { "cluster": "holdfast", "user": "self" } }],
        "current-context": "holdfast",
    })
}

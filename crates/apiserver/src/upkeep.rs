//! Starting and background work: filling the caches, compaction, system namespaces, the `kubernetes` Service.
//!
//! Invariant: every step may be repeated; what exists already is left as it is, except what the servers keep (their
//! endpoints).

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::KvError;
use tower::Service;

use crate::body::{Body, full};
use crate::cache::feed::FeedError;
use crate::chain::Identity;
use crate::compaction;
use crate::masters::{self, derive_endpoints};
use crate::server::{ApiServer, stopped};

/// Namespaces that always exist.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// How often the own endpoints and namespaces are looked at.
const BOOTSTRAP_EVERY: Duration = Duration::from_secs(60);
const BOOTSTRAP_RETRY: Duration = Duration::from_secs(1);

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("fill the caches")]
    Fill(#[from] FeedError),
    #[error("say that this server lives")]
    Masters(#[source] KvError),
    #[error("bootstrap {what}: {answer}")]
    Bootstrap { what: String, answer: String },
}

impl ApiServer {
    /// Fills the caches, starts the background tasks on the current runtime and makes the system namespaces. Once.
    pub async fn start(&self) -> Result<(), StartError> {
        let core = &self.core;
        let watch = core.registry.feed.fill().await?;
        tokio::spawn(core.registry.feed.clone().run(watch));
        tokio::spawn(compaction::run(core.clone()));
        bootstrap(self).await?;
        core.ready.store(true, Ordering::Release);
        tokio::spawn(run_bootstrap(self.clone()));
        tokio::spawn(run_masters(self.clone()));
        Ok(())
    }

    /// Takes this server out of the endpoints, if there are others: for a stop in order, before [`ApiServer::stop`].
    pub async fn leave(&self) {
        let Some((address, port)) = self.core.config.advertise.filter(|(address, _)| !address.is_loopback()) else {
            return;
        };
        match self.core.masters.leave(address).await {
            Ok(others) if others.is_empty() => {}
            Ok(others) => {
                if let Err(error) = put_endpoints(self, &others, port).await {
                    tracing::info!(error = &error as &dyn std::error::Error, "the endpoints still name this server");
                }
            }
            Err(error) => tracing::info!(%error, "the endpoints still name this server"),
        }
    }
}

async fn run_bootstrap(server: ApiServer) {
    let mut stop = server.core.stopping.subscribe();
    let mut pause = BOOTSTRAP_EVERY;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut stop) => return,
        }
        pause = match bootstrap(&server).await {
            Ok(()) => BOOTSTRAP_EVERY,
            Err(error) => {
                tracing::warn!(%error, "system objects are not as they should be; trying again");
                BOOTSTRAP_RETRY
            }
        };
    }
}

async fn bootstrap(server: &ApiServer) -> Result<(), StartError> {
    for name in NAMESPACES {
        let path = "/api/v1/namespaces";
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(server, path, name, &namespace, false).await?;
    }
    let Some((_, port)) = server.core.config.advertise else { return Ok(()) };
    let cluster_ip = server.core.services.first_address().to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "type": "ClusterIP", "sessionAffinity": "None",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
        }
    });
    ensure(server, "/api/v1/namespaces/default/services", "kubernetes", &service, false).await?;
    write_endpoints(server).await
}

/// The endpoints of the `kubernetes` Service: all servers that live.
async fn write_endpoints(server: &ApiServer) -> Result<(), StartError> {
    let Some((address, port)) = server.core.config.advertise.filter(|(address, _)| !address.is_loopback()) else {
        // No Pod could follow such an endpoint, and the API refuses it.
        return Ok(());
    };
    let live = server.core.masters.renew(address).await.map_err(StartError::Masters)?;
    put_endpoints(server, &live, port).await
}

async fn put_endpoints(server: &ApiServer, live: &[IpAddr], port: u16) -> Result<(), StartError> {
    for (collection, object) in derive_endpoints(live, port) {
        ensure(server, collection, "kubernetes", &object, true).await?;
    }
    Ok(())
}

/// Says every [`masters::RENEW_EVERY`] that this server lives.
async fn run_masters(server: ApiServer) {
    let mut stop = server.core.stopping.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(masters::RENEW_EVERY) => {}
            () = stopped(&mut stop) => return,
        }
        if let Err(error) = write_endpoints(&server).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the endpoints of the API servers are not up to date"
            );
        }
    }
}

/// Creates an object that is missing; with `keep`, replaces one that is there (an equal one is not written).
async fn ensure(
    server: &ApiServer,
    collection: &str,
    name: &str,
    object: &Value,
    keep: bool,
) -> Result<(), StartError> {
    let one = format!("{collection}/{name}");
    let (code, _) = ask(server, Method::GET, &one, None).await;
    let (code, answer) = match code {
        StatusCode::OK if keep => ask(server, Method::PUT, &one, Some(object)).await,
        StatusCode::NOT_FOUND => ask(server, Method::POST, collection, Some(object)).await,
        _ => return Ok(()),
    };
    if code.is_success() || code == StatusCode::CONFLICT {
        return Ok(());
    }
    // Another server was faster, and what it made holds what this one asked for, such as an address.
    if ask(server, Method::GET, &one, None).await.0 == StatusCode::OK {
        return Ok(());
    }
    Err(StartError::Bootstrap { what: one, answer })
}

/// A request of the server to itself.
async fn ask(server: &ApiServer, method: Method, path: &str, object: Option<&Value>) -> (StatusCode, String) {
    let body = object.map(Value::to_string).unwrap_or_default();
    let mut request: Request<Body> = Request::new(full(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    request.headers_mut().insert(http::header::USER_AGENT, http::HeaderValue::from_static("kube-apiserver"));
    request.extensions_mut().insert(Identity {
        user: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..Identity::default()
    });
    let Ok(response) = server.clone().call(request).await;
    let code = response.status();
    let text = match response.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    };
    (code, text)
}

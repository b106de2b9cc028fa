//! The kubelet's HTTPS endpoint on 10250.
//!
//! Input: requests with (or, for /healthz, without) a client certificate of the cluster's CA. Output: health, pods,
//! statistics, metrics; everything else goes to the streaming routes. Invariant: nothing but /healthz is answered to a
//! peer whose certificate is not among the allowed users and groups.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use podlife::spec::{name, namespace};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::access::{ResponseBody, RouteOutcome, StreamRoutes};
use crate::config::ServerConfig;
use crate::kubelet::{Context, NodeError};
use crate::pods::Pods;
use crate::stats;

/// Connections at once; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 512;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

pub async fn bind(settings: &ServerConfig) -> Result<TcpListener, NodeError> {
    let address: SocketAddr = settings.listen;
    TcpListener::bind(address).await.map_err(|source| NodeError::Listen { address, source })
}

/// Serves for ever; pending if there is no listener.
pub async fn run_server(
    listener: Option<TcpListener>,
    context: Arc<Context>,
    pods: Pods,
    streams: Arc<dyn StreamRoutes>,
) {
    let (Some(listener), Some(settings)) = (listener, context.config.server.clone()) else {
        return std::future::pending().await;
    };
    let acceptor = TlsAcceptor::from(settings.tls.clone());
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let routes = Arc::new(Routes { context, pods, streams, settings });
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else { return };
            let allowed = routes.is_allowed(stream.get_ref().1.peer_certificates().unwrap_or_default());
            let service = hyper::service::service_fn(move |request| {
                let routes = routes.clone();
                async move { Ok::<_, std::convert::Infallible>(routes.answer(request, allowed).await) }
            });
            let connection = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = connection.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

struct Routes {
    context: Arc<Context>,
    pods: Pods,
    streams: Arc<dyn StreamRoutes>,
    settings: ServerConfig,
}

impl Routes {
    fn is_allowed(&self, certificates: &[rustls::pki_types::CertificateDer<'_>]) -> bool {
        let Some(certificate) = certificates.first() else { return false };
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return false };
        let subject = certificate.subject();
        let users = subject.iter_common_name().filter_map(|name| name.as_str().ok());
        let groups = subject.iter_organization().filter_map(|name| name.as_str().ok());
        users.into_iter().any(|user| self.settings.allowed_users.iter().any(|known| known == user))
            || groups.into_iter().any(|group| self.settings.allowed_groups.iter().any(|known| known == group))
    }

    async fn answer(&self, request: Request<Incoming>, allowed: bool) -> Response<ResponseBody> {
        if request.uri().path() == "/healthz" {
            return text(StatusCode::OK, "ok");
        }
        if !allowed {
            return text(StatusCode::UNAUTHORIZED, "Unauthorized");
        }
        let request = match self.streams.handle(request, Arc::new(self.pods.clone())).await {
            RouteOutcome::Handled(response) => return response,
            RouteOutcome::NotMine(request) => request,
        };
        match request.uri().path() {
            "/pods" | "/pods/" | "/runningpods/" => self.list_pods(),
            "/stats/summary" => json_answer(&stats::observe_summary(&self.context, &self.pods).await),
            "/metrics" => text(StatusCode::OK, &stats::derive_metrics(&self.pods)),
            "/metrics/resource" | "/metrics/cadvisor" | "/metrics/probes" => text(StatusCode::OK, ""),
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    fn list_pods(&self) -> Response<ResponseBody> {
        let mut pods = self.pods.snapshots();
        pods.sort_by(|a, b| (namespace(&a.pod), name(&a.pod)).cmp(&(namespace(&b.pod), name(&b.pod))));
        let items = pods.iter().map(|snapshot| {
            let mut pod = Pod::clone(&snapshot.pod);
            pod.status = Some((*snapshot.status).clone());
            pod
        });
        let items = items.collect::<Vec<_>>();
        json_answer(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
    }
}

fn body(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn text(status: StatusCode, text: &str) -> Response<ResponseBody> {
    let mut response = Response::new(body(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json_answer(value: &serde_json::Value) -> Response<ResponseBody> {
    let mut response = Response::new(body(value.to_string()));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

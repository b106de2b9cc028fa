//! The server itself: one tower service through which every request goes, whoever brings it.
//!
//! ```text
//! request -> identity -> what is asked -> authorization -> dispatch (resource | review | path) -> response -> audit
//! ```
//!
//! Invariants: nothing is dispatched that was not authorized; every failure is a Status; a panic in a handler is a 500 and ends
//! nothing but its request; what is not long-running ends within the request timeout.
//! Not here: sockets (`listener`), background work (`upkeep`).

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use base::{Clock, Rng};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use store::Kv;
use tokio::sync::watch;

use crate::body::{Body, BoxError, boxed};
use crate::chain::{Attributes, AuditRecord, Decision, Identity, Review};
use crate::config::ApiServerConfig;
use crate::documents::Documents;
use crate::encode::value_bytes;
use crate::error::ApiError;
use crate::masters::Masters;
use crate::negotiate::{self, Media, Offers, Representation};
use crate::quotas::Quotas;
use crate::reader::Reader;
use crate::registry::Registry;
use crate::request::{Query, RequestInfo, parse_request};
use crate::rest::{self, Call, Origin, Warnings, respond};
use crate::services::ServiceNumbers;
use crate::store_check::StoreCheck;
use crate::{paths, policy, review};

const AUDIT_ID: &str = "audit-id";

/// What all requests share.
pub struct Core {
    pub config: ApiServerConfig,
    pub registry: Arc<Registry>,
    pub services: ServiceNumbers,
    pub quotas: Quotas,
    pub masters: Masters,
    /// Becomes true when watches and idle connections have to end.
    pub stopping: watch::Sender<bool>,
    /// The caches are filled and the system namespaces exist.
    pub ready: AtomicBool,
    pub metrics: paths::Metrics,
    pub store_check: StoreCheck,
}

/// The API server. Cheap to clone; a tower service for requests with any body.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) core: Arc<Core>,
}

impl ApiServer {
    /// Builds the server; it answers once [`Self::start`](crate::upkeep) has filled the caches.
    pub fn new(mut config: ApiServerConfig, kv: Arc<dyn Kv>, clock: Arc<dyn Clock>, rng: Box<dyn Rng>) -> Self {
        let registry = Arc::new(Registry::new(kv, clock, rng, config.transformer.clone()));
        let services = ServiceNumbers::new(&config);
        let address = config.advertise.map(|(address, port)| std::net::SocketAddr::new(address, port).to_string());
        config.paths.push(Arc::new(Documents::new(address.unwrap_or_default(), paths::GIT_VERSION)));
        let masters = Masters::new(&registry);
        let core = Core {
            config,
            registry,
            services,
            quotas: Quotas::default(),
            masters,
            stopping: watch::Sender::new(false),
            ready: AtomicBool::new(false),
            metrics: paths::Metrics::default(),
            store_check: StoreCheck::default(),
        };
        Self { core: Arc::new(core) }
    }

    /// The view of the cluster for the server's own parts.
    pub fn reader(&self) -> Arc<dyn Reader> {
        self.core.registry.clone()
    }

    /// Ends watches and lets the listener finish; new requests are still answered.
    pub fn stop(&self) {
        self.core.stopping.send_replace(true);
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let core = self.core.clone();
        let (mut parts, body) = request.into_parts();
        let wants = error_representation(&parts);
        let started = core.registry.clock.monotonic();
        let mut record = AuditRecord {
            id: audit_id(&core, &parts),
            attributes: Attributes::default(),
            code: 0,
            received: core.registry.now(),
            latency: Duration::ZERO,
            reason: String::new(),
        };
        let warnings = Warnings::default();
        let work = serve(&core, &mut parts, body, &warnings, &mut record);
        let result = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => Err(panicked(panic.as_ref(), &record.attributes)),
        };
        let mut response = result.unwrap_or_else(|error| error_response(&error, wants));
        add_warnings(&mut response, warnings.take());
        add_common_headers(&mut response, &record.id);
        record.code = response.status().as_u16();
        record.latency = core.registry.clock.monotonic().saturating_sub(started);
        core.metrics.observe(&record);
        if let Some(audit) = &core.config.audit {
            audit.record(record);
        }
        response
    }
}

/// Returns when the server stops (or is gone).
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    stopping.wait_for(|stopping| *stopping).await.ok();
}

impl<B> tower::Service<Request<B>> for ApiServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        let request = request.map(boxed);
        Box::pin(async move { Ok(server.handle(request).await) })
    }
}

async fn serve(
    core: &Arc<Core>,
    parts: &mut Parts,
    body: Body,
    warnings: &Warnings,
    record: &mut AuditRecord,
) -> Result<Response<Body>, ApiError> {
    let identity = match parts.extensions.get::<Identity>() {
        Some(identity) => identity.clone(),
        None => core.config.authenticator.authenticate(parts).await?,
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let info = parse_request(&parts.method, parts.uri.path(), &query)?;
    let attributes = info.attributes(identity.clone(), &query);
    record.attributes = attributes.clone();
    record.reason = authorize(core, &attributes).await?;
    let long = is_long_running(&info, &query);
    let work = dispatch(core, parts, body, Asked { info, query, identity, attributes }, warnings);
    if long {
        return work.await;
    }
    match tokio::time::timeout(core.config.request_timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::timeout("request did not complete within the allotted timeout", 0)),
    }
}

/// What an authorized request asks for.
struct Asked {
    info: RequestInfo,
    query: Query,
    identity: Identity,
    attributes: Attributes,
}

async fn authorize(core: &Core, attributes: &Attributes) -> Result<String, ApiError> {
    match core.config.authorizer.authorize(attributes).await {
        Decision::Allow => Ok(String::new()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(crate::authz::forbidden(attributes, &reason)),
    }
}

/// Watches and streams live as long as their clients want.
fn is_long_running(info: &RequestInfo, query: &Query) -> bool {
    info.verb == "watch"
        || matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy")
        || (info.subresource == "log" && query.flag("follow"))
}

async fn dispatch(
    core: &Arc<Core>,
    parts: &mut Parts,
    body: Body,
    asked: Asked,
    warnings: &Warnings,
) -> Result<Response<Body>, ApiError> {
    let Asked { info, query, identity, attributes } = asked;
    if !info.is_resource {
        return paths::serve(core, parts).await;
    }
    warnings.add(policy::deprecation(&info.group, &info.resource).map(str::to_owned));
    let Some(resource) = core.registry.resource(&info.group, &info.version, &info.resource) else {
        let found: Option<&Arc<dyn Review>> = core
            .config
            .reviews
            .iter()
            .find(|review| review.resources().contains(&(info.group.as_str(), info.resource.as_str())));
        return review::serve(core, found, parts, body, review::Asked { info, query, identity, attributes }, warnings)
            .await;
    };
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let call = Call {
        core: core.clone(),
        resource,
        method: parts.method.clone(),
        info,
        query,
        headers: parts.headers.clone(),
        identity,
        warnings: Warnings::default(),
        upgrade: std::sync::Mutex::new(upgrade),
        raw_query: parts.uri.query().unwrap_or_default().to_owned(),
        origin: Origin::of(parts),
    };
    let shared = call.warnings.clone();
    let result = rest::handle(call, body).await;
    warnings.add(shared.take());
    result
}

fn panicked(panic: &(dyn Any + Send), attributes: &Attributes) -> ApiError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(panic = text, path = attributes.path, verb = attributes.verb, "a request handler panicked");
    ApiError::new(500, "InternalError", "This request caused apiserver to panic. Look in the logs for details.")
}

/// How the client wants errors; JSON if it wants something that does not exist.
fn error_representation(parts: &Parts) -> Representation {
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let offers = Offers { transforms: true, ..Offers::PLAIN };
    negotiate::negotiate_output(&parts.headers, &query, offers).unwrap_or(Representation::JSON)
}

pub fn error_response(error: &ApiError, wants: Representation) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let status = error.to_value();
    let (media, bytes) = match value_bytes(&status, wants.media, wants.pretty) {
        Ok(bytes) => (wants.media, bytes),
        Err(_) => (Media::Json, Bytes::from(status.to_string())),
    };
    let mut response = respond(code, media, bytes);
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.code == 403 {
        response.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// Longer ids of clients are cut.
const AUDIT_ID_BYTES_MAX: usize = 64;

/// What this request is called in the audit log: as the client says, or a new id.
fn audit_id(core: &Core, parts: &Parts) -> String {
    let given = parts.headers.get(AUDIT_ID).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if given.is_empty() { core.registry.draw_ids().0 } else { given.chars().take(AUDIT_ID_BYTES_MAX).collect() }
}

/// What every response carries; who made it may have said otherwise of its caching.
fn add_common_headers(response: &mut Response<Body>, audit_id: &str) {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(audit_id) {
        headers.insert(AUDIT_ID, value);
    }
    headers.entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
}

/// `Warning: 299 - "text"` headers (RFC 7234).
fn add_warnings(response: &mut Response<Body>, warnings: Vec<String>) {
    for text in warnings {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

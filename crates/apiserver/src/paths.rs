//! Non-resource paths: version, health, metrics, and whatever the configured handlers serve.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use crate::body::{Body, full, response};
use crate::chain::AuditRecord;
use crate::encode::value_bytes;
use crate::error::ApiError;
use crate::negotiate::Media;
use crate::request::Query;
use crate::rest::respond;
use crate::server::Core;

/// The API that is spoken; the patch level is that of the schema.
pub const GIT_VERSION: &str = concat!("v1.37.2+holdfast", env!("CARGO_PKG_VERSION"));

pub async fn serve(core: &Arc<Core>, parts: &Parts) -> Result<Response<Body>, ApiError> {
    let path = parts.uri.path();
    match path.trim_end_matches('/') {
        "/version" => {
            if parts.method != Method::GET {
                return Err(ApiError::method_not_allowed());
            }
            let version = json!({
                "major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37",
                "minCompatibilityMajor": "1", "minCompatibilityMinor": "36",
                "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "none", "compiler": "rustc",
                "platform": format!("{}/{}", std::env::consts::OS, base::go_architecture())
            });
            return Ok(respond(StatusCode::OK, Media::Json, value_bytes(&version, Media::Json, true)?));
        }
        "/healthz" | "/livez" | "/readyz" => return Ok(health(core, parts).await),
        "" => return root(core, parts),
        "/metrics/slis" => return Ok(text(StatusCode::OK, check_results(core).await)),
        "/metrics" => {
            let mut page = core.metrics.render(core);
            for source in &core.config.metrics {
                page += &source.render().await;
            }
            return Ok(text(StatusCode::OK, page));
        }
        _ => {}
    }
    if let Some(check) = single_check(core, path).await {
        return Ok(check);
    }
    for handler in &core.config.paths {
        if let Some(response) = handler.serve(parts).await {
            return Ok(response);
        }
    }
    Ok(text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()))
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = response(code, full(text));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if code.is_client_error() || code.is_server_error() {
        headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// `/`: what there is to ask for.
fn root(core: &Core, parts: &Parts) -> Result<Response<Body>, ApiError> {
    if parts.uri.path() != "/" {
        return Ok(text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()));
    }
    let mut paths = Vec::new();
    for root in ["/healthz", "/livez", "/readyz"] {
        paths.push(root.to_owned());
        paths.extend(checks(core, root, true).into_iter().map(|(name, _)| format!("{root}/{name}")));
    }
    paths.extend(["/metrics", "/metrics/slis", "/version"].map(str::to_owned));
    paths.extend(core.config.paths.iter().flat_map(|handler| handler.paths()));
    paths.sort();
    Ok(respond(StatusCode::OK, Media::Json, value_bytes(&json!({"paths": paths}), Media::Json, true)?))
}

/// `/metrics/slis`: the result of each health check.
async fn check_results(core: &Core) -> String {
    let mut lines = String::from(
        "# HELP kubernetes_healthcheck [STABLE] This metric records the result of a single healthcheck.\n\
         # TYPE kubernetes_healthcheck gauge\n",
    );
    let store = store_answers(core).await;
    for root in ["healthz", "livez", "readyz"] {
        for (name, ok) in checks(core, &format!("/{root}"), store) {
            let line = format!("kubernetes_healthcheck{{name=\"{name}\",type=\"{root}\"}} {}\n", u8::from(ok));
            lines.push_str(&line);
        }
    }
    lines
}

/// Names and results of the checks behind a health path, in upstream's order.
/// `store`: see [`store_answers`].
fn checks(core: &Core, path: &str, store: bool) -> Vec<(&'static str, bool)> {
    let ready = core.ready.load(Ordering::Acquire);
    let mut checks = vec![("ping", true), ("log", true), ("etcd", store)];
    if path.starts_with("/readyz") {
        checks.extend([("etcd-readiness", store), ("informer-sync", ready)]);
    }
    checks.push(("poststarthook/start-system-namespaces-controller", ready || path.starts_with("/livez")));
    if path.starts_with("/readyz") {
        checks.push(("shutdown", !*core.stopping.borrow()));
    }
    checks
}

async fn store_answers(core: &Core) -> bool {
    core.store_check.answers(&*core.registry.kv, &*core.registry.clock).await
}

async fn health(core: &Core, parts: &Parts) -> Response<Body> {
    let path = parts.uri.path();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let excluded: Vec<&str> = query.all("exclude").collect();
    let checks = checks(core, path, store_answers(core).await);
    let failed = checks.iter().any(|(name, ok)| !ok && !excluded.contains(name));
    if !failed && query.get("verbose").is_none() {
        return text(StatusCode::OK, "ok".to_owned());
    }
    let mut out = String::new();
    for (name, ok) in checks {
        let line = match (ok, excluded.contains(&name)) {
            (_, true) => format!("[+]{name} excluded: ok\n"),
            (true, _) => format!("[+]{name} ok\n"),
            (false, _) => format!("[-]{name} failed: reason withheld\n"),
        };
        out.push_str(&line);
    }
    let name = path.trim_matches('/');
    let (code, verdict) = if failed {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{name} check failed\n"))
    } else {
        (StatusCode::OK, format!("{name} check passed\n"))
    };
    out.push_str(&verdict);
    text(code, out)
}

/// `/readyz/etcd` and the like.
async fn single_check(core: &Core, path: &str) -> Option<Response<Body>> {
    let (root, name) = path.trim_matches('/').split_once('/')?;
    if !matches!(root, "healthz" | "livez" | "readyz") {
        return None;
    }
    // The others say what they know without waiting for the store.
    let store = !name.starts_with("etcd") || store_answers(core).await;
    let (_, ok) = checks(core, &format!("/{root}"), store).into_iter().find(|(check, _)| *check == name)?;
    Some(match ok {
        true => text(StatusCode::OK, "ok".to_owned()),
        false => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {name} failed\n")),
    })
}

/// Counts of requests by verb, resource and code.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<BTreeMap<(String, String, u16), Figures>>);

#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    count: u64,
    seconds: f64,
}

/// Bounds the memory of label combinations that clients can make up.
const SERIES_MAX: usize = 2_000;

impl Metrics {
    pub fn observe(&self, record: &AuditRecord) {
        let attributes = &record.attributes;
        let resource = if attributes.is_resource { attributes.resource.clone() } else { String::new() };
        let key = (attributes.verb.clone(), resource, record.code);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SERIES_MAX && !all.contains_key(&key) {
            return;
        }
        let figures = all.entry(key).or_default();
        figures.count += 1;
        figures.seconds += record.latency.as_secs_f64();
    }

    fn render(&self, core: &Core) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut out = String::new();
        let mut series = |name: &str, value: fn(&Figures) -> String| {
            out += &format!("# TYPE {name} counter\n");
            for ((verb, resource, code), figures) in &all {
                let (verb, value) = (verb.to_uppercase(), value(figures));
                out += &format!("{name}{{code=\"{code}\",resource=\"{resource}\",verb=\"{verb}\"}} {value}\n");
            }
        };
        series("apiserver_request_total", |figures| figures.count.to_string());
        series("apiserver_request_duration_seconds_sum", |figures| figures.seconds.to_string());
        let revision = core.registry.feed.applied();
        out + &format!("# TYPE apiserver_storage_revision gauge\napiserver_storage_revision {revision}\n")
    }
}

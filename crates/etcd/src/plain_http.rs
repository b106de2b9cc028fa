//! What probes and scrapers ask without gRPC: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`, in etcd's words.

use http::{Method, Response, StatusCode};
use http_body_util::Full;
use tonic::body::Body;

use crate::member::{Member, count};
use crate::metrics::{Role, render_metrics};
use crate::process::ProcessFigures;
use crate::refusals::refusal_of;
use crate::{ETCD_CLUSTER_VERSION, ETCD_VERSION};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Answers one request.
pub(crate) async fn answer(member: &Member, method: &Method, path: &str, query: Option<&str>) -> Response<Body> {
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let (area, check) = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some((area @ ("livez" | "readyz"), check)) => (area, Some(check)),
        _ => (path.trim_start_matches('/'), None),
    };
    if !matches!(area, "health" | "livez" | "readyz" | "version" | "metrics") {
        return text(StatusCode::NOT_FOUND, TEXT, "404 page not found\n");
    }
    if method != Method::GET {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
        response.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static("GET"));
        return response;
    }
    match area {
        "health" => health(member, query.is_some_and(|query| query.contains("serializable=true"))).await,
        "version" => {
            let versions = serde_json::json!({
                "etcdserver": ETCD_VERSION, "etcdcluster": ETCD_CLUSTER_VERSION, "storage": ETCD_CLUSTER_VERSION,
            });
            text(StatusCode::OK, JSON, &versions.to_string())
        }
        "metrics" => match member.status().await {
            Ok(status) => text(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                &render_metrics(&status, &ProcessFigures::observe(), Role::of(member), &member.counters),
            ),
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, &format!("{error}\n")),
        },
        "livez" => checks(member, &["serializable_read"], check, query).await,
        _ => {
            let all = ["data_corruption", "serializable_read", "linearizable_read", "non_learner"];
            checks(member, &all, check, query).await
        }
    }
}

/// Why the member can't serve, if so; `serializable`: from what it has itself.
async fn ailment(member: &Member, serializable: bool) -> Option<String> {
    match member.status().await {
        Ok(status) if status.stopped.is_some() => status.stopped.map(|reason| reason.to_string()),
        Ok(_) if serializable => None,
        Ok(_) => member.check_agreement().await.err().map(|error| refusal_of(&error).1.to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

async fn health(member: &Member, serializable: bool) -> Response<Body> {
    if !serializable && member.leader().leader == 0 {
        count(&member.counters.health_failures);
        return text(StatusCode::SERVICE_UNAVAILABLE, TEXT, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
    }
    let ailment = ailment(member, serializable).await;
    count(if ailment.is_none() { &member.counters.health_successes } else { &member.counters.health_failures });
    match ailment {
        None => text(StatusCode::OK, TEXT, r#"{"health":"true","reason":""}"#),
        Some(reason) => {
            let health = serde_json::json!({ "health": "false", "reason": format!("RANGE ERROR:{reason}") });
            text(StatusCode::SERVICE_UNAVAILABLE, TEXT, &format!("{health}\n"))
        }
    }
}

/// `/livez` and `/readyz`, whole or one check of them.
async fn checks(member: &Member, all: &[&str], wanted: Option<&str>, query: Option<&str>) -> Response<Body> {
    let parameters: Vec<(&str, &str)> =
        query.unwrap_or("").split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let chosen: Vec<&str> = match wanted {
        Some(wanted) => all.iter().copied().filter(|check| *check == wanted).collect(),
        None => all.iter().copied().filter(|check| !parameters.contains(&("exclude", check))).collect(),
    };
    if wanted.is_some() && chosen.is_empty() {
        return text(StatusCode::NOT_FOUND, TEXT, "404 page not found\n");
    }
    let mut report = String::new();
    let mut failed = false;
    for check in chosen {
        let problem = match check {
            "serializable_read" => ailment(member, true).await,
            "linearizable_read" => ailment(member, false).await,
            "non_learner" if member.is_learner() => Some("not supported for learner".to_owned()),
            _ => None,
        };
        match problem {
            Some(reason) => {
                failed = true;
                report.push_str(&format!("[-]{check} failed: {reason}\n"));
            }
            None => report.push_str(&format!("[+]{check} ok\n")),
        }
    }
    if failed {
        return text(StatusCode::SERVICE_UNAVAILABLE, TEXT, &report);
    }
    let verbose = parameters.iter().any(|(name, _)| *name == "verbose");
    text(StatusCode::OK, TEXT, &format!("{}ok\n", if verbose { report.as_str() } else { "" }))
}

/// Refuses what cannot be meant.
pub(crate) fn bad_request(reason: &str) -> Response<Body> {
    text(StatusCode::BAD_REQUEST, TEXT, reason)
}

fn text(status: StatusCode, content_type: &'static str, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(body.to_owned())));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

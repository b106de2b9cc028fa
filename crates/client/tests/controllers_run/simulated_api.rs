//! The simulated API of `reconcile::harness` as an HTTP service: lists, watches, writes and discovery of a few kinds.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::client::Body;
use reconcile::harness::World;
use reconcile::{Failure, Key, Observation, Observe, PatchKind, Propagation, ResourceId, Verb, Write};
use serde_json::{Value, json};
use tokio::sync::watch;

type HttpResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Cheap to clone.
#[derive(Clone)]
pub struct SimulatedApi {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
}

impl SimulatedApi {
    pub fn new(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)), changed: watch::channel(0).0 }
    }

    /// Reads or changes the world as somebody else would.
    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock().unwrap();
        let result = act(&mut world);
        // A mere look wakes nobody: `until` would wake itself for ever and starve the rest.
        let revision = world.revision();
        self.changed.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        result
    }

    /// Lets `act` look at (and change) the world after every change, until it returns true.
    pub async fn until(&self, mut act: impl FnMut(&mut World) -> bool) {
        let mut changed = self.changed.subscribe();
        let done = async {
            while !self.with(&mut act) {
                changed.changed().await.unwrap();
            }
        };
        let outcome = tokio::time::timeout(std::time::Duration::from_secs(120), done).await;
        assert!(outcome.is_ok(), "never came true; the world is {:#?}", self.with(|world| world.summary()));
    }
}

impl tower::Service<Request<Body>> for SimulatedApi {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<HttpResponse, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.clone();
        async move { Ok(api.answer(request).await) }.boxed()
    }
}

fn kinds() -> [(ResourceId, bool); 4] {
    [
        (ResourceId::of::<Pod>(), true),
        (ResourceId::of::<Event>(), true),
        (ResourceId::of::<ReplicaSet>(), true),
        (ResourceId::of::<Deployment>(), true),
    ]
}

struct Target {
    resource: ResourceId,
    key: Key,
    subresource: Option<&'static str>,
}

fn parse_target(path: &str) -> Option<Target> {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let group = if parts.remove(0) == "api" { "" } else { parts.remove(0) };
    parts.remove(0);
    let namespace = if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.remove(0);
        parts.remove(0)
    } else {
        ""
    };
    let plural = *parts.first()?;
    let (resource, _) = kinds().into_iter().find(|(kind, _)| kind.group == group && kind.plural == plural)?;
    let subresource = parts.get(2).map(|name| if *name == "status" { "status" } else { "finalize" });
    Some(Target { resource, key: Key::new(namespace, *parts.get(1).unwrap_or(&"")), subresource })
}

impl SimulatedApi {
    async fn answer(&self, request: Request<Body>) -> HttpResponse {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if let Some(discovery) = answer_discovery(parts.uri.path()) {
            return reply(StatusCode::OK, &discovery);
        }
        let Some(target) = parse_target(parts.uri.path()) else {
            return reply(StatusCode::NOT_FOUND, &status("NotFound", "no such path"));
        };
        let query = parts.uri.query().unwrap_or_default();
        match parts.method {
            Method::GET if query.contains("watch=true") => self.answer_watch(&target, query),
            Method::GET if target.key.name.is_empty() => self.answer_list(&target),
            Method::GET => self.answer_object(&target),
            method => self.answer_write(&method, &parts.headers, target, body),
        }
    }

    fn objects(&self, target: &Target) -> (u64, Vec<Value>) {
        let world = self.world.lock().unwrap();
        let objects = world.all(&target.resource);
        let within = objects.filter(|object| {
            target.key.namespace.is_empty() || object["metadata"]["namespace"] == target.key.namespace
        });
        (world.revision(), within.cloned().collect())
    }

    fn answer_list(&self, target: &Target) -> HttpResponse {
        let (revision, items) = self.objects(target);
        let list = json!({
            "apiVersion": target.resource.api_version(), "kind": format!("{}List", target.resource.kind),
            "metadata": { "resourceVersion": revision.to_string() }, "items": items,
        });
        reply(StatusCode::OK, &list)
    }

    fn answer_object(&self, target: &Target) -> HttpResponse {
        let observe = Observe::Get { resource: target.resource.clone(), key: target.key.clone() };
        match self.world.lock().unwrap().observe(&observe) {
            Observation::Found(object) => reply(StatusCode::OK, &object),
            _ => reply(StatusCode::NOT_FOUND, &status("NotFound", "not found")),
        }
    }

    /// Differences between what was sent and what is, after every change. Starts from the asked revision by sending all
    /// that is newer; deletions before the watch began are not repeated, as a list has shown them.
    fn answer_watch(&self, target: &Target, query: &str) -> HttpResponse {
        let from =
            query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).and_then(|text| text.parse().ok());
        let api = self.clone();
        let target = Target { resource: target.resource.clone(), key: target.key.clone(), subresource: None };
        let sent: Vec<Value> =
            self.objects(&target).1.into_iter().filter(|object| version(object) <= from.unwrap_or(0)).collect();
        let state = (api, target, sent, self.changed.subscribe(), true);
        let frames = stream::unfold(state, |(api, target, sent, mut changed, first)| async move {
            if !first {
                changed.changed().await.ok()?;
            }
            let (_, now) = api.objects(&target);
            let events = differences(&sent, &now);
            let frame = http_body::Frame::data(Bytes::from(events));
            Some((Ok::<_, Infallible>(frame), (api, target, now, changed, false)))
        });
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    }

    fn answer_write(&self, method: &Method, headers: &http::HeaderMap, target: Target, body: Value) -> HttpResponse {
        let content_type = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let verb = derive_verb(method, content_type, &target, body);
        let write = Write { resource: target.resource.clone(), key: target.key.clone(), verb, announce: None };
        let (outcome, object) = self.with(|world| {
            let outcome = world.apply(&write);
            let newest = world.revision().to_string();
            let by_name = world.find(&target.resource, &target.key);
            let object = by_name
                .or_else(|| world.all(&target.resource).find(|object| object["metadata"]["resourceVersion"] == newest));
            (outcome, object.cloned())
        });
        match outcome {
            Ok(()) => {
                reply(StatusCode::OK, &object.unwrap_or_else(|| json!({ "kind": "Status", "status": "Success" })))
            }
            Err(failure) => reply_failure(&failure),
        }
    }
}

fn derive_verb(method: &Method, content_type: &str, target: &Target, body: Value) -> Verb {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match *method {
        Method::POST => Verb::Create { object: body },
        Method::PUT => Verb::Replace { object: body, subresource: target.subresource },
        Method::PATCH => {
            let kind = if content_type.contains("strategic") { PatchKind::StrategicMerge } else { PatchKind::Merge };
            Verb::Patch { body, kind, subresource: target.subresource }
        }
        _ => Verb::Delete {
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            propagation: match body["propagationPolicy"].as_str() {
                Some("Foreground") => Some(Propagation::Foreground),
                Some("Orphan") => Some(Propagation::Orphan),
                _ => None,
            },
            grace_seconds: None,
        },
    }
}

/// Watch events, deletions first, then in the order of resource versions: a client that has seen one has seen all before.
fn differences(before: &[Value], now: &[Value]) -> Vec<u8> {
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let gone = before.iter().filter(|old| !now.iter().any(|object| uid(object) == uid(old)));
    let mut lines: Vec<Value> = gone.map(|old| json!({ "type": "DELETED", "object": old })).collect();
    let mut now: Vec<&Value> = now.iter().collect();
    now.sort_by_key(|object| version(object));
    for object in now {
        match before.iter().find(|old| uid(old) == uid(object)) {
            None => lines.push(json!({ "type": "ADDED", "object": object })),
            Some(old) if old != object => lines.push(json!({ "type": "MODIFIED", "object": object })),
            Some(_) => {}
        }
    }
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn answer_discovery(path: &str) -> Option<Value> {
    let resources = |group: &str| {
        let of = kinds().into_iter().filter(|(kind, _)| kind.group == group);
        let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
        let list: Vec<Value> = of
            .map(|(kind, namespaced)| {
                json!({ "name": kind.plural, "singularName": "", "kind": kind.kind, "namespaced": namespaced, "verbs": verbs })
            })
            .collect();
        let version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list })
    };
    let version = json!({ "groupVersion": "apps/v1", "version": "v1" });
    match path {
        "/api/v1" => Some(resources("")),
        "/apis/apps/v1" => Some(resources("apps")),
        "/apis" => Some(json!({ "kind": "APIGroupList", "apiVersion": "v1",
            "groups": [{ "name": "apps", "versions": [version], "preferredVersion": version }] })),
        _ => None,
    }
}

fn reply(code: StatusCode, value: &Value) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn reply_failure(failure: &Failure) -> HttpResponse {
    let code = match failure.reason.as_str() {
        "NotFound" => StatusCode::NOT_FOUND,
        "Forbidden" => StatusCode::FORBIDDEN,
        _ => StatusCode::CONFLICT,
    };
    let mut body = status(&failure.reason, &failure.message);
    body["code"] = json!(code.as_u16());
    reply(code, &body)
}

fn status(reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": 404 })
}

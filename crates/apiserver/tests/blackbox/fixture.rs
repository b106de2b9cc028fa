//! A server on a fresh store, and a client that speaks JSON to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::body::{Body, full};
use apiserver::chain::RemoteAddress;
use apiserver::{ApiServer, ApiServerConfig, Identity};
use base::{SeededRng, SystemClock};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::{RealDisk, Store};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Fixture {
    pub server: ApiServer,
    pub store: Arc<Store>,
    directory: PathBuf,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.stop();
        self.store.close();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// One answer.
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {:?}", self.bytes))
    }

    /// The value, if the code is `code`.
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.bytes));
        self.value()
    }

    pub fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(ApiServerConfig::default()).await
    }

    pub async fn with(config: ApiServerConfig) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("holdfast-apiserver-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let clock = Arc::new(SystemClock::new());
        let disk = Arc::new(RealDisk::new(&directory).unwrap());
        let settings = store::Config { segment_bytes: 1 << 20, reserve_bytes: 0, ..store::Config::default() };
        let store = Arc::new(Store::open(settings, disk, clock.clone(), Arc::new(store::NoPeers)).unwrap());
        let server = ApiServer::new(config, store.clone(), clock, Box::new(SeededRng::new(7)));
        server.start().await.unwrap();
        Self { server, store, directory }
    }

    /// Another server on the same store, as of another machine. Stop it at the end.
    pub async fn another(&self) -> ApiServer {
        let clock = Arc::new(SystemClock::new());
        let rng = Box::new(SeededRng::new(8));
        let server = ApiServer::new(ApiServerConfig::default(), self.store.clone(), clock, rng);
        server.start().await.unwrap();
        server
    }

    /// A request with all its parts.
    pub async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let response =
            tokio::time::timeout(PATIENCE, self.open(method, target, headers, body)).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the body's end").unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    /// A request whose body is read by the caller.
    pub async fn open(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(full(body)).unwrap();
        request.extensions_mut().insert(admin());
        request.extensions_mut().insert(RemoteAddress(([192, 0, 2, 7], 4000).into()));
        self.server.handle(request).await
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], "").await
    }

    pub async fn post(&self, target: &str, object: &Value) -> Answer {
        self.send("POST", target, &[("content-type", "application/json")], object.to_string()).await
    }

    pub async fn put(&self, target: &str, object: &Value) -> Answer {
        self.send("PUT", target, &[("content-type", "application/json")], object.to_string()).await
    }

    pub async fn delete(&self, target: &str, options: Option<Value>) -> Answer {
        let body = options.map(|o| o.to_string()).unwrap_or_default();
        self.send("DELETE", target, &[("content-type", "application/json")], body).await
    }

    pub async fn patch(&self, target: &str, kind: &str, patch: &Value) -> Answer {
        self.send("PATCH", target, &[("content-type", kind)], patch.to_string()).await
    }

    pub async fn watch(&self, target: &str) -> Events {
        let response = self.open("GET", target, &[], "").await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), pending: Vec::new() }
    }
}

pub fn admin() -> Identity {
    Identity { user: "admin".to_owned(), groups: vec!["system:masters".to_owned()], ..Identity::default() }
}

/// A watch in JSON.
pub struct Events {
    body: Body,
    pending: Vec<u8>,
}

impl Events {
    /// The next event, or `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event")?;
            self.pending.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// Type, name and the value of label or data `v` of the next event.
    pub async fn line(&mut self) -> String {
        let Some(event) = self.next().await else { return "end".to_owned() };
        let object = &event["object"];
        let name = object["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name} {}", event["type"].as_str().unwrap(), object["data"]["v"].as_str().unwrap_or("-"))
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn config_map(name: &str, v: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"v": v}},
        "data": {"v": v}
    })
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}
    })
}

pub fn version(object: &Value) -> i64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

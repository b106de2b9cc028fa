//! The few answers of an API server that netd asks for: lists and watches of objects that the test puts in.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// See the module's text.
#[derive(Clone)]
pub(crate) struct CannedApi {
    /// By path of the collection, then name.
    objects: Arc<Mutex<BTreeMap<String, BTreeMap<String, Value>>>>,
    revision: Arc<Mutex<u64>>,
    changes: broadcast::Sender<(String, Value)>,
}

impl CannedApi {
    pub(crate) fn new() -> Self {
        Self { objects: Arc::default(), revision: Arc::default(), changes: broadcast::channel(1024).0 }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        client::in_process(tower::service_fn(move |request: Request<Body>| {
            let response = api.respond(&request);
            async move { Ok::<_, Infallible>(response) }
        }))
    }

    /// Creates or replaces an object of the collection at `path`; `None` deletes it.
    pub(crate) fn put(&self, path: &str, name: &str, object: Option<Value>) {
        let mut revision = self.revision.lock().unwrap();
        *revision += 1;
        let mut objects = self.objects.lock().unwrap();
        let collection = objects.entry(path.to_owned()).or_default();
        let old = collection.get(name).cloned();
        let event = match object {
            Some(mut object) => {
                object["metadata"]["name"] = json!(name);
                object["metadata"]["resourceVersion"] = json!(revision.to_string());
                collection.insert(name.to_owned(), object.clone());
                json!({"type": if old.is_some() { "MODIFIED" } else { "ADDED" }, "object": object})
            }
            None => json!({"type": "DELETED", "object": collection.remove(name)}),
        };
        // Nobody may be watching yet.
        drop(self.changes.send((path.to_owned(), event)));
    }

    fn respond(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let path = request.uri().path().to_owned();
        if request.uri().query().unwrap_or_default().contains("watch=true") {
            let changes = self.changes.subscribe();
            let lines = futures::stream::unfold(changes, move |mut changes| {
                let path = path.clone();
                async move {
                    loop {
                        let (of, event) = changes.recv().await.ok()?;
                        if of == path {
                            let line = Bytes::from(format!("{event}\n"));
                            return Some((Ok(http_body::Frame::data(line)), changes));
                        }
                    }
                }
            });
            return Response::new(StreamBody::new(lines.boxed()).boxed_unsync());
        }
        let items: Vec<Value> =
            self.objects.lock().unwrap().get(&path).map(|of| of.values().cloned().collect()).unwrap_or_default();
        let list = json!({"metadata": {"resourceVersion": self.revision.lock().unwrap().to_string()}, "items": items});
        Response::new(Full::from(list.to_string()).boxed_unsync())
    }
}

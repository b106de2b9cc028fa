//! Test support: a small cluster in memory, as a [`Reader`].

use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::chain::{Attributes, Identity};
use crate::reader::Reader;
use tokio::sync::watch;

/// Objects by (group, resource).
#[derive(Default)]
pub(crate) struct Objects {
    stored: Mutex<Vec<(String, String, Arc<Value>)>>,
    revision: watch::Sender<i64>,
}

impl Objects {
    pub(crate) fn put(&self, group: &str, resource: &str, object: Value) {
        let key = |value: &Value| (value["metadata"]["namespace"].clone(), value["metadata"]["name"].clone());
        let mut stored = self.stored.lock().unwrap();
        stored.retain(|(g, r, known)| !(g == group && r == resource && key(known) == key(&object)));
        stored.push((group.to_owned(), resource.to_owned(), Arc::new(object)));
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub(crate) fn remove(&self, group: &str, resource: &str, name: &str) {
        let mut stored = self.stored.lock().unwrap();
        stored.retain(|(g, r, known)| !(g == group && r == resource && known["metadata"]["name"] == name));
        self.revision.send_modify(|revision| *revision += 1);
    }
}

impl Reader for Objects {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.list(group, resource, namespace).into_iter().find(|object| object["metadata"]["name"] == name)
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let stored = self.stored.lock().unwrap();
        let matching = stored.iter().filter(|(g, r, object)| {
            g == group && r == resource && (namespace.is_empty() || object["metadata"]["namespace"] == namespace)
        });
        matching.map(|(_, _, object)| Arc::clone(object)).collect()
    }

    fn revision(&self, _group: &str, _resource: &str) -> i64 {
        *self.revision.borrow()
    }

    fn changed(&self, _group: &str, _resource: &str, revision: i64) -> BoxFuture<'static, ()> {
        let mut seen = self.revision.subscribe();
        async move {
            // The objects outlive whoever waits for a change of them.
            seen.wait_for(|now| *now > revision).await.unwrap();
        }
        .boxed()
    }
}

pub(crate) fn user(name: &str, groups: &[&str]) -> Identity {
    Identity {
        user: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Identity::default()
    }
}

/// `get GROUP/RESOURCE[/SUBRESOURCE] NAMESPACE/NAME`, with `core` for the core group and `-` for none; or `get /path`.
pub(crate) fn request(identity: Identity, text: &str) -> Attributes {
    let dash = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    let words: Vec<&str> = text.split(' ').collect();
    let (verb, what) = (words[0].to_owned(), words[1]);
    if what.starts_with('/') {
        return Attributes { identity, verb, path: what.to_owned(), ..Attributes::default() };
    }
    let parts: Vec<&str> = what.split('/').collect();
    let (namespace, name) = words[2].split_once('/').unwrap();
    Attributes {
        identity,
        verb,
        is_resource: true,
        group: if parts[0] == "core" { String::new() } else { parts[0].to_owned() },
        version: "v1".to_owned(),
        resource: parts[1].to_owned(),
        subresource: parts.get(2).unwrap_or(&"").to_string(),
        namespace: dash(namespace),
        name: dash(name),
        field_selector: words.get(3).unwrap_or(&"").to_string(),
        ..Attributes::default()
    }
}

pub(crate) fn pod(namespace: &str, name: &str, node: &str, spec: Value) -> Value {
    let mut pod =
        json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}")}, "spec": spec});
    pod["spec"]["nodeName"] = node.into();
    pod
}

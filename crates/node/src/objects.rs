//! ConfigMaps and Secrets that pods of this node refer to: read one by one, watched one by one while someone needs them.
//!
//! Input: namespace and name. Output: the object now ([`Objects::fetch`]), or a [`Subscription`] whose value follows the
//! object. Invariant: one watch an object however many pods refer to it, none once nobody does; the API is only asked
//! for single objects by name, which is all that the Node authorizer permits.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What kinds can be watched here.
pub trait Watched:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// What is known of a watched object.
#[derive(Debug, Clone)]
pub enum Known<K> {
    /// The API has not answered yet; with why it last failed to.
    Pending(Option<String>),
    Absent,
    Present(Arc<K>),
}

/// Keeps the watch alive while it lives.
pub struct Subscription<K> {
    entry: Arc<Entry<K>>,
}

struct Entry<K> {
    value: watch::Receiver<Known<K>>,
    listeners: Arc<Mutex<Vec<Weak<Notify>>>>,
    task: tokio::task::AbortHandle,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K: Clone> Subscription<K> {
    pub fn value(&self) -> Known<K> {
        self.entry.value.borrow().clone()
    }

    /// Waits for the API's first answer, for a bounded time.
    pub async fn settled(&self, within: Duration) {
        let mut value = self.entry.value.clone();
        let settled = value.wait_for(|known| !matches!(known, Known::Pending(_)));
        if tokio::time::timeout(within, settled).await.is_err() {
            tracing::debug!("an object is still unknown");
        }
    }
}

type Key = (&'static str, String, String);

/// Shared by all pods of the node.
pub struct Objects {
    client: Client,
    /// Weak: an entry lives as long as its subscriptions. Dead ones are swept at each new entry.
    entries: Mutex<HashMap<Key, Weak<dyn Any + Send + Sync>>>,
}

impl Objects {
    pub fn new(client: Client) -> Self {
        Self { client, entries: Mutex::new(HashMap::new()) }
    }

    /// The object as the API has it now; `None` if there is none. The error is for users.
    pub async fn fetch<K: Watched>(&self, namespace: &str, name: &str) -> Result<Option<K>, String> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let mut delay = RETRY_MIN;
        loop {
            match api.get_opt(name).await {
                // The authorizer may learn of the pod's binding a moment after us.
                Err(kube::Error::Api(status)) if status.code == 403 && delay < Duration::from_secs(1) => {
                    tokio::time::sleep(delay).await;
                    delay *= 2;
                }
                Err(error) => return Err(error.to_string()),
                Ok(object) => return Ok(object),
            }
        }
    }

    /// Follows the object; `listener` is notified at every change.
    pub fn subscribe<K: Watched>(&self, namespace: &str, name: &str, listener: &Arc<Notify>) -> Subscription<K> {
        let key = (std::any::type_name::<K>(), namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.get(&key).and_then(Weak::upgrade).and_then(|entry| entry.downcast::<Entry<K>>().ok());
        let entry = known.unwrap_or_else(|| {
            let entry = Arc::new(self.spawn_watch::<K>(namespace, name));
            entries.retain(|_, entry| entry.strong_count() > 0);
            let weak: Weak<dyn Any + Send + Sync> = Arc::downgrade(&(entry.clone() as Arc<dyn Any + Send + Sync>));
            entries.insert(key, weak);
            entry
        });
        let mut listeners = entry.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|known| known.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
        drop(listeners);
        Subscription { entry }
    }

    fn spawn_watch<K: Watched>(&self, namespace: &str, name: &str) -> Entry<K> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let (sender, value) = watch::channel(Known::Pending(None));
        let listeners = Arc::new(Mutex::new(Vec::<Weak<Notify>>::new()));
        let task = tokio::spawn(run_watch(api, name.to_owned(), sender, listeners.clone())).abort_handle();
        Entry { value, listeners, task }
    }
}

async fn run_watch<K: Watched>(
    api: Api<K>,
    name: String,
    sender: watch::Sender<Known<K>>,
    listeners: Arc<Mutex<Vec<Weak<Notify>>>>,
) {
    let mut stream = std::pin::pin!(kube::runtime::watcher::watch_object(api, &name));
    let mut delay = RETRY_MIN;
    while let Some(next) = stream.next().await {
        match next {
            Ok(object) => {
                delay = RETRY_MIN;
                sender.send_replace(object.map_or(Known::Absent, |object| Known::Present(Arc::new(object))));
            }
            Err(error) => {
                tracing::debug!(%error, %name, "watch failed");
                // A known value stays: the API being away does not take files from pods.
                sender.send_if_modified(|known| match known {
                    Known::Pending(why) => {
                        *why = Some(error.to_string());
                        true
                    }
                    _ => false,
                });
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
        for listener in listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(listener) = listener.upgrade() {
                listener.notify_one();
            }
        }
    }
}

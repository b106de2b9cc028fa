//! A cache of one kind that keeps itself up to date: list and watch -> [`Cache`], handlers and change streams.
//!
//! Invariant: handlers see every change in the order in which the cache took it in, and see each object that was
//! there before them as applied. A change stream that falls behind says so ([`Observed::Lagged`]) instead of growing.
//! Errors of the API are retried for ever with kube-runtime's back-off (0.8 s..30 s). Does not filter changes.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use reconcile::{Cache, Change, Key, Object};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use crate::readable::Readable;

/// Changes that a stream may lag behind before it is told [`Observed::Lagged`].
const CHANGES_MAX: usize = 4096;

/// See the module's text. Dropping the last reference ends the watch.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
    synced: watch::Receiver<bool>,
    task: AbortHandle,
}

struct Shared<K> {
    cache: Arc<Cache<K>>,
    /// Held while a change is taken in and handed out, so that a new handler misses and repeats nothing.
    handlers: Mutex<Handlers<K>>,
    changes: broadcast::Sender<Change<K>>,
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Handlers<K> {
    on_change: Vec<Handler<K>>,
    on_progress: Vec<Box<dyn Fn() + Send + Sync>>,
}

impl<K: Object> Informer<K> {
    /// Starts to watch all objects that `config` selects. `metadata.managedFields` is dropped from every object to save
    /// memory; a write that lacks it leaves it as it is.
    pub fn spawn(client: Client, config: watcher::Config) -> Arc<Self> {
        Self::spawn_with(client, config, |object| object.metadata_mut().managed_fields = None)
    }

    /// Starts to watch; `transform` may cut every object down before it is kept.
    pub fn spawn_with(client: Client, config: watcher::Config, transform: fn(&mut K)) -> Arc<Self> {
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        let handlers = Mutex::new(Handlers { on_change: Vec::new(), on_progress: Vec::new() });
        let shared = Arc::new(Shared { cache: Arc::new(Cache::default()), handlers, changes });
        let (mark_synced, synced) = watch::channel(false);
        let task =
            tokio::spawn(run_watch(Api::all(client), config, transform, shared.clone(), mark_synced)).abort_handle();
        Arc::new(Self { shared, synced, task })
    }

    /// Waits until the first complete list is in the cache.
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        if synced.wait_for(|done| *done).await.is_err() {
            // The watch task ended before its first list: the informer is being dropped, nobody will ever be synced.
            std::future::pending::<()>().await;
        }
    }

    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.cache.get(namespace, name)
    }

    pub fn get_key(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.cache.get_key(key)
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.cache.list()
    }

    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.cache.list_in(namespace)
    }

    pub fn cache(&self) -> &Arc<Cache<K>> {
        &self.shared.cache
    }

    /// Calls `handler` for every object in the cache now, then for every change. It runs inside the watch: it must be
    /// quick and must not block.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.lock();
        for object in self.list() {
            handler(&Change::Applied { old: None, new: object });
        }
        handlers.on_change.push(Box::new(handler));
    }

    /// Calls `handler` after the cache took in anything: an event's change, or a complete list that changed nothing.
    pub fn on_progress(&self, handler: impl Fn() + Send + Sync + 'static) {
        self.shared.lock().on_progress.push(Box::new(handler));
    }

    /// The changes from now on. Objects that are in the cache already are not repeated: read the cache after taking
    /// the stream.
    pub fn changes(&self) -> Changes<K> {
        Changes { receiver: self.shared.changes.subscribe() }
    }
}

impl<K> Drop for Informer<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").field("synced", &*self.synced.borrow()).finish_non_exhaustive()
    }
}

/// A stream of changes, see [`Informer::changes`].
#[derive(Debug)]
pub struct Changes<K> {
    receiver: broadcast::Receiver<Change<K>>,
}

/// One item of a change stream.
#[derive(Debug)]
pub enum Observed<K> {
    Changed(Change<K>),
    /// Changes were missed: read the whole cache again.
    Lagged,
}

impl<K> Changes<K> {
    /// The next change; none once the informer is gone.
    pub async fn next(&mut self) -> Option<Observed<K>> {
        match self.receiver.recv().await {
            Ok(change) => Some(Observed::Changed(change)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Observed::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl<K: Object> Shared<K> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Handlers<K>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change into the cache and hands it out, as one step.
    fn take_in(&self, step: impl FnOnce(&Cache<K>) -> Vec<Change<K>>) {
        let handlers = self.lock();
        for change in step(&self.cache) {
            for handler in &handlers.on_change {
                handler(&change);
            }
            // Nobody listening is fine.
            self.changes.send(change).ok();
        }
        for handler in &handlers.on_progress {
            handler();
        }
    }
}

async fn run_watch<K: Object>(
    api: Api<Readable<K>>,
    config: watcher::Config,
    transform: fn(&mut K),
    shared: Arc<Shared<K>>,
    mark_synced: watch::Sender<bool>,
) {
    let mut events = pin!(kube::runtime::watcher(api, config).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(Readable(mut object))) => {
                transform(&mut object);
                listed.push(object);
            }
            Ok(Event::InitDone) => {
                let objects = std::mem::take(&mut listed);
                shared.take_in(|cache| cache.replace(objects));
                mark_synced.send_replace(true);
            }
            Ok(Event::Apply(Readable(mut object))) => {
                transform(&mut object);
                shared.take_in(|cache| vec![cache.apply(object)]);
            }
            Ok(Event::Delete(Readable(mut object))) => {
                transform(&mut object);
                shared.take_in(|cache| vec![cache.delete(object)]);
            }
            Err(error) => tracing::debug!(kind = K::KIND, %error, "watch interrupted, starting again"),
        }
    }
}

//! Feeds every resource cache from one watch of the store, in revision order.
//!
//! ```text
//! store::Kv --range--> first snapshots --watch--> batches -> per-resource changes -> ResourceCache::apply -> applied revision
//! ```
//!
//! Input: the store's changes under `/registry/`. Output: filled caches and the applied revision that writers wait for.
//! Invariants: when `applied` is at R, every cache holds exactly the state after R or later; an answered write has been
//! applied. If the watch falls behind the store's history, all caches are read anew and their watchers end.
//! Not here: what an object means.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use store::{Event, EventKind, KeyValue, Kv, KvError, RangeRequest, Watch, WatchRequest};
use tokio::sync::{Notify, oneshot};

use super::{Change, Entry, JsonCopies, ResourceCache};
use crate::stored::{self, Source};

/// Keys of one read while the caches are filled.
const PAGE: usize = 2_000;
/// All keys of the cluster begin with it; beside them there is upstream's `compact_rev_key`.
pub const ROOT: &[u8] = b"/registry/";

/// A revision that has not come by then may be of a key that the watch does not see, such as the compaction's: it is asked
/// how far it is.
const ASK_AFTER: Duration = Duration::from_millis(50);

/// A resource as the feed sees it.
#[derive(Clone)]
struct Fed {
    source: Arc<Source>,
    cache: Arc<ResourceCache>,
}

/// States that a batch has made so far, not yet in the cache; `None`: deleted.
type Pending = HashMap<Bytes, Option<Arc<Entry>>>;

/// See the module.
pub struct Feed {
    kv: Arc<dyn Kv>,
    /// By storage prefix; no prefix starts another.
    resources: ArcSwap<BTreeMap<Bytes, Fed>>,
    applied: AtomicI64,
    waiters: Mutex<BTreeMap<i64, Vec<oneshot::Sender<()>>>>,
    /// Serializes filling and feeding.
    order: tokio::sync::Mutex<()>,
    json_copies: Arc<JsonCopies>,
    asks: Asks,
    /// Somebody waits for a revision that the watch has not told of by itself.
    behind: Notify,
}

/// Questions for the newest revision: those that come while one is under way share the next.
#[derive(Default)]
struct Asks {
    asked: AtomicU64,
    answered: tokio::sync::Mutex<Answered>,
}

/// What the last answer covers.
#[derive(Default, Clone, Copy)]
struct Answered {
    asks: u64,
    revision: i64,
}

/// The caches could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("read the store into the caches")]
    Read(#[source] KvError),
    #[error("watch the store")]
    Watch(#[source] KvError),
    #[error("the store or the caches did not answer in time")]
    Behind,
}

impl Feed {
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self {
            kv,
            resources: ArcSwap::default(),
            applied: AtomicI64::new(0),
            waiters: Mutex::new(BTreeMap::new()),
            order: tokio::sync::Mutex::new(()),
            json_copies: Arc::default(),
            asks: Asks::default(),
            behind: Notify::new(),
        }
    }

    /// The cache of a source; the same one for kinds that share their storage. Only before [`Self::fill`].
    pub fn add(&self, source: Source) -> Arc<ResourceCache> {
        let mut resources = BTreeMap::clone(&self.resources.load());
        let fed = resources.entry(source.prefix.clone()).or_insert_with(|| Fed {
            cache: Arc::new(ResourceCache::new(source.prefix.clone(), self.json_copies.clone())),
            source: Arc::new(source),
        });
        let cache = fed.cache.clone();
        self.resources.store(Arc::new(resources));
        cache
    }

    /// The revision up to which all caches are complete.
    pub fn applied(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Returns once everything up to `revision` is in the caches.
    pub async fn wait_applied(&self, revision: i64, patience: Duration) -> Result<(), FeedError> {
        if self.applied() >= revision {
            return Ok(());
        }
        let (sender, mut receiver) = oneshot::channel();
        self.lock_waiters().entry(revision).or_default().push(sender);
        if self.applied() >= revision {
            self.wake(self.applied());
        }
        let waited = match tokio::time::timeout(ASK_AFTER.min(patience), &mut receiver).await {
            Ok(told) => Ok(told),
            Err(_) => {
                self.behind.notify_one();
                tokio::time::timeout(patience.saturating_sub(ASK_AFTER), receiver).await
            }
        };
        match waited {
            Ok(Ok(())) => Ok(()),
            _ if self.applied() >= revision => Ok(()),
            _ => Err(FeedError::Behind),
        }
    }

    /// Returns once the caches hold everything that any server had answered when this was called: what makes a read from the
    /// caches linearizable.
    pub async fn catch_up(&self, patience: Duration) -> Result<(), FeedError> {
        let caught_up = async {
            let revision = self.ask_revision().await.map_err(FeedError::Read)?;
            self.wait_applied(revision, patience).await
        };
        tokio::time::timeout(patience, caught_up).await.unwrap_or(Err(FeedError::Behind))
    }

    async fn ask_revision(&self) -> Result<i64, KvError> {
        let number = self.asks.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answered = self.asks.answered.lock().await;
        if answered.asks < number {
            // Whoever has asked by now asked before the question goes out.
            let asks = self.asks.asked.load(Ordering::Acquire);
            let key = Bytes::from_static(ROOT);
            let found = self.kv.range(RangeRequest { key, count_only: true, ..RangeRequest::default() }).await?;
            *answered = Answered { asks, revision: found.revision };
        }
        Ok(answered.revision)
    }

    /// Reads all resources as of one revision and opens the watch that continues from there.
    pub async fn fill(&self) -> Result<Watch, FeedError> {
        let _order = self.order.lock().await;
        let mut filled: HashMap<Bytes, imbl::OrdMap<Bytes, Arc<Entry>>> = HashMap::new();
        let resources = self.resources.load_full();
        let mut from = Bytes::from_static(ROOT);
        let mut revision = 0;
        loop {
            let page = self
                .kv
                .range(RangeRequest {
                    key: from.clone(),
                    end: store::prefix_end(ROOT),
                    revision,
                    limit: PAGE,
                    ..RangeRequest::default()
                })
                .await
                .map_err(FeedError::Read)?;
            if revision == 0 {
                revision = page.revision;
            }
            for kv in &page.kvs {
                if let Some((prefix, entry)) = parse(&resources, kv) {
                    filled.entry(prefix).or_default().insert(entry.key.clone(), entry);
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => from = store::key_after(&last.key),
                _ => break,
            }
        }
        for (prefix, fed) in resources.iter() {
            fed.cache.reset(filled.remove(prefix).unwrap_or_default(), revision);
        }
        let request = WatchRequest {
            key: Bytes::from_static(ROOT),
            end: store::prefix_end(ROOT),
            start_revision: revision + 1,
            prev_kv: false,
        };
        let watch = self.kv.watch(request).await.map_err(FeedError::Watch)?;
        self.set_applied(revision);
        Ok(watch)
    }

    /// Applies batches until the store stops. Run it as a task; there must be one only.
    pub async fn run(self: Arc<Self>, mut watch: Watch) {
        loop {
            let error = loop {
                let next = tokio::select! {
                    next = watch.next_batch() => next,
                    () = self.behind.notified() => {
                        watch.request_progress();
                        continue;
                    }
                };
                match next {
                    Ok(batch) => {
                        self.apply(batch.events);
                        self.set_applied(batch.revision);
                    }
                    Err(error) => break error,
                }
            };
            if matches!(error, KvError::Stopped { .. }) {
                tracing::info!(%error, "the store has stopped; the caches end");
                return;
            }
            tracing::warn!(%error, "the watch of the store broke; reading all resources anew");
            watch = loop {
                match self.fill().await {
                    Ok(watch) => break watch,
                    Err(FeedError::Read(KvError::Stopped { .. }) | FeedError::Watch(KvError::Stopped { .. })) => return,
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the store; trying again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            };
        }
    }

    /// Splits events by resource, keeping their order.
    fn apply(&self, events: Vec<Event>) {
        let resources = self.resources.load();
        let mut per_resource: Vec<(Fed, Vec<Change>, Pending)> = Vec::new();
        for event in events {
            let Some(fed) = find(&resources, &event.kv.key) else { continue };
            let at = match per_resource.iter().position(|(f, _, _)| Arc::ptr_eq(&f.cache, &fed.cache)) {
                Some(at) => at,
                None => {
                    per_resource.push((fed.clone(), Vec::new(), HashMap::new()));
                    per_resource.len() - 1
                }
            };
            let (_, changes, pending) = &mut per_resource[at];
            let previous = match pending.get(&event.kv.key) {
                Some(entry) => entry.clone(),
                None => fed.cache.get(&event.kv.key),
            };
            let entry = match event.kind {
                EventKind::Put => match stored::parse_entry(&fed.source, &event.kv) {
                    Ok(entry) => Some(Arc::new(entry)),
                    Err(error) => {
                        tracing::error!(%error, "an object in the store cannot be read; it is treated as absent");
                        None
                    }
                },
                EventKind::Delete => None,
            };
            if entry.is_none() && previous.is_none() {
                continue;
            }
            pending.insert(event.kv.key.clone(), entry.clone());
            changes.push(Change::new(event.kv.mod_revision, entry, previous));
        }
        for (fed, changes, _) in per_resource {
            fed.cache.apply(changes);
        }
    }

    fn set_applied(&self, revision: i64) {
        self.applied.fetch_max(revision, Ordering::AcqRel);
        self.wake(revision);
    }

    fn wake(&self, revision: i64) {
        let mut waiters = self.lock_waiters();
        let later = waiters.split_off(&(revision + 1));
        let due = std::mem::replace(&mut *waiters, later);
        drop(waiters);
        for sender in due.into_values().flatten() {
            // A waiter that has given up needs no answer.
            sender.send(()).ok();
        }
    }

    fn lock_waiters(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Vec<oneshot::Sender<()>>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trims every resource's history to what happened after `revision`.
    pub fn forget_until(&self, revision: i64) {
        for fed in self.resources.load().values() {
            fed.cache.forget_until(revision);
        }
    }
}

fn find<'a>(resources: &'a BTreeMap<Bytes, Fed>, key: &Bytes) -> Option<&'a Fed> {
    let (prefix, fed) = resources.range(..=key.clone()).next_back()?;
    key.starts_with(prefix).then_some(fed)
}

fn parse(resources: &BTreeMap<Bytes, Fed>, kv: &Arc<KeyValue>) -> Option<(Bytes, Arc<Entry>)> {
    let fed = find(resources, &kv.key)?;
    match stored::parse_entry(&fed.source, kv) {
        Ok(entry) => Some((fed.source.prefix.clone(), Arc::new(entry))),
        Err(error) => {
            tracing::error!(%error, "an object in the store cannot be read; it is treated as absent");
            None
        }
    }
}

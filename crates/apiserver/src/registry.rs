//! The generic registry: every kind's resources, their caches, and the one way to write them.
//!
//! ```text
//! api::kinds -> Resource (source, cache, strategy) ; Registry::put / remove -> store::Kv -> cache -> answered
//! ```
//!
//! Invariants: [I6] nothing here is about a particular kind, except as data; a write is answered only once the caches hold it.
//! Not here: what a write means (`rest`), HTTP.

pub mod convert;
pub mod lease;
pub mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::kinds::{self, Kind};
use api::schema::MessageRef;
use arc_swap::ArcSwap;
use base::{Clock, Rng};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use jiff::Timestamp;
use semantics::Strategy;
use serde_json::Value;
use store::Kv;

use crate::cache::feed::Feed;
use crate::cache::{Entry, ResourceCache};
use crate::chain::Transformer;
use crate::reader::Reader;
use crate::stored::{self, Source};
use convert::Conversion;
use lease::Leases;

/// One served resource in one version.
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub api_version: String,
    pub kind_name: String,
    pub list_kind: String,
    pub namespaced: bool,
    /// Tells the resources apart that share a cache.
    pub number: u32,
    /// The row of the kind table; `None` for custom resources.
    pub kind: Option<&'static Kind>,
    /// `None`: JSON only.
    pub message: Option<MessageRef>,
    pub strategy: &'static dyn Strategy,
    pub source: Arc<Source>,
    pub cache: Arc<ResourceCache>,
    /// Present when the stored version differs from the served one.
    pub conversion: Option<&'static Conversion>,
}

impl Resource {
    pub fn has_verb(&self, verb: &str) -> bool {
        self.kind.is_none_or(|kind| kind.has_verb(verb))
    }
}

/// (group, version, plural).
type ResourceKey = (String, String, String);

/// See the module.
pub struct Registry {
    pub kv: Arc<dyn Kv>,
    pub feed: Arc<Feed>,
    pub clock: Arc<dyn Clock>,
    rng: Mutex<Box<dyn Rng>>,
    resources: ArcSwap<HashMap<ResourceKey, Arc<Resource>>>,
    leases: Leases,
}

impl Registry {
    /// Registers all kinds of the table. `transformer` protects Secrets.
    pub fn new(
        kv: Arc<dyn Kv>,
        clock: Arc<dyn Clock>,
        rng: Box<dyn Rng>,
        transformer: Option<Arc<dyn Transformer>>,
    ) -> Self {
        let feed = Arc::new(Feed::new(kv.clone()));
        let mut resources = HashMap::new();
        for (at, kind) in kinds::all().iter().enumerate() {
            if let Some(resource) = build_resource(kind, at, &feed, transformer.as_ref()) {
                let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
                resources.insert(key, Arc::new(resource));
            }
        }
        let leases = Leases::new(kv.clone(), clock.clone());
        Self { kv, feed, clock, rng: Mutex::new(rng), resources: ArcSwap::from_pointee(resources), leases }
    }

    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.resources.load().get(&key).cloned()
    }

    /// All resources that are served from the same cache as `resource`, itself among them.
    pub fn sharing_cache_with(&self, resource: &Resource) -> Vec<Arc<Resource>> {
        let all = self.resources.load();
        all.values().filter(|other| Arc::ptr_eq(&other.cache, &resource.cache)).cloned().collect()
    }

    /// The resource of a group and plural in the version in which it is stored.
    pub fn stored_resource(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        let resources = self.resources.load();
        let mut found = resources.values().filter(|r| r.group == group && r.plural == plural);
        let first = found.next()?;
        if first.conversion.is_none() {
            return Some(first.clone());
        }
        Some(found.find(|r| r.conversion.is_none()).unwrap_or(first).clone())
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A fresh uid and five fresh letters.
    pub fn draw_ids(&self) -> (String, String) {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        (base::id::uid(rng.as_mut()), base::id::name_suffix(rng.as_mut(), 5))
    }

    pub fn draw(&self, bound: u64) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).below(bound)
    }
}

fn build_resource(
    kind: &'static Kind,
    at: usize,
    feed: &Feed,
    transformer: Option<&Arc<dyn Transformer>>,
) -> Option<Resource> {
    let prefix = Bytes::from(format!("/registry/{}/", kind.storage_prefix?));
    let sealed = kind.group.is_empty() && kind.plural == "secrets";
    let (group, version) = kinds::split_api_version(kind.storage_api_version);
    let stored_kind = kinds::by_kind(group, version, kind.kind).unwrap_or(kind);
    let source = || Source {
        prefix: prefix.clone(),
        namespaced: kind.namespaced,
        transformer: transformer.filter(|_| sealed).cloned(),
        message: Some(stored_kind.message),
        api_version: stored_kind.api_version.to_owned(),
        kind: stored_kind.kind.to_owned(),
    };
    let cache = feed.add(source());
    Some(Resource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        plural: kind.plural.to_owned(),
        api_version: kind.api_version.to_owned(),
        kind_name: kind.kind.to_owned(),
        list_kind: kind.list_kind.clone().unwrap_or_default(),
        namespaced: kind.namespaced,
        number: u32::try_from(at).unwrap_or(u32::MAX),
        kind: Some(kind),
        message: Some(kind.message),
        strategy: semantics::strategy(kind),
        source: Arc::new(source()),
        cache,
        conversion: convert::conversion(kind),
    })
}

fn decoded(resource: &Resource, entry: &Entry) -> Option<Arc<Value>> {
    match stored::decode_entry(entry, &resource.source) {
        Ok(value) => Some(Arc::new(value)),
        Err(error) => {
            tracing::error!(%error, "an object in the cache cannot be decoded; it is treated as absent");
            None
        }
    }
}

impl Reader for Registry {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let resource = self.stored_resource(group, resource)?;
        let entry = resource.cache.get(&resource.source.key(namespace, name))?;
        decoded(&resource, &entry)
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let Some(resource) = self.stored_resource(group, resource) else { return Vec::new() };
        let prefix = resource.source.namespace_prefix(namespace);
        resource.cache.snapshot().range(&prefix, None).filter_map(|entry| decoded(&resource, entry)).collect()
    }

    fn revision(&self, group: &str, resource: &str) -> i64 {
        self.stored_resource(group, resource).map_or(0, |resource| resource.cache.snapshot().revision)
    }

    fn changed(&self, group: &str, resource: &str, revision: i64) -> BoxFuture<'static, ()> {
        let Some(resource) = self.stored_resource(group, resource) else { return pending().boxed() };
        async move {
            let snapshot = resource.cache.snapshot();
            if snapshot.revision <= revision {
                resource.cache.watch_after(&snapshot).wait().await;
            }
        }
        .boxed()
    }
}

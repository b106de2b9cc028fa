//! Reading one's own writes: what a key's last plan wrote -> whether the caches have seen all of it.
//!
//! A planner that reads a cache older than its own last writes would do them twice. Upstream counts creations and
//! deletions; we note each write's resource version, and a cache that has come that far has seen the write.
//!
//! Invariant: a key with open expectations is not planned, until they are met or [`TIMEOUT`] passes. Does not hold the
//! caches.

use std::time::Duration;

use crate::cache::{Progress, View};
use crate::object::{Key, ResourceId};

/// After so long a cache is taken to have missed a write (a list started before it, say) and planning goes on.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// What one key's last plan wrote.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    open: Vec<Expectation>,
    /// Monotonic time of the newest write.
    since: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expectation {
    /// The cache must reach this revision, or take two more complete lists (the first may have begun too early).
    Revision { resource: ResourceId, revision: u64, relists: u64 },
    /// The object with this UID must be gone, or be seen as being deleted.
    Gone { resource: ResourceId, key: Key, uid: String },
}

impl Expectations {
    /// Notes a write that returned the object at `revision`. Kinds that the view lacks are of no concern.
    pub fn wrote(&mut self, view: &View, resource: &ResourceId, revision: u64, now: Duration) {
        let Some(cache) = view.any(&resource.group, &resource.plural) else { return };
        let Progress { relists, .. } = cache.progress();
        self.open.push(Expectation::Revision { resource: resource.clone(), revision, relists });
        self.since = now;
    }

    /// Notes a delete whose answer named no revision.
    pub fn deleted(&mut self, view: &View, resource: &ResourceId, key: &Key, uid: &str, now: Duration) {
        if view.any(&resource.group, &resource.plural).is_some() {
            self.open.push(Expectation::Gone { resource: resource.clone(), key: key.clone(), uid: uid.to_owned() });
            self.since = now;
        }
    }

    /// When the wait ends by itself.
    pub fn deadline(&self) -> Duration {
        self.since + TIMEOUT
    }

    /// Whether the caches have seen everything written; drops what they have.
    pub fn are_met(&mut self, view: &View, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= TIMEOUT {
            self.open.clear();
        }
        self.open.retain(|expectation| !is_met(expectation, view));
        self.open.is_empty()
    }
}

fn is_met(expectation: &Expectation, view: &View) -> bool {
    match expectation {
        Expectation::Revision { resource, revision, relists } => {
            view.any(&resource.group, &resource.plural).is_none_or(|cache| {
                let progress = cache.progress();
                progress.revision >= *revision || progress.relists >= relists + 2
            })
        }
        Expectation::Gone { resource, key, uid } => {
            view.any(&resource.group, &resource.plural).is_none_or(|cache| !cache.is_alive(key, uid))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::cache::Cache;

    fn config_map(version: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            name: Some("a".to_owned()),
            uid: Some("u".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    fn setup() -> (Arc<Cache<ConfigMap>>, View, ResourceId, Expectations) {
        let cache = Arc::new(Cache::default());
        let mut view = View::default();
        view.add(cache.clone());
        (cache, view, ResourceId::of::<ConfigMap>(), Expectations::default())
    }

    #[test]
    fn a_write_is_met_once_the_cache_reaches_its_revision() {
        let (cache, view, resource, mut expected) = setup();
        expected.wrote(&view, &resource, 7, Duration::ZERO);
        cache.apply(config_map("6"));
        assert!(!expected.are_met(&view, Duration::ZERO));
        cache.apply(config_map("7"));
        assert!(expected.are_met(&view, Duration::ZERO));
    }

    #[test]
    fn a_delete_is_met_once_the_object_is_gone() {
        let (cache, view, resource, mut expected) = setup();
        cache.apply(config_map("6"));
        expected.deleted(&view, &resource, &Key::cluster("a"), "u", Duration::ZERO);
        assert!(!expected.are_met(&view, Duration::ZERO));
        cache.delete(config_map("8"));
        assert!(expected.are_met(&view, Duration::ZERO));
    }

    #[test]
    fn two_lists_or_the_timeout_end_the_wait() {
        let (cache, view, resource, mut expected) = setup();
        expected.wrote(&view, &resource, 100, Duration::ZERO);
        cache.replace(vec![]);
        assert!(!expected.are_met(&view, Duration::ZERO));
        cache.replace(vec![]);
        assert!(expected.are_met(&view, Duration::ZERO));
        expected.wrote(&view, &resource, 100, Duration::ZERO);
        assert!(expected.are_met(&view, TIMEOUT));
    }
}

//! A read-only view of what the cluster holds, for admission, authorization, token issuing and bootstrap.
//!
//! Input: group, plural resource, namespace and name. Output: decoded objects.
//! Invariant: never older than any write that has been answered; never blocks on the store.
//! Not here: authorization (callers are the server's own parts), writes.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

/// See the module. `group` is empty for the core group; `namespace` is empty for cluster-wide kinds.
pub trait Reader: Send + Sync {
    /// The object with `apiVersion`, `kind` and `metadata.resourceVersion`, in the storage version of its kind.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// All objects of a kind in a namespace (all namespaces for an empty one), ordered by namespace and name.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>>;

    /// Grows with every write to the resource: what depends on all its objects (an authorizer's tables) may be kept until
    /// this changes. 0 for an unknown resource.
    fn revision(&self, group: &str, resource: &str) -> i64;

    /// Resolves once [`Reader::revision`] is greater than `revision`; never for an unknown resource.
    fn changed(&self, group: &str, resource: &str, revision: i64) -> BoxFuture<'static, ()>;
}

//! Writing one object, with others in the same transaction where they must change together: compare-and-set on their
//! revisions, answered when the caches hold the result.
//!
//! Input: a resource, a key, the revision that the write is based on, the new value. Output: the new entry, or that
//! somebody else was faster. Invariants: nothing is written when the stored bytes would not change; the value that is stored
//! carries no resource version.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use store::{Compare, Delete, KvError, Op, Put, Relation, Target, Txn};

use super::{Registry, Resource};
use crate::cache::Entry;
use crate::error::ApiError;
use crate::stored::Encoded;

/// How long a write waits for the caches after the store has answered; far beyond what a healthy process needs.
const APPLY_PATIENCE: Duration = Duration::from_secs(30);

/// What became of a write.
#[derive(Debug, Clone)]
pub enum Committed {
    /// Written (or equal to what was there).
    Done(Arc<Entry>),
    /// The object is not as it was when the write was prepared. The caches hold the newer state now.
    Outdated,
}

/// One write.
pub struct PutRequest<'a> {
    pub resource: &'a Resource,
    pub key: Bytes,
    /// The entry that `value` was made from; `None` to create.
    pub base: Option<&'a Arc<Entry>>,
    /// In the served version.
    pub value: Value,
    pub ttl: Option<Duration>,
    /// Written only if nothing of the resource is newer than this revision, else it counts as outdated: for what depends on
    /// all of its objects.
    pub newest: Option<i64>,
    /// Written with it or, if one of them is no longer as its base says, neither.
    pub beside: Vec<Beside>,
    pub dry_run: bool,
}

/// A new value of another object, written together with a [`PutRequest`]'s.
pub struct Beside {
    pub resource: Arc<Resource>,
    pub base: Arc<Entry>,
    pub value: Value,
}

impl Registry {
    /// Writes an object if it is still as `base` says, and so are those beside it.
    pub async fn put(&self, request: PutRequest<'_>) -> Result<Committed, ApiError> {
        let PutRequest { resource, key, base, value, ttl, newest, beside, dry_run } = request;
        let encoded = encode(resource, &key, value)?;
        if let Some(base) = base
            && base.form == encoded.form
            && base.object == encoded.object
        {
            return Ok(Committed::Done(base.clone()));
        }
        if dry_run {
            return Ok(match (resource.cache.get(&key), base) {
                (Some(current), Some(base)) if current.revision != base.revision => Committed::Outdated,
                (Some(_), None) => Committed::Outdated,
                (_, base) => {
                    let revision = base.map_or(0, |base| base.revision);
                    Committed::Done(Arc::new(resource.source.entry(key, encoded, revision)))
                }
            });
        }
        let expected = base.map_or(0, |base| base.revision);
        let lease = self.leases.lease(ttl).await.map_err(|error| kv_error(&error))?;
        let put = Put { key: key.clone(), value: encoded.stored.clone(), lease, ..Put::default() };
        let mut compares = vec![Compare::mod_revision_is(key.clone(), expected)];
        compares.extend(newest.map(|newest| nothing_newer(&resource.source.prefix, newest)));
        let mut success = vec![Op::Put(put)];
        for Beside { resource, base, value } in beside {
            let value = encode(&resource, &base.key, value)?.stored;
            compares.push(Compare::mod_revision_is(base.key.clone(), base.revision));
            success.push(Op::Put(Put { key: base.key.clone(), value, ..Put::default() }));
        }
        let txn = Txn { compares, success, failure: Vec::new() };
        let response = match self.kv.txn(txn).await {
            Ok(response) => response,
            Err(error) => {
                if matches!(error, KvError::LeaseNotFound { .. }) {
                    self.leases.forget().await;
                }
                return Err(kv_error(&error));
            }
        };
        self.applied(response.revision).await?;
        if !response.succeeded {
            return Ok(Committed::Outdated);
        }
        let cached = resource.cache.get(&key).filter(|entry| entry.revision == response.revision);
        let entry = cached.unwrap_or_else(|| Arc::new(resource.source.entry(key, encoded, response.revision)));
        Ok(Committed::Done(entry))
    }

    /// Deletes an object if it is still as `base` says. On success the entry is the last state with the revision of the
    /// deletion.
    pub async fn remove(&self, resource: &Resource, base: &Arc<Entry>, dry_run: bool) -> Result<Committed, ApiError> {
        if dry_run {
            return Ok(Committed::Done(base.clone()));
        }
        let delete = Delete { key: base.key.clone(), end: None, prev_kv: false };
        let txn = Txn {
            compares: vec![Compare::mod_revision_is(base.key.clone(), base.revision)],
            success: vec![Op::Delete(delete)],
            failure: Vec::new(),
        };
        let response = self.kv.txn(txn).await.map_err(|error| kv_error(&error))?;
        self.applied(response.revision).await?;
        if !response.succeeded {
            return Ok(Committed::Outdated);
        }
        let encoded = Encoded { stored: Bytes::new(), object: base.object.clone(), form: base.form };
        Ok(Committed::Done(Arc::new(resource.source.entry(base.key.clone(), encoded, response.revision))))
    }

    async fn applied(&self, revision: i64) -> Result<(), ApiError> {
        self.feed.wait_applied(revision, APPLY_PATIENCE).await.map_err(ApiError::internal)
    }
}

/// Holds while no key below `prefix` has changed after `newest`.
fn nothing_newer(prefix: &Bytes, newest: i64) -> Compare {
    Compare {
        key: prefix.clone(),
        end: store::prefix_end(prefix),
        relation: Relation::Less,
        target: Target::ModRevision(newest + 1),
    }
}

fn encode(resource: &Resource, key: &Bytes, mut value: Value) -> Result<Encoded, ApiError> {
    if let Some(conversion) = resource.conversion {
        (conversion.to_storage)(&mut value);
    }
    if let Some(Value::Object(meta)) = value.get_mut("metadata") {
        meta.remove("resourceVersion");
    }
    resource.source.encode(key, &value).map_err(ApiError::internal)
}

/// What a client hears of the store's troubles.
pub fn kv_error(error: &KvError) -> ApiError {
    match error {
        KvError::Compacted { .. } => ApiError::expired("The resourceVersion for the provided list is too old."),
        KvError::TooLarge { .. } => {
            ApiError::new(413, "RequestEntityTooLarge", "Request entity too large: etcdserver: request is too large")
        }
        KvError::Stopped { .. } | KvError::Unavailable { .. } => {
            tracing::error!(%error, "the store does not answer");
            let mut failed = ApiError::service_unavailable(error.to_string());
            failed.details = Some(serde_json::json!({"retryAfterSeconds": 1}));
            failed
        }
        other => ApiError::internal(other),
    }
}

//! ResourceQuota: the last step of admission. What a write uses of its namespace's quotas is charged in the same transaction.
//!
//! Input: an admitted write. Output: the quotas as they are to be written beside it and a guard to hold until then, or 403 in
//! upstream's words.
//! Invariants: object and charge are written both or not at all, and only if every quota is still as it was read: no two
//! writes pass one limit together, whichever servers take them, and a write that fails charges nothing. A dry run charges
//! nothing. Writes of one namespace that has quotas take turns, so that they do not outdate each other.
//! Not here: what counts and how much (`semantics::quota`), giving back what goes (a controller).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use semantics::apply::Writer;
use semantics::quota::charge::{Charge, Write, charge, parse_quotas};
use semantics::quota::{Item, Source};
use semantics::{Subresource, apply};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::admission::refuse;
use crate::cache::Entry;
use crate::chain::AdmissionRequest;
use crate::error::ApiError;
use crate::registry::write::Beside;
use crate::registry::{Registry, Resource};
use crate::stored::decode_entry;

/// Namespaces share this many turns.
const TURNS: usize = 64;

/// The server as the owner of `status.used`.
const MANAGER: &str = "kube-apiserver";

/// Held from the check to the end of the write.
#[derive(Default)]
pub struct Charged {
    /// The quotas to write in the same transaction.
    pub quotas: Vec<Beside>,
    _turn: Option<OwnedMutexGuard<()>>,
}

/// See the module.
pub struct Quotas {
    turns: Vec<Arc<Mutex<()>>>,
    hasher: RandomState,
}

/// A quota of the namespace.
struct Known {
    entry: Arc<Entry>,
    value: Value,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { turns: (0..TURNS).map(|_| Arc::default()).collect(), hasher: RandomState::new() }
    }
}

impl Quotas {
    /// What the write costs. Errors: 403 if a quota forbids it.
    pub async fn charge(&self, registry: &Registry, request: &AdmissionRequest) -> Result<Charged, ApiError> {
        let Some(resource) = registry.resource("", "v1", "resourcequotas") else { return Ok(Charged::default()) };
        if request.namespace.is_empty() || !has_quota(&resource, &request.namespace) {
            return Ok(Charged::default());
        }
        let Some(write) = parse(request)?.filter(Write::is_charged) else { return Ok(Charged::default()) };
        let turn = self.turn(&request.namespace).lock_owned().await;
        let known = read(&resource, &request.namespace)?;
        let quotas = parse_quotas(known.iter().map(|quota| &quota.value)).map_err(ApiError::internal)?;
        let charges = charge(&quotas, &write, registry.now()).map_err(|why| refuse(request, &why))?;
        if request.dry_run || charges.is_empty() {
            return Ok(Charged::default());
        }
        let quotas = charges.into_iter().filter_map(|charge| charged(registry, &resource, &known, charge)).collect();
        Ok(Charged { quotas, _turn: Some(turn) })
    }

    fn turn(&self, namespace: &str) -> Arc<Mutex<()>> {
        // The remainder is below the number of turns, which fits.
        let at = self.hasher.hash_one(namespace) as usize % TURNS;
        self.turns[at].clone()
    }
}

fn has_quota(resource: &Resource, namespace: &str) -> bool {
    let prefix = resource.source.namespace_prefix(namespace);
    resource.cache.snapshot().range(&prefix, None).next().is_some()
}

/// The write as quotas see it; `None` for kinds that they ignore.
fn parse(request: &AdmissionRequest) -> Result<Option<Write>, ApiError> {
    let source = Source::of_resource(&request.group, &request.resource);
    let is_namespace = request.group.is_empty() && request.resource == "namespaces";
    let (Some(source), Some(object)) = (source.filter(|_| !is_namespace), &request.object) else { return Ok(None) };
    let item = |object: &Value| Item::parse(&source, object).map_err(ApiError::internal);
    let old = request.old_object.as_ref().map(|old| item(old)).transpose()?;
    Ok(Some(Write { new: item(object)?, old, subresource: request.subresource.to_string() }))
}

/// The namespace's quotas, by name.
fn read(resource: &Resource, namespace: &str) -> Result<Vec<Known>, ApiError> {
    let prefix = resource.source.namespace_prefix(namespace);
    let snapshot = resource.cache.snapshot();
    let known = snapshot.range(&prefix, None).map(|entry| {
        let value = decode_entry(entry, &resource.source).map_err(ApiError::internal)?;
        Ok(Known { entry: entry.clone(), value })
    });
    known.collect()
}

fn charged(registry: &Registry, resource: &Arc<Resource>, known: &[Known], charge: Charge) -> Option<Beside> {
    let Known { entry, value: old } = known.get(charge.index)?;
    let mut value = old.clone();
    value["status"]["used"] = serde_json::to_value(charge.used).ok()?;
    let writer = Writer {
        manager: MANAGER,
        api_version: &resource.api_version,
        subresource: "status",
        now: registry.now(),
        message: resource.message,
        reset: resource.strategy.reset_fields(Subresource::Status),
    };
    apply::track(&writer, &mut value, Some(old));
    Some(Beside { resource: resource.clone(), base: entry.clone(), value })
}

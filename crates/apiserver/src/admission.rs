//! The built-in admission steps, in upstream's order.
//!
//! In: an [`AdmissionRequest`] and a [`Reader`]. Out: a changed object, or upstream's refusal.
//!
//! Invariant: a step is idempotent: running it on its own result changes nothing, since a write that loses a race runs
//! through all of them again.
//!
//! Not here: ResourceQuota, the last of upstream's steps. It charges in the same transaction as the write: see `quotas`.
//!
//! Reading order: [`default_plugins`], then one file a step.

pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod node_taint;
pub mod priority;
pub mod service_account;
pub mod storage_protection;
pub mod tolerations;

use std::sync::Arc;

use serde_json::Value;

use crate::chain::{Admission, AdmissionRequest, Authorizer, Operation};
use crate::error::ApiError;
use crate::rbac::Rbac;
use crate::rbac::escalation::EscalationCheck;

/// Every built-in step, in order.
pub fn default_plugins(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(namespace_lifecycle::NamespaceLifecycle),
        Arc::new(limit_ranger::LimitRanger),
        Arc::new(service_account::ServiceAccount),
        Arc::new(node_restriction::NodeRestriction::new(Arc::clone(&authorizer))),
        Arc::new(node_taint::TaintNodesByCondition),
        Arc::new(priority::Priority),
        Arc::new(tolerations::DefaultTolerationSeconds),
        Arc::new(storage_protection::StorageObjectInUseProtection),
        Arc::new(EscalationCheck::new(rbac, authorizer)),
    ]
}

/// 403 about the object of the request: by its name, else its generateName, else `Unknown`.
pub(crate) fn refuse(request: &AdmissionRequest, why: &str) -> ApiError {
    ApiError::forbidden(&request.group, &request.resource, object_name(request), why)
}

fn object_name(request: &AdmissionRequest) -> &str {
    if !request.name.is_empty() {
        return &request.name;
    }
    let metadata = request.object.as_ref().map(|object| &object["metadata"]);
    let of = |field: &str| metadata.and_then(|metadata| metadata[field].as_str()).filter(|name| !name.is_empty());
    of("name").or_else(|| of("generateName")).unwrap_or("Unknown")
}

/// Whether this is `operation` on the main resource `resource` of the core group.
fn is_core(request: &AdmissionRequest, resource: &str, operation: Operation) -> bool {
    request.group.is_empty()
        && request.resource == resource
        && request.subresource.is_empty()
        && request.operation == operation
}

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

fn is_mirror_pod(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR_ANNOTATION).is_some()
}

/// The list in `object[field]`, made if missing. `None` when something else is there.
fn list_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    let entry = object.as_object_mut()?.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    if entry.is_null() {
        *entry = Value::Array(Vec::new());
    }
    entry.as_array_mut()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;

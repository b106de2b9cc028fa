//! NamespaceLifecycle: content needs a live namespace, and some namespaces live for ever.
//!
//! In: creates of namespaced content, deletes of namespaces. Out: 404 for a namespace that is not there; 403 with the
//! cause `NamespaceTerminating` for one that is going; 403 for deleting a system namespace.
//!
//! Not here: emptying a terminating namespace (the namespace controller's work).

use futures::future::BoxFuture;
use serde_json::json;

use super::refuse;
use crate::chain::{Admission, AdmissionRequest, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// See the module.
pub struct NamespaceLifecycle;

impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move { check(request, reader) })
    }
}

fn check(request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
    let of_namespaces = request.group.is_empty() && request.resource == "namespaces";
    if of_namespaces {
        let deletes = request.operation == Operation::Delete && request.subresource.is_empty();
        return if deletes && IMMORTAL.contains(&request.name.as_str()) {
            Err(refuse(request, "this namespace may not be deleted"))
        } else {
            Ok(())
        };
    }
    // A local access review would tell whether the namespace exists.
    let is_review = request.group == "authorization.k8s.io";
    if request.namespace.is_empty() || request.operation != Operation::Create || is_review {
        return Ok(());
    }
    let name = &request.namespace;
    let namespace =
        reader.get("", "namespaces", "", name).ok_or_else(|| ApiError::not_found("", "namespaces", name))?;
    let terminating =
        namespace["status"]["phase"] == "Terminating" || namespace["metadata"]["deletionTimestamp"].is_string();
    if !terminating {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut error = refuse(request, &why);
    let cause = json!({
        "reason": "NamespaceTerminating",
        "message": format!("namespace {name} is being terminated"),
        "field": "metadata.namespace",
    });
    let details = error.details.get_or_insert_with(|| json!({}));
    details["causes"] = json!([cause]);
    Err(error)
}

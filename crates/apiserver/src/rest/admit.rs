//! Admission and rejections: the steps between a decoded object and its write that do not depend on the verb.

use std::sync::Arc;

use http::StatusCode;
use semantics::strategy::Rejection;
use serde_json::Value;

use super::Call;
use crate::chain::{AdmissionRequest, Operation};
use crate::error::ApiError;

/// A write that passes through admission.
pub struct Admit {
    pub operation: Operation,
    pub name: String,
    pub object: Option<Value>,
    pub old_object: Option<Arc<Value>>,
    /// Kind of the options object, such as `CreateOptions`.
    pub options: Value,
    pub dry_run: bool,
}

impl Call {
    pub fn admission_request(&self, admit: Admit) -> AdmissionRequest {
        AdmissionRequest {
            operation: admit.operation,
            group: self.resource.group.clone().into(),
            version: self.resource.version.clone().into(),
            kind: self.resource.kind_name.clone().into(),
            resource: self.resource.plural.clone().into(),
            subresource: self.info.subresource.clone().into(),
            namespace: if self.resource.plural == "namespaces" && self.resource.group.is_empty() {
                admit.name.clone()
            } else {
                self.namespace().to_owned()
            },
            name: admit.name,
            identity: self.identity.clone(),
            dry_run: admit.dry_run,
            object: admit.object,
            old_object: admit.old_object,
            options: admit.options,
            warnings: Vec::new(),
        }
    }

    /// All mutating steps.
    pub async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        for plugin in &self.core.config.admission {
            plugin.mutate(request, self.registry()).await?;
        }
        self.warnings.add(std::mem::take(&mut request.warnings));
        Ok(())
    }

    /// All validating steps.
    pub async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        for plugin in &self.core.config.admission {
            plugin.validate(request, self.registry()).await?;
        }
        Ok(())
    }

    /// A strategy's refusal as a Status.
    pub fn rejected(&self, name: &str, rejection: Rejection) -> ApiError {
        match rejection {
            Rejection::BadRequest(message) => ApiError::bad_request(message),
            Rejection::Invalid(errors) => {
                // A kind that is stored as another group's is checked as that.
                let stored = self.resource.kind.map(|row| api::kinds::split_api_version(row.storage_api_version).0);
                let (group, kind) = (stored.unwrap_or(&self.resource.group), &self.resource.kind_name);
                let message = semantics::field::invalid_message(group, kind, name, &errors);
                let causes = errors.iter().map(semantics::FieldError::cause).collect();
                let mut error = ApiError::invalid(group, kind, name, causes);
                error.message = message;
                error.code = StatusCode::UNPROCESSABLE_ENTITY.as_u16();
                error
            }
        }
    }
}

/// An options object for admission.
pub fn options(kind: &str, call: &Call, dry_run: bool) -> Value {
    let mut options = serde_json::json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    if dry_run {
        options["dryRun"] = serde_json::json!(["All"]);
    }
    for parameter in ["fieldManager", "fieldValidation"] {
        if let Some(value) = call.query.get(parameter).filter(|v| !v.is_empty()) {
            options[parameter] = Value::from(value);
        }
    }
    options
}

/// How long an object of this resource lives by itself; `None`: for ever.
pub fn time_to_live(call: &Call) -> Option<std::time::Duration> {
    let expires = matches!(call.resource.group.as_str(), "" | "events.k8s.io") && call.resource.plural == "events";
    expires.then_some(call.core.config.event_ttl)
}

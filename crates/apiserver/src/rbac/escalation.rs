//! Nobody grants what he does not hold.
//!
//! In: writes of roles and bindings. Out: nothing, or 403 with the missing rights listed.
//!
//! Rules (upstream's): `system:masters` may write anything; so may who is allowed to `escalate` the role (for roles) or to
//! `bind` it (for bindings); everyone else must hold every right of the role in the scope of the write. Setting an
//! aggregation rule needs all rights there are. A write that only changes finalizers and owners passes, for the
//! garbage collector.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::rule::{describe_missing, find_missing, quote_list};
use super::{GROUP, Rbac, Rule};
use crate::authz::PRIVILEGED_GROUP;
use crate::chain::{Admission, AdmissionRequest, Attributes, Authorizer, Decision, Identity, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

/// The admission step. Holds the whole authorizer for the `escalate` and `bind` verbs.
pub struct EscalationCheck {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
}

impl EscalationCheck {
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { rbac, authorizer }
    }

    async fn check(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let Some(object) = request.object.as_ref().filter(|_| concerns(request)) else { return Ok(()) };
        if request.identity.in_group(PRIVILEGED_GROUP) || only_gc_fields_change(object, request.old_object.as_deref()) {
            return Ok(());
        }
        let refuse = |why: String| ApiError::forbidden(GROUP, &request.resource, &request.name, &why);
        match &*request.resource {
            "roles" | "clusterroles" => {
                if self.is_allowed(request, "escalate", &request.resource, &request.name).await {
                    return Ok(());
                }
                let rules: Vec<Rule> = object["rules"].as_array().into_iter().flatten().map(Rule::parse).collect();
                self.confirm_held(&request.identity, &request.namespace, &rules).map_err(refuse)?;
                let aggregates = has_aggregation(object) || request.old_object.as_deref().is_some_and(has_aggregation);
                if aggregates && self.confirm_held(&request.identity, "", &Rule::everything()).is_err() {
                    return Err(refuse("must have cluster-admin privileges to use the aggregationRule".to_owned()));
                }
                Ok(())
            }
            _ => {
                let role_ref = &object["roleRef"];
                let resource = if role_ref["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
                let name = role_ref["name"].as_str().unwrap_or_default();
                if self.is_allowed(request, "bind", resource, name).await {
                    return Ok(());
                }
                let rules = self
                    .rbac
                    .tables()
                    .resolve(role_ref, &request.namespace)
                    .map_err(|_missing| ApiError::not_found(GROUP, resource.trim_end_matches('s'), name))?;
                self.confirm_held(&request.identity, &request.namespace, &rules).map_err(refuse)
            }
        }
    }

    async fn is_allowed(&self, request: &AdmissionRequest, verb: &str, resource: &str, name: &str) -> bool {
        let attributes = Attributes {
            identity: request.identity.clone(),
            verb: verb.to_owned(),
            is_resource: true,
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: resource.to_owned(),
            namespace: request.namespace.clone(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        self.authorizer.authorize(&attributes).await == Decision::Allow
    }

    fn confirm_held(&self, identity: &Identity, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
        let (held, problems) = self.rbac.rules_for(identity, namespace);
        let missing = find_missing(&held, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut message = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            identity.user,
            quote_list(&identity.groups),
            describe_missing(&missing)
        );
        if !problems.is_empty() {
            message.push_str(&format!("; resolution errors: [{}]", problems.join(", ")));
        }
        Err(message)
    }
}

impl Admission for EscalationCheck {
    fn name(&self) -> &'static str {
        "RBACEscalationCheck"
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest,
        _reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.check(request))
    }
}

fn concerns(request: &AdmissionRequest) -> bool {
    request.group == GROUP
        && matches!(request.operation, Operation::Create | Operation::Update)
        && matches!(&*request.resource, "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings")
}

fn has_aggregation(role: &Value) -> bool {
    role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|selectors| !selectors.is_empty())
}

fn only_gc_fields_change(new: &Value, old: Option<&Value>) -> bool {
    let without_gc = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    old.is_some_and(|old| without_gc(new) == without_gc(old))
}

//! NodeRestriction: what a kubelet writes is about its own node and its own pods.
//!
//! In: writes of `system:node:NAME`. Out: nothing, or 403.
//!
//! Together with [`crate::authz::node`]: that one sees who wants to write what, this one what is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::{MIRROR_ANNOTATION, is_mirror_pod, refuse, text};
use crate::authz::node::node_name;
use crate::authz::references::referenced_kind;
use crate::chain::{Admission, AdmissionRequest, Attributes, Authorizer, Decision, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Labels of the `kubernetes.io` and `k8s.io` name spaces that a kubelet may set on its node.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const KUBELET_LABEL_SPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_LABEL_SPACE: &str = "node-restriction.kubernetes.io";
/// Pod status fields that other components own.
const FOREIGN_STATUS: [(&str, &str); 3] = [
    ("resourceClaimStatuses", "cannot update resource claim statues"),
    ("extendedResourceClaimStatus", "cannot update extended resource claim status"),
    ("nodeAllocatableResourceClaimStatuses", "cannot update node allocatable resource claim statuses"),
];

/// See the module. The authorizer decides on token audiences that no volume of the pod asks for.
pub struct NodeRestriction {
    authorizer: Arc<dyn Authorizer>,
}

impl NodeRestriction {
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer }
    }

    async fn check(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
        let Some(node) = node_name(&request.identity) else { return Ok(()) };
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", request.identity.user);
            return Err(refuse(request, &why));
        }
        match (&*request.group, &*request.resource, &*request.subresource) {
            ("", "pods", "") => check_pod(node, request, reader),
            ("", "pods", "status") => check_pod_status(node, request),
            ("", "pods", "eviction") => check_eviction(node, request, reader),
            ("", "pods", other) => Err(refuse(
                request,
                &format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"),
            )),
            ("", "nodes", _) => check_node(node, request),
            ("", "persistentvolumeclaims", "status") => check_claim_status(node, request),
            ("", "persistentvolumeclaims", _) => Err(refuse(request, "may only update PVC status")),
            ("", "serviceaccounts", "token") if request.operation == Operation::Create => {
                self.check_token(node, request, reader).await
            }
            ("coordination.k8s.io", "leases", _) if request.namespace != LEASE_NAMESPACE => {
                Err(refuse(request, &format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace")))
            }
            ("coordination.k8s.io", "leases", _) if written_name(request) != node => {
                Err(refuse(request, "can only access node lease with the same name as the requesting node"))
            }
            ("storage.k8s.io", "csinodes", _) if written_name(request) != node => {
                Err(refuse(request, "can only access CSINode with the same name as the requesting node"))
            }
            _ => Ok(()),
        }
    }

    async fn check_token(&self, node: &str, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
        let Some(token) = &request.object else { return Ok(()) };
        let bound = &token["spec"]["boundObjectRef"];
        let (name, uid) = (text(&bound["name"]), text(&bound["uid"]));
        if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || name.is_empty() {
            return Err(refuse(request, "node requested token not bound to a pod"));
        }
        if uid.is_empty() {
            return Err(refuse(request, "node requested token with a pod binding without a uid"));
        }
        let pod = find_pod(request, name, reader)?;
        if pod["metadata"]["uid"] != uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(refuse(request, &why));
        }
        if pod["spec"]["nodeName"] != node {
            return Err(refuse(request, "node requested token bound to a pod scheduled on a different node"));
        }
        let audiences = token["spec"]["audiences"].as_array().cloned().unwrap_or_default();
        let audience = match audiences.as_slice() {
            [] => "",
            [one] => text(one),
            _ => return Err(refuse(request, "node may only request 0 or 1 audiences")),
        };
        if pod_asks_for_audience(&pod, audience) || self.may_request_audience(request, audience).await {
            return Ok(());
        }
        let user = &request.identity.user;
        Err(refuse(request, &format!("{user} is not authorized to request tokens for audience {audience:?}")))
    }

    async fn may_request_audience(&self, request: &AdmissionRequest, audience: &str) -> bool {
        let attributes = Attributes {
            identity: request.identity.clone(),
            verb: "request-serviceaccounts-token-audience".to_owned(),
            is_resource: true,
            resource: audience.to_owned(),
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            ..Attributes::default()
        };
        self.authorizer.authorize(&attributes).await == Decision::Allow
    }
}

impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move { self.check(request, reader).await })
    }
}

/// The kubelet's default audience is asked for by an empty projection.
fn pod_asks_for_audience(pod: &Value, audience: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    sources.any(|source| {
        let token = &source["serviceAccountToken"];
        token.is_object() && text(&token["audience"]) == audience
    })
}

fn find_pod(request: &AdmissionRequest, name: &str, reader: &dyn Reader) -> Result<Arc<Value>, ApiError> {
    reader.get("", "pods", &request.namespace, name).ok_or_else(|| ApiError::not_found("", "pods", name))
}

fn written_name(request: &AdmissionRequest) -> &str {
    if !request.name.is_empty() {
        return &request.name;
    }
    request.object.as_ref().map(|object| text(&object["metadata"]["name"])).unwrap_or_default()
}

fn check_pod(node: &str, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
    match request.operation {
        Operation::Create => check_mirror_pod(node, request, reader),
        // Deleting a collection names no pod; the objects themselves come one by one.
        Operation::Delete => {
            let pod = match &request.old_object {
                Some(pod) => Arc::clone(pod),
                None => find_pod(request, &request.name, reader)?,
            };
            if pod["spec"]["nodeName"] == node {
                return Ok(());
            }
            Err(refuse(request, &format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        other => {
            let operation = other.as_str();
            let why =
                format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods");
            Err(refuse(request, &why))
        }
    }
}

fn check_mirror_pod(node: &str, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
    let Some(pod) = &request.object else { return Ok(()) };
    let no = |why: String| Err(refuse(request, &why));
    if !is_mirror_pod(pod) {
        return no(format!(
            "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return no(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    let [owner] = owners.as_slice() else {
        let word = if owners.is_empty() { "an" } else { "a single" };
        return no(format!("node {node:?} can only create pods with {word} owner reference set to itself"));
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return no(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return no(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return no(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let stored = reader.get("", "nodes", "", node).ok_or_else(|| ApiError::not_found("", "nodes", node))?;
    let (expected, got) = (text(&stored["metadata"]["uid"]), text(&owner["uid"]));
    if expected != got {
        return no(format!("node {node} UID mismatch: expected {expected} got {got}"));
    }
    match referenced_kind(pod) {
        Some(kind) => no(format!("node {node:?} can not create pods that reference {kind}")),
        None => Ok(()),
    }
}

fn check_pod_status(node: &str, request: &AdmissionRequest) -> Result<(), ApiError> {
    let no = |why: String| Err(refuse(request, &why));
    let (Operation::Update, Some(new), Some(old)) = (request.operation, &request.object, &request.old_object) else {
        return no(format!("unexpected operation {:?}", request.operation.as_str()));
    };
    if old["spec"]["nodeName"] != node {
        return no(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if !same(&old["metadata"]["labels"], &new["metadata"]["labels"]) {
        return no(format!("node {node:?} cannot update labels through pod status"));
    }
    match FOREIGN_STATUS.iter().find(|(field, _)| !same(&old["status"][*field], &new["status"][*field])) {
        Some((_, why)) => no(format!("node {node:?} {why}")),
        None => Ok(()),
    }
}

fn check_eviction(node: &str, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
    if request.operation != Operation::Create {
        return Err(refuse(request, &format!("unexpected operation {}", request.operation.as_str())));
    }
    let name = written_name(request);
    if name.is_empty() {
        return Err(refuse(request, "could not determine pod from request data"));
    }
    if find_pod(request, name, reader)?["spec"]["nodeName"] == node {
        return Ok(());
    }
    Err(refuse(request, &format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn check_claim_status(node: &str, request: &AdmissionRequest) -> Result<(), ApiError> {
    let (Some(new), Some(old)) = (&request.object, &request.old_object) else { return Ok(()) };
    let comparable = |claim: &Value| {
        let mut claim = claim.clone();
        let kept = |object: &mut Value, fields: &[&str]| {
            for field in fields {
                if let Some(object) = object.as_object_mut() {
                    object.remove(*field);
                }
            }
        };
        kept(&mut claim["metadata"], &["resourceVersion", "managedFields"]);
        kept(&mut claim["status"], &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"]);
        claim
    };
    if comparable(new) == comparable(old) {
        return Ok(());
    }
    let why = format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions");
    Err(refuse(request, &why))
}

fn check_node(node: &str, request: &AdmissionRequest) -> Result<(), ApiError> {
    let no = |why: String| Err(refuse(request, &why));
    let name = written_name(request);
    if name != node {
        return no(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = &request.object else { return Ok(()) };
    match (request.operation, &request.old_object) {
        (Operation::Create, _) => {
            if new["spec"]["configSource"].is_object() {
                return no(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
            }
            let labels = forbidden_labels(&new["metadata"]["labels"], &Value::Null);
            if !labels.is_empty() {
                return no(format!("node {node:?} is not allowed to set the following labels: {labels}"));
            }
        }
        (Operation::Update, Some(old)) => {
            let source = &new["spec"]["configSource"];
            if source.is_object() && *source != old["spec"]["configSource"] {
                return no(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if !same(&new["spec"]["taints"], &old["spec"]["taints"]) {
                return no(format!("node {node:?} is not allowed to modify taints"));
            }
            if !same(&new["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
                return no(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let labels = forbidden_labels(&new["metadata"]["labels"], &old["metadata"]["labels"]);
            if !labels.is_empty() {
                return no(format!("is not allowed to modify labels: {labels}"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Changed labels that a kubelet must not touch, sorted and joined.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let keys =
        |labels: &Value| labels.as_object().map(|map| map.keys().cloned().collect::<BTreeSet<_>>()).unwrap_or_default();
    let changed = keys(new).union(&keys(old)).filter(|key| new.get(*key) != old.get(*key)).cloned().collect::<Vec<_>>();
    let forbidden: Vec<String> = changed.into_iter().filter(|label| is_forbidden_label(label)).collect();
    forbidden.join(", ")
}

fn is_forbidden_label(label: &str) -> bool {
    let space = label.split_once('/').map(|(space, _)| space).unwrap_or_default();
    let within = |of: &str| space == of || space.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    let allowed = KUBELET_LABELS.contains(&label) || KUBELET_LABEL_SPACES.iter().any(|of| within(of));
    within(RESTRICTED_LABEL_SPACE) || ((within("kubernetes.io") || within("k8s.io")) && !allowed)
}

/// Equal, where missing, null and empty are one.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    a == b || (empty(a) && empty(b))
}

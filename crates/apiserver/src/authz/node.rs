//! What a kubelet may do: its own node, and what the pods bound to it need.
//!
//! In: attributes of a user `system:node:NAME` in `system:nodes`. Out: allow, or no opinion with the reason.
//!
//! Invariant: reading a secret, config map, claim or service account needs a pod on that node that refers to it; a mirror
//! pod refers to nothing. What the object of a write says is for the NodeRestriction admission step.
//!
//! Not here: resource slices, pod certificate requests and volume attachments beyond refusing what upstream ties to
//! objects that do not exist here yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde_json::Value;

use super::references::{Referent, is_referenced};
use crate::chain::{Attributes, Authorizer, Decision, Identity};
use crate::rbac::{Rule, defaults};
use crate::reader::Reader;

const USER_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that `identity` speaks for. `Some("")` for a member of `system:nodes` whose name tells no node.
pub fn node_name(identity: &Identity) -> Option<&str> {
    let name = identity.user.strip_prefix(USER_PREFIX)?;
    identity.in_group(NODES_GROUP).then_some(name)
}

/// Witnesses remembered at once; when full, all are forgotten.
const WITNESSES_MAX: usize = 8192;

/// See the module.
pub struct NodeAuthorizer {
    reader: Arc<dyn Reader>,
    /// The pod that gave a node access the last time: asked first, so that a repeated read looks at one pod and not at all
    /// of its namespace. Only ever a hint: the pod is read anew.
    witnesses: Mutex<HashMap<Use, String>>,
    /// Rules of the default ClusterRole `system:node`, for everything that is not tied to pods.
    rules: Vec<Rule>,
}

/// A node's use of an object: node, kind, namespace, name.
type Use = (String, Referent, String, String);

impl NodeAuthorizer {
    /// The error is that the built-in defaults are unreadable.
    pub fn new(reader: Arc<dyn Reader>) -> Result<Self, String> {
        let defaults = defaults::parse_defaults()?;
        let role = defaults.iter().find(|object| object["metadata"]["name"] == "system:node");
        let rules = role.and_then(|role| role["rules"].as_array()).ok_or("no default role system:node")?;
        Ok(Self { reader, witnesses: Mutex::default(), rules: rules.iter().map(Rule::parse).collect() })
    }

    fn decide(&self, attributes: &Attributes) -> Decision {
        let Some(node) = node_name(&attributes.identity) else { return refuse("") };
        if node.is_empty() {
            return refuse(format!("unknown node for user {:?}", attributes.identity.user));
        }
        if attributes.is_resource {
            let subdivided = match (attributes.group.as_str(), attributes.resource.as_str()) {
                ("", "secrets") => Some(self.read_namespaced(node, Referent::Secret, attributes)),
                ("", "configmaps") => Some(self.read_namespaced(node, Referent::ConfigMap, attributes)),
                ("", "persistentvolumeclaims") => Some(self.claim(node, attributes)),
                ("", "persistentvolumes") => {
                    Some(self.get_only(attributes, || self.uses_volume(node, attributes), node))
                }
                ("", "serviceaccounts") => Some(self.service_account(node, attributes)),
                ("", "nodes") => Some(own_node(node, attributes)),
                ("", "pods") => Some(self.pod(node, attributes)),
                ("coordination.k8s.io", "leases") => Some(lease(node, attributes)),
                ("storage.k8s.io", "csinodes") => Some(csi_node(node, attributes)),
                ("storage.k8s.io", "volumeattachments") => Some(self.get_only(attributes, || false, node)),
                ("resource.k8s.io", "resourceclaims") => Some(self.get_only(attributes, || false, node)),
                ("resource.k8s.io", "resourceslices") => Some(resource_slice(node, attributes)),
                ("certificates.k8s.io", "podcertificaterequests") => Some(refuse("")),
                _ => None,
            };
            if let Some(decision) = subdivided {
                return decision;
            }
        }
        if self.rules.iter().any(|rule| rule.allows(attributes)) { Decision::Allow } else { refuse("") }
    }

    fn read_namespaced(&self, node: &str, kind: Referent, attributes: &Attributes) -> Decision {
        if !matches!(attributes.verb.as_str(), "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, attributes, || self.is_used(node, kind, attributes))
    }

    fn claim(&self, node: &str, attributes: &Attributes) -> Decision {
        let used = || self.is_used(node, Referent::Claim, attributes);
        if attributes.subresource != "status" {
            return self.get_only(attributes, used, node);
        }
        if !matches!(attributes.verb.as_str(), "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.related(node, attributes, used)
    }

    fn service_account(&self, node: &str, attributes: &Attributes) -> Decision {
        if attributes.verb == "get" && attributes.subresource.is_empty() {
            return self.read_namespaced(node, Referent::ServiceAccount, attributes);
        }
        if attributes.verb != "create" || attributes.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if attributes.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, attributes, || self.is_used(node, Referent::ServiceAccount, attributes))
    }

    fn pod(&self, node: &str, attributes: &Attributes) -> Decision {
        let runs_here = || {
            let pod = self.reader.get("", "pods", &attributes.namespace, &attributes.name);
            pod.is_some_and(|pod| pod["spec"]["nodeName"] == node)
        };
        match (attributes.subresource.as_str(), attributes.verb.as_str()) {
            ("", "get") => self.get_only(attributes, runs_here, node),
            ("", "list" | "watch") if selects_equal(&attributes.field_selector, "spec.nodeName", node) => {
                Decision::Allow
            }
            ("", "list" | "watch") if !attributes.name.is_empty() => self.related(node, attributes, runs_here),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Decision::Allow,
            _ => refuse(""),
        }
    }

    fn get_only(&self, attributes: &Attributes, related: impl FnOnce() -> bool, node: &str) -> Decision {
        if attributes.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(node, attributes, related)
    }

    fn related(&self, node: &str, attributes: &Attributes, related: impl FnOnce() -> bool) -> Decision {
        if attributes.name.is_empty() {
            return refuse("No Object name found");
        }
        if related() {
            return Decision::Allow;
        }
        refuse(format!("no relationship found between node '{node}' and this object"))
    }

    fn is_used(&self, node: &str, kind: Referent, attributes: &Attributes) -> bool {
        self.has_user(node, kind, &attributes.namespace, &attributes.name)
    }

    fn has_user(&self, node: &str, kind: Referent, namespace: &str, name: &str) -> bool {
        let lock = || self.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
        let key: Use = (node.to_owned(), kind, namespace.to_owned(), name.to_owned());
        let uses = |pod: &Value| pod["spec"]["nodeName"] == node && is_referenced(pod, kind, name);
        let witness = lock().get(&key).cloned();
        if witness.and_then(|pod| self.reader.get("", "pods", namespace, &pod)).is_some_and(|pod| uses(&pod)) {
            return true;
        }
        let found = self.reader.list("", "pods", namespace).into_iter().find(|pod| uses(pod));
        let mut witnesses = lock();
        let Some(pod) = found else {
            witnesses.remove(&key);
            return false;
        };
        if witnesses.len() >= WITNESSES_MAX {
            witnesses.clear();
        }
        witnesses.insert(key, pod["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        true
    }

    /// A volume is used through its claim.
    fn uses_volume(&self, node: &str, attributes: &Attributes) -> bool {
        let Some(volume) = self.reader.get("", "persistentvolumes", "", &attributes.name) else { return false };
        let claim = &volume["spec"]["claimRef"];
        let (Some(namespace), Some(name)) = (claim["namespace"].as_str(), claim["name"].as_str()) else { return false };
        self.has_user(node, Referent::Claim, namespace, name)
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(async move { self.decide(attributes) })
    }
}

fn own_node(node: &str, attributes: &Attributes) -> Decision {
    match (attributes.subresource.as_str(), attributes.verb.as_str()) {
        // Whose node it is, the NodeRestriction admission step sees.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::Allow,
        ("", "get" | "list" | "watch") => match attributes.name.as_str() {
            name if name == node => Decision::Allow,
            "" => refuse(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => refuse(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => refuse(""),
    }
}

fn lease(node: &str, attributes: &Attributes) -> Decision {
    if !matches!(attributes.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != LEASE_NAMESPACE {
        return refuse(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    // On create the name may not be known yet; the NodeRestriction admission step checks it.
    if attributes.verb != "create" && attributes.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Decision::Allow
}

fn csi_node(node: &str, attributes: &Attributes) -> Decision {
    if !attributes.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if !matches!(attributes.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if attributes.verb != "create" && attributes.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Decision::Allow
}

fn resource_slice(node: &str, attributes: &Attributes) -> Decision {
    if !attributes.subresource.is_empty() {
        return refuse("cannot authorize ResourceSlice subresources");
    }
    match attributes.verb.as_str() {
        "create" => Decision::Allow,
        "watch" | "list" | "deletecollection" if selects_equal(&attributes.field_selector, "spec.nodeName", node) => {
            Decision::Allow
        }
        "watch" | "list" | "deletecollection" => {
            refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => refuse(format!("no relationship found between node '{node}' and this object")),
    }
}

/// Whether the selector demands `field=value` among its requirements.
fn selects_equal(selector: &str, field: &str, value: &str) -> bool {
    selector.split(',').any(|term| {
        let Some(rest) = term.strip_prefix(field).and_then(|rest| rest.strip_prefix('=')) else { return false };
        rest.strip_prefix('=').unwrap_or(rest) == value
    })
}

fn refuse(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

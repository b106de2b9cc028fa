//! The few facts in which kinds differ at the REST layer, as one table.
//!
//! Input: group and plural resource. Output: yes or no. Not here: anything about an object's content (see `semantics`).

/// What deleting does with dependents when the client does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPropagation {
    Background,
    Orphan,
    /// Dependents are never looked at.
    Unsupported,
}

/// A PUT to a name that does not exist creates the object.
pub fn creates_on_update(group: &str, resource: &str) -> bool {
    matches!(
        (group, resource),
        ("node.k8s.io", "runtimeclasses")
            | ("rbac.authorization.k8s.io", _)
            | ("coordination.k8s.io", _)
            | ("events.k8s.io", "events")
            | ("", "limitranges" | "events" | "services" | "endpoints")
    )
}

/// An update without a resource version overwrites whatever is there.
pub fn updates_unconditionally(group: &str, resource: &str) -> bool {
    match group {
        "certificates.k8s.io" => resource == "certificatesigningrequests",
        "node.k8s.io"
        | "coordination.k8s.io"
        | "admissionregistration.k8s.io"
        | "storagemigration.k8s.io"
        | "lifecycle.k8s.io"
        | "internal.apiserver.k8s.io" => false,
        "policy" => resource != "poddisruptionbudgets",
        "scheduling.k8s.io" => resource == "priorityclasses",
        "storage.k8s.io" => matches!(resource, "storageclasses" | "volumeattributesclasses"),
        "resource.k8s.io" => resource != "resourcepoolstatusrequests",
        _ => true,
    }
}

/// A completed delete answers with the object instead of a Status.
pub fn returns_deleted_object(group: &str, resource: &str) -> bool {
    match group {
        "" => matches!(
            resource,
            "namespaces"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "services"
                | "serviceaccounts"
        ),
        "resource.k8s.io" | "storage.k8s.io" => resource != "csistoragecapacities",
        _ => false,
    }
}

/// What a client of a deprecated kind is warned of, whatever it does.
pub fn deprecation(group: &str, resource: &str) -> Option<&'static str> {
    match (group, resource) {
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

pub fn default_propagation(group: &str, resource: &str) -> DefaultPropagation {
    match (group, resource) {
        ("" | "events.k8s.io", "events") => DefaultPropagation::Unsupported,
        ("", "replicationcontrollers") | ("batch", "jobs") => DefaultPropagation::Orphan,
        _ => DefaultPropagation::Background,
    }
}

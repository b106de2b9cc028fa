//! The rows. One row is one kind; see [`super::Kind`] for what the words mean. Core first, then groups in the order of
//! upstream's discovery; within a version sorted by resource name.

use super::{Selectable, Subresource};

/// What is written down per kind; everything else is derived.
pub(super) struct Row {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) namespaced: bool,
    pub(super) short_names: &'static [&'static str],
    pub(super) categories: &'static [&'static str],
    pub(super) storage_prefix: Option<&'static str>,
    pub(super) storage_api_version: &'static str,
    pub(super) verbs: &'static [&'static str],
    pub(super) subresources: &'static [Subresource],
    pub(super) returns_deleted: bool,
    pub(super) selectable_fields: &'static [Selectable],
}

const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_DELETE_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const READ: &[&str] = &["get", "list"];
const GET: &[&str] = &["get"];
const UPDATE: &[&str] = &["update"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

const fn own(name: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, api_version: "", kind: "", verbs }
}

const fn other(
    name: &'static str,
    api_version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, api_version, kind, verbs }
}

const STATUS: Subresource = own("status", GET_PATCH_UPDATE);
const SCALE: Subresource = other("scale", "autoscaling/v1", "Scale", GET_PATCH_UPDATE);

const fn at(label: &'static str) -> Selectable {
    Selectable { label, path: label }
}

const fn alias(label: &'static str, path: &'static str) -> Selectable {
    Selectable { label, path }
}

impl Row {
    const fn short(mut self, names: &'static [&'static str]) -> Row {
        self.short_names = names;
        self
    }
    /// `kubectl get all` shows it.
    const fn in_all(mut self) -> Row {
        self.categories = &["all"];
        self
    }
    const fn stored_under(mut self, prefix: &'static str) -> Row {
        self.storage_prefix = Some(prefix);
        self
    }
    const fn stored_as(mut self, api_version: &'static str) -> Row {
        self.storage_api_version = api_version;
        self
    }
    const fn verbs(mut self, verbs: &'static [&'static str]) -> Row {
        self.verbs = verbs;
        self
    }
    const fn with(mut self, subresources: &'static [Subresource]) -> Row {
        self.subresources = subresources;
        self
    }
    const fn select(mut self, fields: &'static [Selectable]) -> Row {
        self.selectable_fields = fields;
        self
    }
    /// See [`super::Kind::returns_deleted`].
    const fn returns_deleted(mut self) -> Row {
        self.returns_deleted = true;
        self
    }
    /// Answered by computation; never stored.
    const fn never_stored(mut self, verbs: &'static [&'static str]) -> Row {
        self.storage_prefix = None;
        self.verbs = verbs;
        self
    }
}

const fn namespaced(api_version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row {
        api_version,
        kind,
        plural,
        namespaced: true,
        short_names: &[],
        categories: &[],
        storage_prefix: Some(plural),
        storage_api_version: api_version,
        verbs: ALL_VERBS,
        subresources: &[],
        returns_deleted: false,
        selectable_fields: &[],
    }
}

const fn cluster(api_version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    let mut row = namespaced(api_version, kind, plural);
    row.namespaced = false;
    row
}

const POD_SUBRESOURCES: &[Subresource] = &[
    other("attach", "v1", "PodAttachOptions", CONNECT),
    other("binding", "v1", "Binding", CREATE),
    own("ephemeralcontainers", GET_PATCH_UPDATE),
    other("eviction", "policy/v1", "Eviction", CREATE),
    other("exec", "v1", "PodExecOptions", CONNECT),
    own("log", GET),
    other("portforward", "v1", "PodPortForwardOptions", CONNECT),
    other("proxy", "v1", "PodProxyOptions", PROXY),
    own("resize", GET_PATCH_UPDATE),
    STATUS,
];

const POD_FIELDS: &[Selectable] = &[
    at("spec.nodeName"),
    alias("spec.host", "spec.nodeName"),
    at("spec.restartPolicy"),
    at("spec.schedulerName"),
    at("spec.serviceAccountName"),
    at("spec.hostNetwork"),
    at("status.phase"),
    at("status.podIP"),
    alias("status.podIPs", "status.podIP"),
    at("status.nominatedNodeName"),
];

/// Of core events; a core event's `reportingComponent` falls back to `source.component` in the strategy.
const CORE_EVENT_FIELDS: &[Selectable] = &[
    at("involvedObject.kind"),
    at("involvedObject.namespace"),
    at("involvedObject.name"),
    at("involvedObject.uid"),
    at("involvedObject.apiVersion"),
    at("involvedObject.resourceVersion"),
    at("involvedObject.fieldPath"),
    at("reason"),
    at("reportingComponent"),
    alias("source", "source.component"),
    at("type"),
];

const EVENT_FIELDS: &[Selectable] = &[
    at("regarding.kind"),
    at("regarding.namespace"),
    at("regarding.name"),
    at("regarding.uid"),
    at("regarding.apiVersion"),
    at("regarding.resourceVersion"),
    at("regarding.fieldPath"),
    at("reason"),
    at("reportingController"),
    at("type"),
];

pub(super) const ROWS: &[Row] = &[
    namespaced("v1", "Binding", "bindings").never_stored(CREATE),
    cluster("v1", "ComponentStatus", "componentstatuses").short(&["cs"]).never_stored(READ),
    namespaced("v1", "ConfigMap", "configmaps").short(&["cm"]),
    namespaced("v1", "Endpoints", "endpoints").short(&["ep"]).stored_under("services/endpoints"),
    namespaced("v1", "Event", "events").short(&["ev"]).select(CORE_EVENT_FIELDS),
    namespaced("v1", "LimitRange", "limitranges").short(&["limits"]),
    cluster("v1", "Namespace", "namespaces")
        .short(&["ns"])
        .verbs(NO_DELETE_COLLECTION)
        .with(&[own("finalize", UPDATE), STATUS])
        .select(&[at("status.phase")]),
    cluster("v1", "Node", "nodes")
        .short(&["no"])
        .stored_under("minions")
        .with(&[other("proxy", "v1", "NodeProxyOptions", PROXY), STATUS])
        .select(&[at("spec.unschedulable")]),
    namespaced("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .returns_deleted()
        .short(&["pvc"])
        .with(&[STATUS]),
    cluster("v1", "PersistentVolume", "persistentvolumes").returns_deleted().short(&["pv"]).with(&[STATUS]),
    namespaced("v1", "Pod", "pods").returns_deleted().short(&["po"]).in_all().with(POD_SUBRESOURCES).select(POD_FIELDS),
    namespaced("v1", "PodTemplate", "podtemplates").returns_deleted(),
    namespaced("v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .in_all()
        .stored_under("controllers")
        .with(&[SCALE, STATUS])
        .select(&[at("status.replicas")]),
    namespaced("v1", "ResourceQuota", "resourcequotas").returns_deleted().short(&["quota"]).with(&[STATUS]),
    namespaced("v1", "Secret", "secrets").select(&[at("type")]),
    namespaced("v1", "ServiceAccount", "serviceaccounts").returns_deleted().short(&["sa"]).with(&[other(
        "token",
        "authentication.k8s.io/v1",
        "TokenRequest",
        CREATE,
    )]),
    namespaced("v1", "Service", "services")
        .returns_deleted()
        .short(&["svc"])
        .in_all()
        .stored_under("services/specs")
        .with(&[other("proxy", "v1", "ServiceProxyOptions", PROXY), STATUS])
        .select(&[at("spec.clusterIP"), at("spec.type")]),
    namespaced("apps/v1", "ControllerRevision", "controllerrevisions"),
    namespaced("apps/v1", "DaemonSet", "daemonsets").short(&["ds"]).in_all().with(&[STATUS]),
    namespaced("apps/v1", "Deployment", "deployments").short(&["deploy"]).in_all().with(&[SCALE, STATUS]),
    namespaced("apps/v1", "ReplicaSet", "replicasets").short(&["rs"]).in_all().with(&[SCALE, STATUS]),
    namespaced("apps/v1", "StatefulSet", "statefulsets").short(&["sts"]).in_all().with(&[SCALE, STATUS]),
    namespaced("events.k8s.io/v1", "Event", "events").short(&["ev"]).stored_as("v1").select(EVENT_FIELDS),
    cluster("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews").never_stored(CREATE),
    cluster("authentication.k8s.io/v1", "TokenReview", "tokenreviews").never_stored(CREATE),
    namespaced("authorization.k8s.io/v1", "LocalSubjectAccessReview", "localsubjectaccessreviews").never_stored(CREATE),
    cluster("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews").never_stored(CREATE),
    cluster("authorization.k8s.io/v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews").never_stored(CREATE),
    cluster("authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews").never_stored(CREATE),
    cluster("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    cluster("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles"),
    namespaced("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    namespaced("rbac.authorization.k8s.io/v1", "Role", "roles"),
    namespaced("coordination.k8s.io/v1", "Lease", "leases"),
    namespaced("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
];

//! Each step on small objects: what it adds, what it refuses and in which words.

use serde_json::json;

use super::*;
use crate::authz::AuthorizerChain;
use crate::authz::objects::{Objects, pod, user};
use crate::chain::Identity;
use crate::reader::Reader;

fn cluster() -> Arc<Objects> {
    let objects = Arc::new(Objects::default());
    objects.put("", "namespaces", json!({"metadata": {"name": "ns"}, "status": {"phase": "Active"}}));
    objects.put("", "namespaces", json!({"metadata": {"name": "going"}, "status": {"phase": "Terminating"}}));
    objects.put(
        "",
        "serviceaccounts",
        json!({"metadata": {"namespace": "ns", "name": "default", "uid": "1"}, "imagePullSecrets": [{"name": "pull"}]}),
    );
    objects.put(
        "",
        "serviceaccounts",
        json!({"metadata": {"namespace": "ns", "name": "quiet"}, "automountServiceAccountToken": false}),
    );
    objects.put("", "nodes", json!({"metadata": {"name": "n1", "uid": "uid-n1"}}));
    let asks = json!({"serviceAccountName": "default", "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]});
    objects.put("", "pods", pod("ns", "here", "n1", asks));
    objects.put("", "pods", pod("ns", "there", "n2", json!({})));
    objects
}

/// `GROUP/RESOURCE[/SUBRESOURCE] NAMESPACE/NAME`, `core` and `-` as in the authorizer's tests.
fn write(operation: Operation, identity: Identity, what: &str, object: Value) -> AdmissionRequest {
    let attributes = crate::authz::objects::request(identity, &format!("write {what}"));
    AdmissionRequest {
        operation,
        group: attributes.group.into(),
        version: "v1".into(),
        kind: "".into(),
        resource: attributes.resource.into(),
        subresource: attributes.subresource.into(),
        namespace: attributes.namespace,
        name: attributes.name,
        identity: attributes.identity,
        dry_run: false,
        object: (!object.is_null()).then_some(object),
        old_object: None,
        options: Value::Null,
        warnings: Vec::new(),
    }
}

async fn run(request: &mut AdmissionRequest) -> Result<(), ApiError> {
    let objects = cluster();
    let rbac = Arc::new(Rbac::new(objects.clone()));
    let authorizer = Arc::new(AuthorizerChain::new(vec![("rbac", rbac.clone() as _)]));
    for plugin in default_plugins(rbac.clone(), authorizer.clone()) {
        plugin.mutate(request, &*objects as &dyn Reader).await?;
    }
    let once = request.object.clone();
    for plugin in default_plugins(rbac.clone(), authorizer.clone()) {
        plugin.mutate(request, &*objects as &dyn Reader).await?;
    }
    assert_eq!(request.object, once, "admission must be idempotent");
    for plugin in default_plugins(rbac, authorizer) {
        plugin.validate(request, &*objects as &dyn Reader).await?;
    }
    Ok(())
}

async fn message(operation: Operation, who: Identity, what: &str, object: Value) -> String {
    match run(&mut write(operation, who, what, object)).await {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.message,
    }
}

fn alice() -> Identity {
    user("alice", &[])
}

fn simple_pod(extra: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in extra.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test]
async fn namespaces_live_and_die() {
    let create = async |what: &str| message(Operation::Create, alice(), what, json!({"metadata": {"name": "x"}})).await;
    assert_eq!(create("core/configmaps ns/x").await, "ok");
    assert_eq!(create("core/configmaps none/x").await, "namespaces \"none\" not found");
    assert_eq!(
        create("apps/deployments going/x").await,
        "deployments.apps \"x\" is forbidden: unable to create new content in namespace going because it is being terminated"
    );
    assert_eq!(create("core/namespaces -/new").await, "ok");
    assert_eq!(create("authorization.k8s.io/localsubjectaccessreviews none/-").await, "ok");
    let delete = async |what: &str| message(Operation::Delete, alice(), what, Value::Null).await;
    assert_eq!(
        delete("core/namespaces -/kube-system").await,
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
    assert_eq!(delete("core/namespaces -/ns").await, "ok");
    assert_eq!(delete("core/pods going/x").await, "ok");
    let mut request = write(Operation::Create, alice(), "core/configmaps going/x", json!({}));
    let error = run(&mut request).await.unwrap_err();
    assert_eq!(
        error.details.unwrap()["causes"],
        json!([{"reason": "NamespaceTerminating", "message": "namespace going is being terminated", "field": "metadata.namespace"}])
    );
}

#[tokio::test]
async fn a_pod_gets_account_token_priority_and_tolerations() {
    let mut spec = simple_pod(json!({"initContainers": [{"name": "i"}]}));
    spec["spec"]["containers"] = json!([{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]);
    let mut request = write(Operation::Create, alice(), "core/pods ns/web", spec);
    run(&mut request).await.unwrap();
    let spec = &request.object.unwrap()["spec"];
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(
        spec["volumes"][0]["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]})
    );
    let mount =
        json!([{"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
    assert_eq!(spec["containers"][0]["volumeMounts"], mount);
    assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    assert_eq!(
        spec["tolerations"],
        json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ])
    );
}

#[tokio::test]
async fn pods_may_opt_out() {
    let check = async |extra: Value, mounted: bool| {
        let mut request = write(Operation::Create, alice(), "core/pods ns/web", simple_pod(extra.clone()));
        run(&mut request).await.unwrap();
        let spec = &request.object.unwrap()["spec"];
        assert_eq!(spec["volumes"].as_array().is_some_and(|list| !list.is_empty()), mounted, "{extra}");
    };
    check(json!({"automountServiceAccountToken": false}), false).await;
    check(json!({"serviceAccountName": "quiet"}), false).await;
    check(json!({"serviceAccountName": "quiet", "automountServiceAccountToken": true}), true).await;
    let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
    let mut request = write(Operation::Create, alice(), "core/pods ns/web", simple_pod(tolerant));
    run(&mut request).await.unwrap();
    assert_eq!(request.object.unwrap()["spec"]["tolerations"], json!([{"operator": "Exists"}]));
}

#[tokio::test]
async fn pods_that_are_refused() {
    let check = async |extra: Value, expect: &str| {
        assert_eq!(message(Operation::Create, alice(), "core/pods ns/web", simple_pod(extra)).await, expect);
    };
    check(
        json!({"serviceAccountName": "none"}),
        "pods \"web\" is forbidden: error looking up service account ns/none: serviceaccount \"none\" not found",
    )
    .await;
    check(json!({"priorityClassName": "none"}), "pods \"web\" is forbidden: no PriorityClass with name none was found")
        .await;
    check(json!({"priorityClassName": "system-node-critical"}), "ok").await;
    check(
        json!({"priority": 7}),
        "pods \"web\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
    )
    .await;
}

fn node() -> Identity {
    user("system:node:n1", &["system:nodes"])
}

#[tokio::test]
async fn a_kubelet_writes_only_its_own() {
    let cases = [
        (Operation::Create, "core/nodes -/n1", json!({"metadata": {"name": "n1"}}), "ok"),
        (
            Operation::Create,
            "core/nodes -/n2",
            json!({"metadata": {"name": "n2"}}),
            "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"",
        ),
        (
            Operation::Create,
            "core/nodes -/n1",
            json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1", "example.com/a": "", "node-role.kubernetes.io/control-plane": "", "x.node-restriction.kubernetes.io/y": ""}}}),
            "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: node-role.kubernetes.io/control-plane, x.node-restriction.kubernetes.io/y",
        ),
        (
            Operation::Create,
            "core/pods ns/web",
            simple_pod(json!({})),
            "pods \"web\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
        ),
        (Operation::Delete, "core/pods ns/here", Value::Null, "ok"),
        (
            Operation::Delete,
            "core/pods ns/there",
            Value::Null,
            "pods \"there\" is forbidden: node \"n1\" can only delete pods with spec.nodeName set to itself",
        ),
        (
            Operation::Create,
            "core/pods/eviction ns/there",
            json!({}),
            "pods \"there\" is forbidden: node n1 can only evict pods with spec.nodeName set to itself",
        ),
        (Operation::Create, "core/configmaps ns/x", json!({}), "ok"),
    ];
    for (operation, what, object, expect) in cases {
        assert_eq!(message(operation, node(), what, object).await, expect, "{what}");
    }
}

#[tokio::test]
async fn a_kubelet_asks_for_its_own_leases_and_tokens() {
    let cases = [
        (
            Operation::Create,
            "coordination.k8s.io/leases ns/n1",
            json!({}),
            "leases.coordination.k8s.io \"n1\" is forbidden: can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (
            Operation::Update,
            "coordination.k8s.io/leases kube-node-lease/n2",
            json!({}),
            "leases.coordination.k8s.io \"n2\" is forbidden: can only access node lease with the same name as the requesting node",
        ),
        (
            Operation::Create,
            "core/serviceaccounts/token ns/default",
            json!({"spec": {}}),
            "serviceaccounts \"default\" is forbidden: node requested token not bound to a pod",
        ),
        (
            Operation::Create,
            "core/serviceaccounts/token ns/default",
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "here", "uid": "uid-here"}}}),
            "ok",
        ),
        (
            Operation::Create,
            "core/serviceaccounts/token ns/default",
            json!({"spec": {"audiences": ["vault"], "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "here", "uid": "uid-here"}}}),
            "serviceaccounts \"default\" is forbidden: system:node:n1 is not authorized to request tokens for audience \"vault\"",
        ),
        (
            Operation::Create,
            "core/serviceaccounts/token ns/default",
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "there", "uid": "uid-there"}}}),
            "serviceaccounts \"default\" is forbidden: node requested token bound to a pod scheduled on a different node",
        ),
    ];
    for (operation, what, object, expect) in cases {
        assert_eq!(message(operation, node(), what, object).await, expect, "{what}");
    }
}

#[tokio::test]
async fn a_kubelet_leaves_its_taints_and_foreign_pods_be() {
    let mut update = write(
        Operation::Update,
        node(),
        "core/nodes -/n1",
        json!({"metadata": {"name": "n1"}, "spec": {"taints": []}}),
    );
    update.old_object =
        Some(Arc::new(json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})));
    let error = run(&mut update).await.unwrap_err();
    assert_eq!(error.message, "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints");
    let mut status = write(Operation::Update, node(), "core/pods/status ns/there", json!({}));
    status.old_object = Some(Arc::new(pod("ns", "there", "n2", json!({}))));
    assert!(
        run(&mut status)
            .await
            .unwrap_err()
            .message
            .contains("can only update pod status for pods with spec.nodeName set to itself")
    );
}

/// Runs LimitRanger alone on a pod with these container resources, in a namespace with one range.
async fn limited(range: Value, resources: Value) -> Result<Value, String> {
    let objects = Objects::default();
    objects.put("", "limitranges", json!({"metadata": {"namespace": "ns", "name": "r"}, "spec": {"limits": [range]}}));
    let pod = simple_pod(json!({"containers": [{"name": "c", "resources": resources}]}));
    let mut request = write(Operation::Create, alice(), "core/pods ns/web", pod);
    let plugin = limit_ranger::LimitRanger;
    plugin.mutate(&mut request, &objects).await.map_err(|error| error.message)?;
    plugin.validate(&request, &objects).await.map_err(|error| error.message)?;
    Ok(request.object.unwrap())
}

#[tokio::test]
async fn limit_ranges_fill_and_refuse() {
    let range = json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m", "memory": "1Mi"},
        "min": {"cpu": "50m"}, "max": {"cpu": "1"}});
    let filled = limited(range.clone(), json!({"limits": {"cpu": "1"}})).await.unwrap();
    assert_eq!(
        filled["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m", "memory": "1Mi"}})
    );
    assert_eq!(
        filled["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c"
    );
    let refused = limited(range, json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "2"}})).await.unwrap_err();
    assert_eq!(
        refused,
        "pods \"web\" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, maximum cpu usage per Container is 1, but limit is 2]"
    );
    let pod = json!({"type": "Pod", "max": {"memory": "1Gi"}});
    let refused = limited(pod, json!({"requests": {"memory": "1Mi"}})).await.unwrap_err();
    assert_eq!(refused, "pods \"web\" is forbidden: maximum memory usage per Pod is 1Gi.  No limit is specified");
    let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
    let refused = limited(ratio, json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}})).await.unwrap_err();
    assert!(
        refused.ends_with("cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_new_node_is_tainted() {
    let mut request = write(Operation::Create, alice(), "core/nodes -/n9", json!({"metadata": {"name": "n9"}}));
    run(&mut request).await.unwrap();
    assert_eq!(
        request.object.unwrap()["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
}

#[tokio::test]
async fn storage_is_protected_from_its_creation() {
    let check = async |operation: Operation, what: &str, finalizers: Value, expect: Value| {
        let object = json!({"metadata": {"name": "v", "finalizers": finalizers}});
        let mut request = write(operation, user("u", &[]), what, object);
        run(&mut request).await.unwrap();
        assert_eq!(request.object.unwrap()["metadata"]["finalizers"], expect, "{what}");
    };
    let (claim, volume) = ("core/persistentvolumeclaims ns/v", "core/persistentvolumes -/v");
    let claims = "kubernetes.io/pvc-protection";
    check(Operation::Create, claim, Value::Null, json!([claims])).await;
    check(Operation::Create, claim, json!(["a.b/c", claims]), json!(["a.b/c", claims])).await;
    check(Operation::Create, volume, json!(["a.b/c"]), json!(["a.b/c", "kubernetes.io/pv-protection"])).await;
    check(Operation::Update, claim, json!([]), json!([])).await;
}

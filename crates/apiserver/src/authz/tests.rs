//! What kubelets may do, how refusals read, what the reviews answer.

use std::sync::Arc;

use serde_json::json;

use super::node::NodeAuthorizer;
use super::objects::{Objects, pod, request, user};
use super::reviews::AccessReviews;
use super::*;
use crate::chain::Review;
use crate::rbac::Rbac;

fn cluster() -> Arc<Objects> {
    let objects = Arc::new(Objects::default());
    let spec = json!({
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"name": "c",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}],
            "envFrom": [{"configMapRef": {"name": "all"}}]}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "mounted"}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": "root-ca"}}]}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
        ],
    });
    objects.put("", "pods", pod("ns", "here", "n1", spec.clone()));
    let mut mirror = pod("ns", "mirror", "n2", spec);
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    objects.put("", "pods", mirror);
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "ns", "name": "disk"}}});
    objects.put("", "persistentvolumes", volume);
    objects
}

fn node(name: &str) -> Identity {
    user(&format!("system:node:{name}"), &["system:nodes", "system:authenticated"])
}

use crate::chain::Identity;

#[tokio::test]
async fn node_authorizer_table() {
    let authorizer = NodeAuthorizer::new(cluster()).unwrap();
    let unrelated = "no relationship found between node 'n1' and this object";
    let cases = [
        ("get core/secrets ns/mounted", "allow"),
        ("get core/secrets ns/pull", "allow"),
        ("watch core/secrets ns/env", "allow"),
        ("get core/secrets ns/other", unrelated),
        ("get core/secrets other/mounted", unrelated),
        ("list core/secrets ns/-", "No Object name found"),
        ("list core/secrets -/-", "can only read namespaced object of this type"),
        ("update core/secrets ns/mounted", "can only read resources of this type"),
        ("get core/configmaps ns/all", "allow"),
        ("get core/configmaps ns/root-ca", "allow"),
        ("get core/configmaps ns/mounted", unrelated),
        ("get core/persistentvolumeclaims ns/disk", "allow"),
        ("get core/persistentvolumeclaims ns/here-scratch", "allow"),
        ("list core/persistentvolumeclaims ns/disk", "can only get individual resources of this type"),
        ("update core/persistentvolumeclaims/status ns/disk", "allow"),
        ("get core/persistentvolumes -/pv", "allow"),
        ("get core/persistentvolumes -/none", unrelated),
        ("create core/serviceaccounts/token ns/robot", "allow"),
        ("create core/serviceaccounts/token ns/default", unrelated),
        ("delete core/serviceaccounts ns/robot", "can only create tokens for individual service accounts"),
        ("get core/nodes -/n1", "allow"),
        ("get core/nodes -/n2", "node 'n1' cannot read 'n2', only its own Node object"),
        ("list core/nodes -/-", "node 'n1' cannot read all nodes, only its own Node object"),
        ("patch core/nodes/status -/n1", "allow"),
        ("delete core/nodes -/n1", ""),
        ("list core/pods -/- spec.nodeName=n1", "allow"),
        ("watch core/pods -/- status.phase!=Failed,spec.nodeName==n1", "allow"),
        ("list core/pods -/- spec.nodeName=n10", "can only list/watch pods with spec.nodeName field selector"),
        ("list core/pods -/-", "can only list/watch pods with spec.nodeName field selector"),
        ("get core/pods ns/here", "allow"),
        ("get core/pods ns/mirror", unrelated),
        ("patch core/pods/status ns/here", "allow"),
        ("create core/pods/exec ns/here", ""),
        ("update coordination.k8s.io/leases kube-node-lease/n1", "allow"),
        (
            "update coordination.k8s.io/leases kube-node-lease/n2",
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "update coordination.k8s.io/leases ns/n1",
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        ("list core/services -/-", "allow"),
        ("create core/events ns/-", "allow"),
        ("list rbac.authorization.k8s.io/roles ns/-", ""),
    ];
    for (text, expect) in cases {
        let got = match authorizer.authorize(&request(node("n1"), text)).await {
            Decision::Allow => "allow".to_owned(),
            Decision::NoOpinion(reason) => reason,
            Decision::Deny(reason) => format!("deny: {reason}"),
        };
        assert_eq!(got, expect, "{text}");
    }
    let mirrored = authorizer.authorize(&request(node("n2"), "get core/secrets ns/mounted")).await;
    assert_ne!(mirrored, Decision::Allow, "a mirror pod must not open secrets");
    let imposter = user("system:node:n1", &["system:authenticated"]);
    assert_ne!(authorizer.authorize(&request(imposter, "get core/nodes -/n1")).await, Decision::Allow);
}

#[tokio::test]
async fn access_ends_with_the_last_pod_that_needs_it() {
    let objects = cluster();
    let authorizer = NodeAuthorizer::new(objects.clone()).unwrap();
    let read = request(node("n1"), "get core/secrets ns/mounted");
    let spec = json!({"volumes": [{"name": "a", "secret": {"secretName": "mounted"}}]});
    objects.put("", "pods", pod("ns", "second", "n1", spec.clone()));
    assert_eq!(authorizer.authorize(&read).await, Decision::Allow);
    objects.remove("", "pods", "here");
    assert_eq!(authorizer.authorize(&read).await, Decision::Allow);
    objects.put("", "pods", pod("ns", "second", "n2", spec));
    assert_ne!(authorizer.authorize(&read).await, Decision::Allow);
}

#[test]
fn forbidden_messages() {
    let check = |text: &str, reason: &str, expect: &str| {
        let error = forbidden(&request(user("x", &[]), text), reason);
        assert_eq!((error.code, error.message.as_str()), (403, expect));
    };
    check(
        "list core/pods default/-",
        "",
        r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#,
    );
    check(
        "get apps/deployments/scale ns/web",
        "because",
        r#"deployments.apps "web" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" in the namespace "ns": because"#,
    );
    check(
        "list core/nodes -/-",
        "",
        r#"nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope"#,
    );
    check("get /metrics", "", r#"forbidden: User "x" cannot get path "/metrics""#);
}

#[tokio::test]
async fn masters_pass_and_an_unfilled_reader_refuses_everyone_else() {
    let reader = Arc::new(LateReader::default());
    let chain = AuthorizerChain::new(vec![
        ("node", Arc::new(NodeAuthorizer::new(reader.clone()).unwrap())),
        ("rbac", Arc::new(Rbac::new(reader.clone()))),
    ]);
    let masters = user("root", &["system:masters"]);
    assert_eq!(chain.authorize(&request(masters, "delete core/nodes -/n1")).await, Decision::Allow);
    let read = request(node("n1"), "get core/secrets ns/mounted");
    assert_ne!(chain.authorize(&read).await, Decision::Allow);
    reader.fill(cluster());
    assert_eq!(chain.authorize(&read).await, Decision::Allow);
}

async fn review(resource: &str, object: serde_json::Value, who: Identity) -> Result<serde_json::Value, ApiError> {
    let objects = cluster();
    for object in crate::rbac::defaults::parse_defaults().unwrap() {
        let kind = object["kind"].as_str().unwrap().to_lowercase() + "s";
        objects.put(crate::rbac::GROUP, &kind, object);
    }
    let rbac = Arc::new(Rbac::new(objects.clone()));
    let node = Arc::new(NodeAuthorizer::new(objects).unwrap());
    let chain = Arc::new(AuthorizerChain::new(vec![("node", node), ("rbac", rbac.clone())]));
    let attributes = Attributes { identity: who, namespace: "ns".to_owned(), ..Attributes::default() };
    AccessReviews::new(chain, rbac).review(resource, object, &attributes).await
}

#[tokio::test]
async fn access_reviews() {
    let secret = json!({"verb": "get", "resource": "secrets", "namespace": "ns", "name": "other"});
    let spec = json!({"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": secret});
    let got = review("subjectaccessreviews", json!({"spec": spec}), user("admin", &[])).await.unwrap();
    assert_eq!(
        got["status"],
        json!({"allowed": false, "reason": "node: no relationship found between node 'n1' and this object"})
    );

    let spec = json!({"nonResourceAttributes": {"path": "/version", "verb": "get"}});
    let got =
        review("selfsubjectaccessreviews", json!({"spec": spec}), user("u", &["system:authenticated"])).await.unwrap();
    assert_eq!(got["status"], json!({"allowed": true}));

    let error = review("subjectaccessreviews", json!({"spec": {}}), user("u", &[])).await.unwrap_err();
    assert_eq!(error.code, 422);
    assert_eq!(
        error.message,
        ".authorization.k8s.io \"\" is invalid: [spec: Invalid value: null: exactly one of \
         nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one \
         of user or group must be specified]"
    );

    let local = json!({"metadata": {"namespace": "ns"}, "spec": {"user": "u",
        "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "other"}}});
    let error = review("localsubjectaccessreviews", local, user("u", &[])).await.unwrap_err();
    assert!(error.message.contains("must match metadata.namespace"), "{}", error.message);
}

#[tokio::test]
async fn selectors_of_reviews() {
    let check = async |selectors: serde_json::Value, expect: serde_json::Value| {
        let mut asked = json!({"verb": "list", "resource": "pods"});
        asked.as_object_mut().unwrap().extend(selectors.as_object().unwrap().clone());
        let spec = json!({"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": asked});
        let got = review("subjectaccessreviews", json!({"spec": spec}), user("admin", &[])).await.unwrap();
        assert_eq!(got["status"], expect, "{selectors}");
    };
    let own = json!({"key": "spec.nodeName", "operator": "In", "values": ["n1"]});
    let newer = json!({"key": "a", "operator": "New"});
    let refused = "node: can only list/watch pods with spec.nodeName field selector";
    check(json!({"fieldSelector": {"requirements": [own.clone()]}}), json!({"allowed": true})).await;
    check(json!({"fieldSelector": {"rawSelector": "spec.nodeName=n1"}}), json!({"allowed": true})).await;
    check(
        json!({"fieldSelector": {"requirements": [newer.clone(), own]}}),
        json!({"allowed": true, "evaluationError": "spec.resourceAttributes.fieldSelector partially ignored due to parse error"}),
    )
    .await;
    check(
        json!({"fieldSelector": {"requirements": [newer]}, "labelSelector": {"rawSelector": "!!"}}),
        json!({"allowed": false, "reason": refused,
            "evaluationError": "spec.resourceAttributes.fieldSelector ignored due to parse error; spec.resourceAttributes.labelSelector ignored due to parse error"}),
    )
    .await;
}

#[tokio::test]
async fn refused_access_reviews() {
    let check = async |resource: &str, metadata: serde_json::Value, attributes: serde_json::Value, expect: &str| {
        let object = json!({"metadata": metadata, "spec": {"user": "u", "resourceAttributes": attributes}});
        let message =
            review(resource, object, user("u", &[])).await.map_or_else(|error| error.message, |_| String::new());
        assert_eq!(message, expect.replace('@', ".authorization.k8s.io \"\" is invalid: spec.resourceAttributes"));
    };
    let (all, local) = ("subjectaccessreviews", "localsubjectaccessreviews");
    check(local, json!({}), json!({"namespace": "ns"}), "").await;
    let mismatch = "the namespace of the provided object does not match the namespace sent on the request";
    check(local, json!({"namespace": "x"}), json!({"namespace": "x"}), mismatch).await;
    check(all, json!({}), json!({"fieldSelector": {"requirements": [{"key": "a", "operator": "New"}]}}), "").await;
    let both = json!({"labelSelector": {"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]}});
    let expect =
        "@.labelSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements";
    check(all, json!({}), both, expect).await;
    let expect = "@.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required";
    check(all, json!({}), json!({"fieldSelector": {}}), expect).await;
    let key = json!({"labelSelector": {"requirements": [{"key": "", "operator": "New", "values": ["b"]}]}});
    let expect = ".authorization.k8s.io \"\" is invalid: [spec.resourceAttributes.labelSelector.requirements[0].key: Invalid value: \"\": name part must be non-empty, spec.resourceAttributes.labelSelector.requirements[0].key: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')]";
    check(all, json!({}), key, expect).await;
    let metadata =
        json!({"labels": {"a": "b"}, "name": "x", "managedFields": [{"manager": "m", "operation": "Update"}]});
    let expect = ".authorization.k8s.io \"\" is invalid: metadata: Invalid value: {\"name\":\"x\",\"labels\":{\"a\":\"b\"},\"managedFields\":[{\"manager\":\"m\",\"operation\":\"Update\"}]}: must be empty";
    check(all, metadata, json!({}), expect).await;
}

#[tokio::test]
async fn rules_review() {
    let object = json!({"spec": {"namespace": "ns"}});
    let got = review("selfsubjectrulesreviews", object, user("u", &["system:authenticated"])).await.unwrap();
    let rules = got["status"]["resourceRules"].as_array().unwrap();
    assert!(rules.contains(
        &json!({"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]})
    ));
    assert_eq!(got["status"]["incomplete"], false);
    let error = review("selfsubjectrulesreviews", json!({"spec": {}}), user("u", &[])).await.unwrap_err();
    assert_eq!(error.message, "no namespace on request");
}

//! Rules, tables, aggregation, escalation and the default roles.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::defaults::{Write, parse_defaults, plan_reconcile};
use super::escalation::EscalationCheck;
use super::rule::{describe_missing, find_missing};
use super::*;
use crate::authz::objects::{Objects, request, user};
use crate::chain::{Admission, AdmissionRequest, Operation};

fn rule(value: Value) -> Rule {
    Rule::parse(&value)
}

#[test]
fn a_rule_allows_exactly_what_it_says() {
    let cases = [
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), "get core/pods ns/a", true),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), "list core/pods ns/-", false),
        (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}), "get core/pods/log ns/a", false),
        (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods/log"]}), "get core/pods/log ns/a", true),
        (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["*/log"]}), "get core/pods/log ns/a", true),
        (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["*/log"]}), "get core/pods ns/a", false),
        (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods/*"]}), "get core/pods/log ns/a", false),
        (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["*"]}), "get core/pods/log ns/a", true),
        (json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]}), "get core/pods ns/a", false),
        (json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), "get /metrics", false),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            "get core/secrets ns/a",
            true,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            "get core/secrets ns/b",
            false,
        ),
        (
            json!({"verbs": ["create"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            "create core/secrets ns/-",
            false,
        ),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}), "get /api/v1", true),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}), "get /api", false),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/version"]}), "get /version/", false),
        (json!({"verbs": ["get"], "nonResourceURLs": ["*"]}), "get /anything", true),
        (json!({"verbs": "get", "apiGroups": [1], "resources": null}), "get core/pods ns/a", false),
    ];
    for (value, text, expect) in cases {
        assert_eq!(rule(value.clone()).allows(&request(user("u", &[]), text)), expect, "{value} {text}");
    }
}

#[test]
fn missing_rights_are_found_and_described() {
    let held = [
        rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]})),
        rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]})),
        rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz*"]})),
    ];
    let check = |wanted: Value, expect: &str| {
        assert_eq!(describe_missing(&find_missing(&held, &[rule(wanted)])), expect);
    };
    check(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}), "");
    check(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/etcd"]}), "");
    check(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}), "");
    check(
        json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}),
        r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
    );
    check(
        json!({"verbs": ["get", "delete", "patch"], "apiGroups": ["", "apps"], "resources": ["pods"]}),
        "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"patch\"]}\n\
         {APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"delete\" \"patch\"]}",
    );
    assert!(find_missing(&Rule::everything(), &held).is_empty());
    assert!(!find_missing(&held, &Rule::everything()).is_empty());
}

fn put_role(objects: &Objects, namespace: Option<&str>, name: &str, rules: Value) {
    let resource = if namespace.is_some() { "roles" } else { "clusterroles" };
    objects.put(GROUP, resource, json!({"metadata": {"name": name, "namespace": namespace}, "rules": rules}));
}

fn bind(objects: &Objects, namespace: Option<&str>, role: (&str, &str), subject: Value) {
    let resource = if namespace.is_some() { "rolebindings" } else { "clusterrolebindings" };
    let name = format!("{}-{subject}", role.1);
    let role = json!({"kind": role.0, "name": role.1});
    objects.put(
        GROUP,
        resource,
        json!({"metadata": {"name": name, "namespace": namespace}, "roleRef": role, "subjects": [subject]}),
    );
}

#[tokio::test]
async fn bindings_decide_where_rules_hold() {
    let objects = Arc::new(Objects::default());
    let read_pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    put_role(&objects, None, "reader", read_pods.clone());
    put_role(&objects, Some("a"), "local", read_pods);
    bind(&objects, None, ("ClusterRole", "reader"), json!({"kind": "Group", "name": "everywhere"}));
    bind(&objects, Some("a"), ("ClusterRole", "reader"), json!({"kind": "User", "name": "alice"}));
    bind(&objects, Some("a"), ("Role", "local"), json!({"kind": "ServiceAccount", "name": "robot"}));
    bind(&objects, Some("a"), ("Role", "local"), json!({"kind": "ServiceAccount", "name": "robot", "namespace": "b"}));
    bind(&objects, Some("c"), ("Role", "gone"), json!({"kind": "User", "name": "alice"}));
    let rbac = Rbac::new(objects.clone());
    let check = async |who: Identity, text: &str, expect: Decision| {
        assert_eq!(rbac.authorize(&request(who, text)).await, expect, "{text}");
    };
    let no = || Decision::NoOpinion(String::new());
    check(user("x", &["everywhere"]), "get core/pods b/p", Decision::Allow).await;
    check(user("x", &["everywhere"]), "get core/pods -/p", Decision::Allow).await;
    check(user("alice", &[]), "get core/pods a/p", Decision::Allow).await;
    check(user("alice", &[]), "get core/pods b/p", no()).await;
    check(user("alice", &[]), "get core/pods -/p", no()).await;
    check(user("everywhere", &["alice"]), "get core/pods a/p", no()).await;
    check(user("system:serviceaccount:a:robot", &[]), "get core/pods a/p", Decision::Allow).await;
    check(user("system:serviceaccount:b:robot", &[]), "get core/pods a/p", Decision::Allow).await;
    check(user("system:serviceaccount:c:robot", &[]), "get core/pods a/p", no()).await;
    let dangling = r#"RBAC: role.rbac.authorization.k8s.io "gone" not found"#;
    check(user("alice", &[]), "get core/pods c/p", Decision::NoOpinion(dangling.to_owned())).await;

    // A write takes effect at once.
    put_role(&objects, Some("c"), "gone", json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
    check(user("alice", &[]), "get core/pods c/p", Decision::Allow).await;
    objects.remove(GROUP, "clusterroles", "reader");
    let dangling = r#"RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found"#;
    check(user("alice", &[]), "get core/pods a/p", Decision::NoOpinion(dangling.to_owned())).await;
}

#[test]
fn aggregation_reaches_through_and_survives_cycles() {
    let role = |name: &str, labels: Value, selects: Value, resource: &str| {
        json!({"metadata": {"name": name, "labels": labels},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": selects}]},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
    };
    let roles = [
        role("a", json!({"to-c": "true"}), json!({"to-a": "true"}), "pods"),
        role("b", json!({"to-a": "true"}), json!({"to-b": "true"}), "secrets"),
        role("c", json!({"to-b": "true"}), json!({"to-c": "true"}), "nodes"),
    ];
    let by_name: BTreeMap<String, &Value> =
        roles.iter().map(|role| (role["metadata"]["name"].as_str().unwrap().to_owned(), role)).collect();
    for name in ["a", "b", "c"] {
        let mut resources: Vec<String> =
            tables::gather(name, &by_name).iter().flat_map(|rule| rule.resources.clone()).collect();
        resources.sort();
        assert_eq!(resources, ["nodes", "pods", "secrets"], "{name}");
    }
}

fn defaults_cluster() -> Arc<Objects> {
    let objects = Arc::new(Objects::default());
    for write in plan_reconcile(&*objects).unwrap() {
        let Write::Create(object) = write else { panic!("an empty cluster only needs creates") };
        store(&objects, object);
    }
    objects
}

fn store(objects: &Objects, object: Value) {
    let resource = object["kind"].as_str().unwrap().to_lowercase() + "s";
    objects.put(GROUP, &resource, object);
}

#[tokio::test]
async fn default_roles_let_components_work_and_no_more() {
    let rbac = Rbac::new(defaults_cluster());
    let controller = |name: &str| user(&format!("system:serviceaccount:kube-system:{name}"), &[]);
    let cases = [
        (user("u", &["system:authenticated"]), "create authorization.k8s.io/selfsubjectaccessreviews -/-", true),
        (user("u", &["system:authenticated"]), "get /openapi/v3", true),
        (user("u", &["system:authenticated"]), "get core/pods default/p", false),
        (user("u", &["system:unauthenticated"]), "get /healthz", true),
        (user("u", &["system:unauthenticated"]), "get /api", false),
        (user("system:kube-scheduler", &[]), "create core/pods/binding ns/p", true),
        (user("system:kube-scheduler", &[]), "delete core/nodes -/n", false),
        (user("system:kube-proxy", &[]), "watch discovery.k8s.io/endpointslices -/-", true),
        (user("kube-apiserver-kubelet-client", &[]), "get core/nodes/proxy -/n", true),
        (user("kube-apiserver-kubelet-client", &[]), "get core/secrets ns/s", false),
        (controller("replicaset-controller"), "create core/pods ns/-", true),
        (controller("replicaset-controller"), "create core/secrets ns/-", false),
        (controller("generic-garbage-collector"), "delete apps/deployments ns/d", true),
        (user("system:kube-controller-manager", &[]), "create core/serviceaccounts/token kube-system/x", true),
        (user("root", &["system:masters"]), "delete core/nodes -/n", true),
    ];
    for (who, text, expect) in cases {
        let decision = rbac.authorize(&request(who.clone(), text)).await;
        assert_eq!(decision == Decision::Allow, expect, "{} {text}", who.user);
    }
}

#[test]
fn defaults_are_whole_and_reconciling_is_idempotent() {
    let count = |kind: &str| parse_defaults().unwrap().iter().filter(|object| object["kind"] == kind).count();
    assert!(
        count("ClusterRole") > 60
            && count("ClusterRoleBinding") > 40
            && count("Role") >= 6
            && count("RoleBinding") >= 6
    );
    let objects = defaults_cluster();
    assert_eq!(plan_reconcile(&*objects).unwrap(), []);
    let admin = objects.get(GROUP, "clusterroles", "", "admin").unwrap();
    assert!(admin["rules"].as_array().unwrap().len() > 10, "aggregated roles come filled");
}

#[test]
fn reconciling_adds_what_is_missing_and_takes_nothing_away() {
    let objects = defaults_cluster();
    let change = |resource: &str, name: &str, edit: &dyn Fn(&mut Value)| {
        let mut object = Value::clone(&objects.get(GROUP, resource, "", name).unwrap());
        edit(&mut object);
        store(&objects, object);
    };
    let extra = json!({"verbs": ["get"], "apiGroups": ["mine"], "resources": ["x"]});
    change("clusterroles", "system:kube-scheduler", &|role| role["rules"] = json!([extra]));
    change("clusterroles", "system:node-proxier", &|role| {
        role["rules"] = json!([]);
        role["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
    });
    change("clusterrolebindings", "system:basic-user", &|binding| binding["roleRef"]["name"] = "view".into());
    change("clusterrolebindings", "cluster-admin", &|binding| binding["subjects"] = json!([]));
    let writes = plan_reconcile(&*objects).unwrap();
    let mut seen = Vec::new();
    for write in &writes {
        match write {
            Write::Update(object) if object["metadata"]["name"] == "system:kube-scheduler" => {
                assert!(object["rules"].as_array().unwrap().contains(&extra));
                seen.push("scheduler");
            }
            Write::Update(object) if object["metadata"]["name"] == "cluster-admin" => seen.push("cluster-admin"),
            Write::Recreate(object) if object["metadata"]["name"] == "system:basic-user" => seen.push("basic-user"),
            other => panic!("unexpected {other:?}"),
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["basic-user", "cluster-admin", "scheduler"]);
}

async fn escalation(identity: Identity, resource: &'static str, object: Value) -> Result<(), String> {
    let objects = defaults_cluster();
    put_role(
        &objects,
        Some("ns"),
        "held",
        json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]),
    );
    bind(&objects, Some("ns"), ("Role", "held"), json!({"kind": "User", "name": "alice"}));
    put_role(
        &objects,
        None,
        "binder",
        json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["view"]}]),
    );
    bind(&objects, Some("ns"), ("ClusterRole", "binder"), json!({"kind": "User", "name": "alice"}));
    let rbac = Arc::new(Rbac::new(objects.clone()));
    let check = EscalationCheck::new(rbac.clone(), rbac);
    let request = AdmissionRequest {
        operation: Operation::Create,
        group: GROUP.into(),
        version: "v1".into(),
        kind: "".into(),
        resource: resource.into(),
        subresource: "".into(),
        namespace: if resource.starts_with("cluster") { String::new() } else { "ns".to_owned() },
        name: "new".to_owned(),
        identity,
        dry_run: false,
        object: Some(object),
        old_object: None,
        options: Value::Null,
        warnings: Vec::new(),
    };
    check.validate(&request, &*objects).await.map_err(|error| error.message)
}

#[tokio::test]
async fn nobody_grants_what_he_does_not_hold() {
    let alice = || user("alice", &["devs"]);
    let role = |verbs: Value| json!({"rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
    let binding = |kind: &str, name: &str| json!({"roleRef": {"kind": kind, "name": name}});
    assert_eq!(escalation(alice(), "roles", role(json!(["get"]))).await, Ok(()));
    assert_eq!(
        escalation(alice(), "roles", role(json!(["get", "delete"]))).await.unwrap_err(),
        "roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"alice\" (groups=[\"devs\"]) is attempting to grant \
         RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    // Held in one namespace is not held in the cluster.
    assert!(escalation(alice(), "clusterroles", role(json!(["get"]))).await.is_err());
    assert_eq!(escalation(alice(), "rolebindings", binding("Role", "held")).await, Ok(()));
    assert_eq!(escalation(alice(), "rolebindings", binding("ClusterRole", "view")).await, Ok(()));
    assert!(escalation(alice(), "rolebindings", binding("ClusterRole", "cluster-admin")).await.is_err());
    assert!(escalation(alice(), "clusterrolebindings", binding("ClusterRole", "view")).await.is_err());
    assert!(escalation(alice(), "rolebindings", binding("Role", "none")).await.unwrap_err().contains("not found"));
    let masters = user("root", &["system:masters"]);
    assert_eq!(escalation(masters, "clusterrolebindings", binding("ClusterRole", "cluster-admin")).await, Ok(()));
}

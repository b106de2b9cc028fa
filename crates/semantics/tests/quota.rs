//! What quotas count, which objects their scopes select, and what admission charges and refuses, as tables.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use semantics::quota::charge::{Write, charge};
use semantics::quota::{Item, Source, measure, measure_count};
use serde_json::{Value, from_value, json};

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn item(resource: &str, object: &Value) -> Item {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    Item::parse(&Source::of_resource(group, plural).unwrap(), object).unwrap()
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

fn cpu(name: &str, requests: &str) -> Value {
    container(name, json!({"cpu": requests}), json!({}))
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn check_usage(resource: &str, object: &Value, expect: &str) {
    assert_eq!(item(resource, object).usage(now()).to_string(), expect, "{object}");
}

#[test]
fn names_and_what_measures_them() {
    let check = |name: &str, expect: Option<Source>| assert_eq!(Source::of_name(name), expect, "{name}");
    let objects =
        |group: &str, plural: &str| Some(Source::Objects { group: group.to_owned(), plural: plural.to_owned() });
    for name in [
        "pods",
        "count/pods",
        "cpu",
        "requests.memory",
        "limits.ephemeral-storage",
        "hugepages-2Mi",
        "requests.hugepages-2Mi",
        "requests.example.com/gpu",
        "requests.deviceclass.resource.kubernetes.io/gpu",
    ] {
        check(name, Some(Source::Pods));
    }
    for name in ["services", "services.nodeports", "services.loadbalancers", "count/services"] {
        check(name, Some(Source::Services));
    }
    for name in [
        "persistentvolumeclaims",
        "count/persistentvolumeclaims",
        "requests.storage",
        "gold.storageclass.storage.k8s.io/requests.storage",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims",
    ] {
        check(name, Some(Source::Claims));
    }
    check("configmaps", objects("", "configmaps"));
    check("count/configmaps", objects("", "configmaps"));
    check("count/deployments.apps", objects("apps", "deployments"));
    check("count/ingresses.networking.k8s.io", objects("networking.k8s.io", "ingresses"));
    for name in [
        "deployments.apps",
        "requests.pods",
        "limits.example.com/gpu",
        "example.com/gpu",
        "count/events",
        "count/events.events.k8s.io",
        "requests.kubernetes.io/thing",
        "gold.storageclass.storage.k8s.io/pods",
    ] {
        check(name, None);
    }
}

#[test]
fn pods_use_what_they_request_and_may_use() {
    let check = |spec: Value, expect: &str| check_usage("pods", &pod(spec), expect);
    check(json!({"containers": [{"name": "a"}]}), "count/pods=1,pods=1");
    check(
        json!({"containers": [
            container("a", json!({"cpu": "100m", "memory": "1Gi", "ephemeral-storage": "1M"}), json!({"cpu": "1"})),
            container("b", json!({"cpu": "400m", "memory": "1Mi"}), json!({"memory": "1G", "example.com/gpu": "2"})),
        ]}),
        "count/pods=1,cpu=500m,ephemeral-storage=1M,limits.cpu=1,limits.memory=1G,memory=1025Mi,pods=1,\
         requests.cpu=500m,requests.ephemeral-storage=1M,requests.memory=1025Mi",
    );
    check(
        json!({"containers": [container("a", json!({"hugepages-2Mi": "4Mi", "example.com/gpu": "2"}), json!({}))]}),
        "count/pods=1,hugepages-2Mi=4Mi,pods=1,requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi",
    );
    let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
    check(
        json!({"containers": [cpu("a", "1")], "initContainers": [sidecar, cpu("i", "3")], "overhead": {"cpu": "250m"}}),
        "count/pods=1,cpu=4250m,pods=1,requests.cpu=4250m",
    );
    check(
        json!({"containers": [cpu("a", "1")], "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}}),
        "count/pods=1,cpu=2,limits.cpu=3,pods=1,requests.cpu=2",
    );
}

#[test]
fn a_resize_counts_at_its_largest_until_it_is_done() {
    let spec = json!({"containers": [cpu("a", "2")]});
    let check = |status: Value, expect: &str| {
        let object = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        check_usage("pods", &object, &format!("count/pods=1,cpu={expect},pods=1,requests.cpu={expect}"));
    };
    let status = |allocated: &str, actual: &str| {
        json!([{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": allocated}, "resources": {"requests": {"cpu": actual}}}])
    };
    check(json!({"containerStatuses": status("1", "1")}), "2");
    check(json!({"containerStatuses": status("3", "1")}), "3");
    check(json!({"containerStatuses": status("1", "4")}), "4");
    let refused = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
    check(json!({"containerStatuses": status("1", "1"), "conditions": refused}), "1");
}

#[test]
fn what_is_over_uses_nothing() {
    let check = |meta: Value, phase: &str, expect: &str| {
        let object = json!({"metadata": meta, "spec": {"containers": []}, "status": {"phase": phase}});
        check_usage("pods", &object, expect);
    };
    check(json!({}), "Running", "count/pods=1,pods=1");
    check(json!({}), "Succeeded", "count/pods=1");
    check(json!({}), "Failed", "count/pods=1");
    let leaving = |since: &str| json!({"deletionTimestamp": since, "deletionGracePeriodSeconds": 30});
    check(leaving("2026-01-01T11:59:31Z"), "Running", "count/pods=1,pods=1");
    check(leaving("2026-01-01T11:59:29Z"), "Running", "count/pods=1");
}

#[test]
fn services_claims_and_all_else() {
    let service = |spec: Value, balancers: u8, ports: u8| {
        let expect =
            format!("count/services=1,services=1,services.loadbalancers={balancers},services.nodeports={ports}");
        check_usage("services", &json!({"spec": spec}), &expect);
    };
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
    service(json!({"ports": ports}), 0, 0);
    service(json!({"type": "NodePort", "ports": ports}), 0, 2);
    service(json!({"type": "LoadBalancer", "ports": ports}), 1, 2);
    service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports}), 1, 1);

    let claim = |claim: Value, expect: &str| check_usage("persistentvolumeclaims", &claim, expect);
    let asked = json!({"requests": {"storage": "1500m"}});
    claim(json!({"spec": {}}), "count/persistentvolumeclaims=1,persistentvolumeclaims=1");
    claim(
        json!({"spec": {"resources": asked}}),
        "count/persistentvolumeclaims=1,persistentvolumeclaims=1,requests.storage=2",
    );
    claim(
        json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}}}),
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=2Gi,persistentvolumeclaims=1,requests.storage=2Gi",
    );
    check_usage("secrets", &json!({}), "count/secrets=1,secrets=1");
    check_usage("deployments.apps", &json!({}), "count/deployments.apps=1");
}

#[test]
fn scopes_select() {
    let in_scope =
        |resource: &str, object: Value, spec: Value| item(resource, &object).is_in_scope(&from_value(spec).unwrap());
    let scoped = |scope: &str| json!({"scopes": [scope]});
    let check = |spec: Value, scopes: [bool; 5]| {
        let names = ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "CrossNamespacePodAffinity"];
        let found = names.map(|name| in_scope("pods", pod(spec.clone()), scoped(name)));
        assert_eq!(found, scopes, "{spec}");
    };
    check(json!({"containers": [{"name": "a"}]}), [false, true, true, false, false]);
    check(json!({"containers": [cpu("a", "1")], "activeDeadlineSeconds": 0}), [true, false, false, true, false]);
    let beyond = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "namespaceSelector": {}}}]}});
    check(json!({"containers": [], "affinity": beyond}), [false, true, true, false, true]);

    let selector = |scope: &str, operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]}});
    let high = || pod(json!({"containers": [], "priorityClassName": "high"}));
    let none = || pod(json!({"containers": []}));
    let priority = |object: Value, operator: &str, values: Value| {
        in_scope("pods", object, selector("PriorityClass", operator, values))
    };
    assert!(priority(high(), "In", json!(["high"])) && !priority(none(), "In", json!(["high"])));
    assert!(!priority(high(), "NotIn", json!(["high"])) && priority(none(), "NotIn", json!(["high"])));
    assert!(priority(high(), "Exists", Value::Null) && !priority(none(), "Exists", Value::Null));
    assert!(!priority(high(), "DoesNotExist", Value::Null) && priority(none(), "DoesNotExist", Value::Null));

    let claim =
        json!({"spec": {"volumeAttributesClassName": "fast"}, "status": {"currentVolumeAttributesClassName": "slow"}});
    let class = |name: &str| {
        in_scope("persistentvolumeclaims", claim.clone(), selector("VolumeAttributesClass", "In", json!([name])))
    };
    assert!(class("fast") && class("slow") && !class("gold"));
    assert!(!in_scope("services", json!({}), scoped("NotTerminating")));
    let both = json!({"scopes": ["NotTerminating", "NotBestEffort"]});
    assert!(!in_scope("pods", none(), both));
}

#[test]
fn many_are_measured_together() {
    let spec: ResourceQuotaSpec = from_value(json!({"scopes": ["NotBestEffort"]})).unwrap();
    let pods = [
        pod(json!({"containers": [cpu("a", "1")]})),
        pod(json!({"containers": [cpu("a", "500m")]})),
        pod(json!({"containers": []})),
    ];
    let items: Vec<Item> = pods.iter().map(|object| item("pods", object)).collect();
    assert_eq!(measure(&spec, &items, now()).to_string(), "count/pods=2,cpu=1500m,pods=2,requests.cpu=1500m");
    let secrets = Source::of_name("secrets").unwrap();
    assert_eq!(measure_count(&spec, &secrets, 7).to_string(), "");
    assert_eq!(measure_count(&ResourceQuotaSpec::default(), &secrets, 7).to_string(), "count/secrets=7,secrets=7");
}

fn quota(name: &str, hard: Value, used: Value) -> ResourceQuota {
    from_value(json!({"metadata": {"name": name}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}}))
        .unwrap()
}

fn created(resource: &str, object: Value) -> Write {
    Write { new: item(resource, &object), old: None, subresource: String::new() }
}

fn updated(resource: &str, object: Value, old: Value, subresource: &str) -> Write {
    Write { new: item(resource, &object), old: Some(item(resource, &old)), subresource: subresource.to_owned() }
}

/// What each quota shows as used after the write, `NAME: LIST`, or the refusal.
fn charged(quotas: &[ResourceQuota], write: &Write) -> String {
    assert!(write.is_charged());
    match charge(quotas, write, now()) {
        Err(why) => why,
        Ok(charges) => {
            let line =
                |used: std::collections::BTreeMap<String, _>| serde_json::to_string(&used).unwrap().replace('"', "");
            let one = |charge: semantics::quota::charge::Charge| {
                format!("{}: {}", quotas[charge.index].metadata.name.clone().unwrap(), line(charge.used))
            };
            charges.into_iter().map(one).collect::<Vec<_>>().join("; ")
        }
    }
}

#[test]
fn what_fits_is_charged_to_every_quota_that_limits_it() {
    let quotas = [
        quota("a", json!({"pods": "2", "cpu": "1"}), json!({"pods": "1", "cpu": "500m"})),
        quota("b", json!({"secrets": "2"}), json!({"secrets": "0"})),
        quota("c", json!({"count/pods": "5", "secrets": "3"}), json!({"count/pods": "1", "secrets": "0"})),
    ];
    let write = created("pods", pod(json!({"containers": [cpu("x", "500m")]})));
    assert_eq!(charged(&quotas, &write), "a: {cpu:1,pods:2}; c: {count/pods:2,secrets:0}");
    assert_eq!(charged(&quotas, &created("secrets", json!({}))), "b: {secrets:1}; c: {count/pods:1,secrets:1}");
    assert_eq!(charged(&quotas, &created("configmaps", json!({}))), "");
}

#[test]
fn refusals_are_upstreams() {
    let full = [quota(
        "q",
        json!({"pods": "1", "cpu": "1", "memory": "1Gi"}),
        json!({"pods": "1", "cpu": "600m", "memory": "0"}),
    )];
    let write = created(
        "pods",
        pod(json!({"containers": [container("x", json!({"cpu": "500m", "memory": "1Mi"}), json!({}))]})),
    );
    assert_eq!(
        charged(&full, &write),
        "exceeded quota: q, requested: cpu=500m,pods=1, used: cpu=600m,pods=1, limited: cpu=1,pods=1"
    );

    let limited = [quota(
        "q",
        json!({"cpu": "1", "limits.memory": "1Gi", "ephemeral-storage": "1"}),
        json!({"cpu": "0", "limits.memory": "0", "ephemeral-storage": "0"}),
    )];
    let write =
        created("pods", pod(json!({"containers": [{"name": "b"}, cpu("a", "1")], "initContainers": [{"name": "i"}]})));
    assert_eq!(charged(&limited, &write), "failed quota: q: must specify cpu for: b,i; limits.memory for: a,b,i");
    let whole =
        json!({"containers": [{"name": "b"}], "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}});
    assert_eq!(charged(&limited, &created("pods", pod(whole))), "q: {cpu:1,ephemeral-storage:0,limits.memory:1Gi}");

    let unknown = [quota("q", json!({"pods": "1", "secrets": "1"}), json!({"pods": "0"}))];
    assert_eq!(charged(&unknown, &created("secrets", json!({}))), "status unknown for quota: q, resources: secrets");
    assert_eq!(charged(&unknown, &created("pods", pod(json!({"containers": []})))), "q: {pods:1}");
}

#[test]
fn updates_are_charged_for_what_grows() {
    let quotas = [quota(
        "q",
        json!({"services.nodeports": "2", "services": "1"}),
        json!({"services.nodeports": "0", "services": "1"}),
    )];
    let service = |kind: &str, ports: usize| json!({"spec": {"type": kind, "ports": vec![json!({"port": 1}); ports]}});
    let change = |new: Value, old: Value| charged(&quotas, &updated("services", new, old, ""));
    assert_eq!(change(service("NodePort", 2), service("ClusterIP", 2)), "q: {services:1,services.nodeports:2}");
    assert_eq!(change(service("ClusterIP", 2), service("NodePort", 2)), "");
    assert_eq!(
        change(service("NodePort", 3), service("ClusterIP", 3)),
        "exceeded quota: q, requested: services.nodeports=3, used: services.nodeports=0, limited: services.nodeports=2"
    );

    let storage = [quota("q", json!({"requests.storage": "3Gi"}), json!({"requests.storage": "2Gi"}))];
    let claim = |asked: &str, allocated: &str| json!({"spec": {"resources": {"requests": {"storage": asked}}}, "status": {"allocatedResources": {"storage": allocated}}});
    let change = |new: Value, subresource: &str| {
        charged(&storage, &updated("persistentvolumeclaims", new, claim("2Gi", "2Gi"), subresource))
    };
    assert_eq!(change(claim("3Gi", "2Gi"), ""), "q: {requests.storage:3Gi}");
    assert_eq!(
        change(claim("4Gi", "2Gi"), ""),
        "exceeded quota: q, requested: requests.storage=2Gi, used: requests.storage=2Gi, limited: requests.storage=3Gi"
    );
    assert_eq!(
        change(claim("2Gi", "5Gi"), "status"),
        "q: {requests.storage:5Gi}",
        "what a status tells is counted, not refused"
    );
}

#[test]
fn a_pod_that_moves_into_a_scope_is_charged_in_full() {
    let mut scoped = quota("q", json!({"pods": "1"}), json!({"pods": "0"}));
    scoped.spec.as_mut().unwrap().scopes = Some(vec!["Terminating".to_owned()]);
    let (endless, ending) =
        (pod(json!({"containers": []})), pod(json!({"containers": [], "activeDeadlineSeconds": 5})));
    assert_eq!(charged(&[scoped.clone()], &updated("pods", ending.clone(), endless.clone(), "")), "q: {pods:1}");
    assert_eq!(charged(&[scoped], &updated("pods", endless.clone(), ending, "")), "");
    assert!(!updated("pods", endless.clone(), endless.clone(), "").is_charged());
    assert!(!updated("pods", endless.clone(), endless.clone(), "status").is_charged());
    assert!(updated("pods", endless.clone(), endless, "resize").is_charged());
    assert!(!updated("secrets", json!({}), json!({}), "").is_charged());
}

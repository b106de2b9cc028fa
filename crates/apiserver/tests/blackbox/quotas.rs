//! ResourceQuota: what fits is charged with the write, what does not is refused, and nothing comes between.

use apiserver::ApiServer;
use apiserver::body::full;
use futures::future::join_all;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::fixture::{CONFIG_MAPS, Fixture, PODS, admin, config_map, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// Makes a quota that counts already: nothing but this test plays the controller.
async fn quota(f: &Fixture, name: &str, spec: Value, used: Value) {
    let hard = spec["hard"].clone();
    f.post(QUOTAS, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    let status = json!({"status": {"hard": hard, "used": used}});
    f.patch(&format!("{QUOTAS}/{name}/status"), "application/merge-patch+json", &status).await.expect(200);
}

async fn used(f: &Fixture, name: &str) -> Value {
    f.get(&format!("{QUOTAS}/{name}")).await.expect(200)["status"]["used"].clone()
}

#[tokio::test]
async fn what_fits_is_charged_and_what_does_not_is_refused() {
    let f = Fixture::new().await;
    quota(&f, "q", json!({"hard": {"pods": "1", "count/pods": "5"}}), json!({"pods": "0", "count/pods": "3"})).await;
    f.post(PODS, &pod("a")).await.expect(201);
    assert_eq!(used(&f, "q").await, json!({"pods": "1", "count/pods": "4"}));
    let refused = f.post(PODS, &pod("b")).await.expect(403);
    assert_eq!(refused["reason"], "Forbidden");
    assert_eq!(
        refused["message"],
        "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    f.get(&format!("{PODS}/b")).await.expect(404);
    f.post("/api/v1/namespaces/kube-public/pods", &pod("b")).await.expect(201);
    let owners: Vec<Value> = f.get(&format!("{QUOTAS}/q")).await.expect(200)["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| json!([entry["manager"], entry["subresource"]]))
        .collect();
    assert!(owners.contains(&json!(["kube-apiserver", "status"])), "{owners:?}");
}

#[tokio::test]
async fn only_a_write_that_happens_is_charged() {
    let f = Fixture::new().await;
    quota(&f, "q", json!({"hard": {"configmaps": "2"}}), json!({"configmaps": "0"})).await;
    f.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", "1")).await.expect(201);
    assert_eq!(used(&f, "q").await, json!({"configmaps": "0"}));
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(409);
    f.post(CONFIG_MAPS, &config_map("A", "1")).await.expect(422);
    f.put(&format!("{CONFIG_MAPS}/a"), &config_map("a", "2")).await.expect(200);
    assert_eq!(used(&f, "q").await, json!({"configmaps": "1"}));
    f.post(CONFIG_MAPS, &config_map("b", "1")).await.expect(201);
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let target = format!("{CONFIG_MAPS}/c?fieldManager=t");
    f.patch(&target, "application/apply-patch+yaml", &apply).await.expect(403);
    f.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("c", "1")).await.expect(403);
    assert_eq!(used(&f, "q").await, json!({"configmaps": "2"}));
}

#[tokio::test]
async fn containers_specify_what_is_limited() {
    let f = Fixture::new().await;
    quota(&f, "q", json!({"hard": {"cpu": "1"}}), json!({"cpu": "0"})).await;
    let refused = f.post(PODS, &pod("a")).await.expect(403);
    assert_eq!(refused["message"], "pods \"a\" is forbidden: failed quota: q: must specify cpu for: c");
    let mut specific = pod("a");
    specific["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "600m"}});
    f.post(PODS, &specific).await.expect(201);
    specific["metadata"]["name"] = json!("b");
    let refused = f.post(PODS, &specific).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"b\" is forbidden: exceeded quota: q, requested: cpu=600m, used: cpu=600m, limited: cpu=1"
    );
    f.post(QUOTAS, &json!({"metadata": {"name": "new"}, "spec": {"hard": {"configmaps": "1"}}})).await.expect(201);
    f.post(CONFIG_MAPS, &config_map("early", "1")).await.expect(201);
    let hard = json!({"status": {"hard": {"configmaps": "1"}}});
    f.patch(&format!("{QUOTAS}/new/status"), "application/merge-patch+json", &hard).await.expect(200);
    let refused = f.post(CONFIG_MAPS, &config_map("late", "1")).await.expect(403);
    assert_eq!(
        refused["message"],
        "configmaps \"late\" is forbidden: status unknown for quota: new, resources: configmaps"
    );
}

#[tokio::test]
async fn scopes_decide_who_is_counted() {
    let f = Fixture::new().await;
    let ending = json!({"hard": {"pods": "0"}, "scopes": ["Terminating"]});
    quota(&f, "q", ending, json!({"pods": "0"})).await;
    f.post(PODS, &pod("endless")).await.expect(201);
    let mut ends = pod("ends");
    ends["spec"]["activeDeadlineSeconds"] = json!(60);
    f.post(PODS, &ends).await.expect(403);
    let deadline = json!({"spec": {"activeDeadlineSeconds": 60}});
    f.patch(&format!("{PODS}/endless"), "application/merge-patch+json", &deadline).await.expect(403);
}

#[tokio::test]
async fn updates_are_charged_for_what_grows() {
    let f = Fixture::new().await;
    let hard = json!({"services": "2", "services.nodeports": "1"});
    quota(&f, "q", json!({"hard": hard}), json!({"services": "0", "services.nodeports": "0"})).await;
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    f.post(SERVICES, &service("a")).await.expect(201);
    f.post(SERVICES, &service("b")).await.expect(201);
    let node_port = json!({"spec": {"type": "NodePort"}});
    f.patch(&format!("{SERVICES}/a"), "application/merge-patch+json", &node_port).await.expect(200);
    assert_eq!(used(&f, "q").await, json!({"services": "2", "services.nodeports": "1"}));
    let refused = f.patch(&format!("{SERVICES}/b"), "application/merge-patch+json", &node_port).await.expect(403);
    assert_eq!(
        refused["message"],
        "services \"b\" is forbidden: exceeded quota: q, requested: services.nodeports=1, \
         used: services.nodeports=1, limited: services.nodeports=1"
    );
}

/// Creates a ConfigMap on one of several servers; the code of the answer.
async fn create_at(server: &ApiServer, name: &str) -> u16 {
    let request = Request::post(CONFIG_MAPS).header("content-type", "application/json");
    let mut request = request.body(full(config_map(name, "1").to_string())).unwrap();
    request.extensions_mut().insert(admin());
    let (parts, body) = server.handle(request).await.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    assert!(matches!(parts.status.as_u16(), 201 | 403), "{text:?}");
    parts.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_exactly_as_many_pass_as_fit() {
    let f = Fixture::new().await;
    let other = f.another().await;
    quota(&f, "few", json!({"hard": {"configmaps": "7"}}), json!({"configmaps": "0"})).await;
    quota(&f, "more", json!({"hard": {"count/configmaps": "9"}}), json!({"count/configmaps": "1"})).await;
    // The other server knows of the limits once it has heard of this.
    let marked = json!({"metadata": {"labels": {"heard": "yes"}}});
    let version = f.patch(&format!("{QUOTAS}/more"), "application/merge-patch+json", &marked).await.expect(200);
    let version = version["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut heard = Request::get(format!("{QUOTAS}?resourceVersion={version}")).body(full("")).unwrap();
    heard.extensions_mut().insert(admin());
    assert_eq!(other.handle(heard).await.status(), 200);
    let creates: Vec<_> = (0..40)
        .map(|number| {
            let server = if number % 2 == 0 { f.server.clone() } else { other.clone() };
            tokio::spawn(async move { create_at(&server, &format!("c{number}")).await })
        })
        .collect();
    let codes: Vec<u16> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 7, "{codes:?}");
    assert_eq!(used(&f, "few").await, json!({"configmaps": "7"}));
    assert_eq!(used(&f, "more").await, json!({"count/configmaps": "8"}));
    let stored = f.get(CONFIG_MAPS).await.expect(200);
    let ours = stored["items"].as_array().unwrap().iter().filter(|map| map["data"]["v"] == "1").count();
    assert_eq!(ours, 7);
    other.stop();
}

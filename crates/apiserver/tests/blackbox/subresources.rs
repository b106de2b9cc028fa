//! Status, scale, binding, eviction.

use std::sync::Arc;

use apiserver::chain::TokenIssuer;
use apiserver::{ApiError, ApiServerConfig, Reader};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use store::MemberChange;

use crate::fixture::{Fixture, PODS, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        }
    })
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let f = Fixture::new().await;
    let mut made = f.post(PODS, &pod("p")).await.expect(201);
    made["status"]["phase"] = json!("Running");
    made["spec"]["containers"][0]["image"] = json!("other");
    let written = f.put(&format!("{PODS}/p/status"), &made).await.expect(200);
    assert_eq!(written["status"]["phase"], "Running");
    assert_eq!(written["spec"]["containers"][0]["image"], "i", "a status write leaves the spec alone");
    let mut next = written.clone();
    next["status"]["phase"] = json!("Failed");
    next["metadata"]["labels"] = json!({"a": "b"});
    let written = f.put(&format!("{PODS}/p"), &next).await.expect(200);
    assert_eq!(written["status"]["phase"], "Running", "a spec write leaves the status alone");
    assert_eq!(written["metadata"]["labels"], json!({"a": "b"}));
    let patch = json!({"status": {"message": "m"}});
    let patched = f.patch(&format!("{PODS}/p/status"), "application/merge-patch+json", &patch).await.expect(200);
    assert_eq!(patched["status"]["message"], "m");
}

#[tokio::test]
async fn a_scale_is_read_written_and_patched() {
    let f = Fixture::new().await;
    f.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = f.get(&path).await.expect(200);
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"]["selector"], "app=x");
    scale["spec"]["replicas"] = json!(4);
    let written = f.put(&path, &scale).await.expect(200);
    assert_eq!(written["spec"]["replicas"], 4);
    f.put(&path, &scale).await.expect(409);
    let patch = json!({"spec": {"replicas": 1}});
    f.patch(&path, "application/merge-patch+json", &patch).await.expect(200);
    let object = f.get(&format!("{DEPLOYMENTS}/d")).await.expect(200);
    assert_eq!(object["spec"]["replicas"], 1);
    let negative = json!({"spec": {"replicas": -1}});
    f.patch(&path, "application/merge-patch+json", &negative).await.expect(422);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let f = Fixture::new().await;
    f.post(PODS, &pod("p")).await.expect(201);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let status = f.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    assert_eq!(status["status"], "Success");
    assert_eq!(f.get(&format!("{PODS}/p")).await.expect(200)["spec"]["nodeName"], "n1");
    let again = f.post(&format!("{PODS}/p/binding"), &binding).await.expect(409);
    assert!(again["message"].as_str().unwrap().contains("pod p is already assigned to node \"n1\""));
    f.post(PODS, &pod("q")).await.expect(201);
    let binding = json!({"metadata": {"name": "q"}, "target": {"name": "n1"}});
    f.post("/api/v1/namespaces/default/bindings", &binding).await.expect(201);
}

#[tokio::test]
async fn an_eviction_deletes() {
    let f = Fixture::new().await;
    let mut object = pod("p");
    object["spec"]["nodeName"] = json!("n1");
    f.post(PODS, &object).await.expect(201);
    let eviction = json!({"metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 7}});
    f.post(&format!("{PODS}/p/eviction"), &eviction).await.expect(201);
    let evicted = f.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(evicted["metadata"]["deletionGracePeriodSeconds"], 7);
    assert_eq!(evicted["status"]["conditions"][0]["type"], "DisruptionTarget");
}

#[tokio::test]
async fn versions_and_health_answer() {
    let f = Fixture::new().await;
    let version = f.get("/version").await.expect(200);
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("37")));
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(f.get(path).await.bytes, "ok");
    }
    let verbose = f.get("/readyz?verbose").await;
    assert!(String::from_utf8_lossy(&verbose.bytes).ends_with("readyz check passed\n"));
    assert!(String::from_utf8_lossy(&f.get("/metrics").await.bytes).contains("apiserver_request_total"));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_a_failed_check() {
    let f = Fixture::new().await;
    f.store.close();
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = f.get(path).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(answer.code, 500, "{text}");
        assert!(text.contains("[-]etcd failed: reason withheld\n"), "{text}");
        assert_eq!(f.get(&format!("{path}/etcd")).await.code, 500);
        assert_eq!(f.get(&format!("{path}/ping")).await.code, 200);
    }
    let verbose = f.get("/readyz?verbose").await;
    assert!(String::from_utf8_lossy(&verbose.bytes).contains("[-]etcd-readiness failed"));
}

#[tokio::test]
async fn a_store_without_a_majority_is_a_failed_check() {
    let f = Fixture::new().await;
    // It never comes, and of two voters one is no majority.
    let absent = MemberChange::AddVoter { id: 2, peer_urls: vec!["http://192.0.2.1:2380".to_owned()] };
    f.store.change_members(absent).await.unwrap();
    assert_eq!(f.get("/livez/etcd").await.code, 500);
    assert_eq!(f.get("/livez/ping").await.code, 200);
}

/// Answers what it is asked, without a token.
struct Echo;

impl TokenIssuer for Echo {
    fn issue<'a>(
        &'a self,
        _account: &'a Value,
        request: Value,
        _reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        Box::pin(async move { Ok(request) })
    }
}

#[tokio::test]
async fn a_token_request_says_who_asked() {
    let config = ApiServerConfig { token_issuer: Some(Arc::new(Echo)), ..ApiServerConfig::default() };
    let f = Fixture::with(config).await;
    f.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "a"}})).await.expect(201);
    let path = "/api/v1/namespaces/default/serviceaccounts/a/token?fieldManager=me";
    let answer = f.post(path, &json!({"spec": {}})).await.expect(201);
    assert_eq!(answer["spec"], json!({"expirationSeconds": 3600}));
    let entry = &answer["metadata"]["managedFields"][0];
    let owner = [&entry["manager"], &entry["apiVersion"], &entry["subresource"]];
    assert_eq!(owner, ["me", "authentication.k8s.io/v1", "token"]);
    assert_eq!(entry["fieldsV1"], json!({"f:spec": {"f:expirationSeconds": {}}}));
}

//! Delete: grace, finalizers, propagation, namespaces, collections.

use serde_json::{Value, json};

use crate::fixture::{CONFIG_MAPS, Fixture, PODS, config_map, pod};

#[tokio::test]
async fn a_plain_object_goes_at_once() {
    let f = Fixture::new().await;
    let made = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let other = json!({"preconditions": {"uid": "other"}});
    assert_eq!(f.delete(&path, Some(other)).await.expect(409)["reason"], "Conflict");
    let status = f.delete(&path, None).await.expect(200);
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}));
    f.get(&path).await.expect(404);
    f.delete(&path, None).await.expect(404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let f = Fixture::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut object = config_map("a", "1");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    f.post(CONFIG_MAPS, &object).await.expect(201);
    let held = f.delete(&path, None).await.expect(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    f.delete(&path, None).await.expect(200);
    let again = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(409);
    assert_eq!(again["message"], "object is being deleted: configmaps \"a\" already exists");
    let mut free = f.get(&path).await.expect(200);
    free["metadata"]["finalizers"] = json!([]);
    f.put(&path, &free).await.expect(200);
    f.get(&path).await.expect(404);
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let f = Fixture::new().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        f.post(CONFIG_MAPS, &config_map(finalizer_name(policy), "1")).await.expect(201);
        let path = format!("{CONFIG_MAPS}/{}", finalizer_name(policy));
        let held = f.delete(&path, Some(json!({"propagationPolicy": policy}))).await.expect(200);
        assert_eq!(held["metadata"]["finalizers"], json!([finalizer]));
    }
    f.post(CONFIG_MAPS, &config_map("b", "1")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/b");
    assert_eq!(f.delete(&path, Some(json!({"propagationPolicy": "Nope"}))).await.expect(422)["reason"], "Invalid");
    f.delete(&path, Some(json!({"propagationPolicy": "Background"}))).await.expect(200);
    f.get(&path).await.expect(404);
}

fn finalizer_name(policy: &str) -> &'static str {
    if policy == "Orphan" { "o" } else { "f" }
}

async fn running_pod(f: &Fixture, name: &str) -> Value {
    let mut object = pod(name);
    object["spec"]["nodeName"] = json!("n1");
    object["spec"]["terminationGracePeriodSeconds"] = json!(30);
    f.post(PODS, &object).await.expect(201)
}

#[tokio::test]
async fn a_pod_on_a_node_waits_for_its_kubelet() {
    let f = Fixture::new().await;
    running_pod(&f, "p").await;
    let path = format!("{PODS}/p");
    let waiting = f.delete(&path, None).await.expect(200);
    assert_eq!(waiting["metadata"]["deletionGracePeriodSeconds"], 30);
    let first = waiting["metadata"]["deletionTimestamp"].as_str().unwrap().to_owned();
    let again = f.delete(&path, None).await.expect(200);
    assert_eq!(again["metadata"]["deletionTimestamp"], first.as_str(), "a second delete changes nothing");
    let shorter = f.delete(&path, Some(json!({"gracePeriodSeconds": 5}))).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(shorter["metadata"]["deletionTimestamp"].as_str().unwrap() < first.as_str());
    f.delete(&path, Some(json!({"gracePeriodSeconds": 0}))).await.expect(200);
    f.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once() {
    let f = Fixture::new().await;
    f.post(PODS, &pod("p")).await.expect(201);
    let gone = f.delete(&format!("{PODS}/p"), None).await.expect(200);
    assert_eq!(gone["kind"], "Pod", "deleting a Pod answers with the Pod");
    f.get(&format!("{PODS}/p")).await.expect(404);
}

#[tokio::test]
async fn a_namespace_goes_once_it_is_finalized() {
    let f = Fixture::new().await;
    let namespace = json!({"metadata": {"name": "n"}});
    let made = f.post("/api/v1/namespaces", &namespace).await.expect(201);
    let path = "/api/v1/namespaces/n";
    let finalizers = &made["spec"]["finalizers"];
    let ending = f.delete(path, None).await.expect(200);
    assert!(ending["metadata"]["deletionTimestamp"].is_string());
    if finalizers != &json!(["kubernetes"]) {
        return;
    }
    assert_eq!(ending["status"]["phase"], "Terminating");
    f.delete(path, None).await.expect(200);
    let mut free = f.get(path).await.expect(200);
    free["spec"]["finalizers"] = json!([]);
    f.put(&format!("{path}/finalize"), &free).await.expect(200);
    f.get(path).await.expect(404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let f = Fixture::new().await;
    for (name, v) in [("a", "1"), ("b", "2"), ("c", "1")] {
        f.post(CONFIG_MAPS, &config_map(name, v)).await.expect(201);
    }
    let list = f.delete(&format!("{CONFIG_MAPS}?labelSelector=v%3D1"), None).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let left = f.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
}

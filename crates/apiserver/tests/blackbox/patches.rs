//! The patch types, and how they meet concurrent writes.

use serde_json::json;

use crate::fixture::{CONFIG_MAPS, Fixture, PODS, config_map, pod, version};

const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

#[tokio::test]
async fn three_patches_do_the_same() {
    let f = Fixture::new().await;
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(f.patch(&path, MERGE, &json!({"data": {"v": "2"}})).await.expect(200)["data"]["v"], "2");
    let patch = json!([{"op": "replace", "path": "/data/v", "value": "3"}]);
    assert_eq!(f.patch(&path, JSON, &patch).await.expect(200)["data"]["v"], "3");
    let patch = json!({"data": {"v": "4"}, "metadata": {"labels": {"v": null, "w": "x"}}});
    let patched = f.patch(&path, STRATEGIC, &patch).await.expect(200);
    assert_eq!(patched["data"]["v"], "4");
    assert_eq!(patched["metadata"]["labels"], json!({"w": "x"}));
}

#[tokio::test]
async fn a_patch_with_a_stale_version_conflicts() {
    let f = Fixture::new().await;
    let made = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    f.patch(&path, MERGE, &json!({"data": {"v": "2"}})).await.expect(200);
    let stale = json!({"data": {"v": "3"}, "metadata": {"resourceVersion": version(&made).to_string()}});
    assert_eq!(f.patch(&path, MERGE, &stale).await.expect(409)["reason"], "Conflict");
    f.patch(&format!("{CONFIG_MAPS}/none"), MERGE, &json!({})).await.expect(404);
}

#[tokio::test]
async fn concurrent_patches_all_count() {
    let f = Fixture::new().await;
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..12).map(|i| {
        let (f, path) = (&f, &path);
        let key = format!("k{i}");
        async move { f.patch(path, MERGE, &json!({"data": {key: "x"}})).await.expect(200) }
    });
    futures::future::join_all(patches).await;
    let data = f.get(&path).await.expect(200)["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 13);
}

#[tokio::test]
async fn bad_patches_say_why() {
    let f = Fixture::new().await;
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    f.patch(&path, MERGE, &json!([])).await.expect(400);
    f.send("PATCH", &path, &[("content-type", MERGE)], "{").await.expect(400);
    let failed = json!([{"op": "test", "path": "/data/v", "value": "9"}]);
    let failed = f.patch(&path, JSON, &failed).await.expect(422);
    assert_eq!(failed["message"], "the server rejected our request due to an error in our request");
    let typed = f.patch(&path, STRATEGIC, &json!({"data": {"v": 1}})).await.expect(422);
    let message = typed["message"].as_str().unwrap();
    assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: \"map[data:map[v:1]]\": "), "{message}");
    let nameless = f.patch(&path, MERGE, &json!({"metadata": null})).await.expect(400);
    let why = "the name of the object (a based on URL) was undeterminable: name must be provided";
    assert_eq!(nameless["message"], why);
    f.patch(&path, "text/plain", &json!({})).await.expect(415);
    let strict = format!("{path}?fieldValidation=Strict");
    let unknown = f.patch(&strict, MERGE, &json!({"nope": 1})).await.expect(422);
    assert!(unknown["message"].as_str().unwrap().contains("unknown field \"nope\""), "{unknown}");
}

const APPLY: &str = "application/apply-patch+yaml";

#[tokio::test]
async fn apply_creates_merges_and_refuses_what_others_own() {
    let f = Fixture::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"v": "1"}});
    f.patch(&path, APPLY, &config).await.expect(422);
    let made = f.patch(&format!("{path}?fieldManager=one"), APPLY, &config).await.expect(201);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("one"), &json!("Apply")));
    assert_eq!(entry["fieldsV1"]["f:data"], json!({"f:v": {}}));
    let mut unknown = config.clone();
    unknown["nope"] = json!(1);
    let unknown = f.patch(&format!("{path}?fieldManager=one"), APPLY, &unknown).await.expect(500);
    let why = "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .nope: field not declared in schema";
    assert_eq!(unknown["message"], why);
    let same = f.patch(&format!("{path}?fieldManager=one"), APPLY, &config).await.expect(200);
    assert_eq!(version(&same), version(&made), "applying the same again is no write");
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"v": "2"}});
    let refused = f.patch(&format!("{path}?fieldManager=two"), APPLY, &other).await.expect(409);
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let forced = f.patch(&format!("{path}?fieldManager=two&force=true"), APPLY, &other).await.expect(200);
    assert_eq!(forced["data"]["v"], "2");
    let updated = f.patch(&path, MERGE, &json!({"data": {"w": "x"}})).await.expect(200);
    let managers = updated["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["operation"] == "Update"), "{managers:?}");
}

#[tokio::test]
async fn a_field_whose_feature_is_off_is_owned_and_not_kept() {
    let f = Fixture::new().await;
    let mut object = pod("p");
    object["spec"]["schedulingGroup"] = json!({"podGroupName": "g"});
    let made = f.post(PODS, &object).await.expect(201);
    assert_eq!(made["spec"].get("schedulingGroup"), None);
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:schedulingGroup"];
    assert_eq!(*owned, json!({".": {}, "f:podGroupName": {}}));
}

//! Create, get and update of single objects.

use serde_json::{Value, json};

use crate::fixture::{CONFIG_MAPS, Fixture, config_map, version};

#[tokio::test]
async fn create_fills_in_what_the_server_decides() {
    let f = Fixture::new().await;
    let made = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    assert_eq!(made["kind"], "ConfigMap");
    assert_eq!(made["apiVersion"], "v1");
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    let got = f.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(got, made);
    let again = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(409);
    assert_eq!(again["reason"], "AlreadyExists");
    assert_eq!(again["message"], "configmaps \"a\" already exists");
}

#[tokio::test]
async fn a_generated_name_has_five_letters_more() {
    let f = Fixture::new().await;
    let object = json!({"metadata": {"generateName": "x-"}});
    let made = f.post(CONFIG_MAPS, &object).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn a_missing_object_is_a_status() {
    let f = Fixture::new().await;
    let status = f.get(&format!("{CONFIG_MAPS}/nope")).await.expect(404);
    assert_eq!(status["message"], "configmaps \"nope\" not found");
    assert_eq!(status["details"], json!({"name": "nope", "kind": "configmaps"}));
    assert_eq!(f.get("/apis/none.example/v1/things").await.expect(404)["reason"], "NotFound");
    assert_eq!(f.get("/nope").await.bytes, "404 page not found\n");
}

#[tokio::test]
async fn an_update_needs_the_current_version_or_none() {
    let f = Fixture::new().await;
    let first = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let mut second = first.clone();
    second["data"]["v"] = json!("2");
    let second = f.put(&path, &second).await.expect(200);
    assert!(version(&second) > version(&first));
    let stale = f.put(&path, &first).await.expect(409);
    assert_eq!(
        stale["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let third = f.put(&path, &config_map("a", "3")).await.expect(200);
    assert_eq!(third["metadata"]["uid"], first["metadata"]["uid"]);
    let same = f.put(&path, &third).await.expect(200);
    assert_eq!(version(&same), version(&third), "an update that changes nothing is no write");
}

#[tokio::test]
async fn an_update_names_the_object_of_its_path() {
    let f = Fixture::new().await;
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let wrong = f.put(&format!("{CONFIG_MAPS}/a"), &config_map("b", "1")).await.expect(400);
    assert_eq!(wrong["message"], "the name of the object (b) does not match the name on the URL (a)");
    assert_eq!(f.put(&format!("{CONFIG_MAPS}/c"), &config_map("c", "1")).await.expect(404)["reason"], "NotFound");
    let mut foreign = config_map("a", "1");
    foreign["metadata"]["uid"] = json!("11111111-2222-4333-8444-555555555555");
    assert_eq!(f.put(&format!("{CONFIG_MAPS}/a"), &foreign).await.expect(409)["reason"], "Conflict");
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let f = Fixture::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    f.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", "1")).await.expect(201);
    f.get(&path).await.expect(404);
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    f.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", "1")).await.expect(409);
    let shown = f.put(&format!("{path}?dryRun=All"), &config_map("a", "2")).await.expect(200);
    assert_eq!(shown["data"]["v"], "2");
    f.delete(&format!("{path}?dryRun=All"), None).await.expect(200);
    assert_eq!(f.get(&path).await.expect(200)["data"]["v"], "1");
    f.post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("b", "1")).await.expect(422);
}

#[tokio::test]
async fn protobuf_and_json_are_the_same_object() {
    let f = Fixture::new().await;
    let made = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let proto = ("accept", "application/vnd.kubernetes.protobuf");
    let wire = f.send("GET", &format!("{CONFIG_MAPS}/a"), &[proto], "").await;
    let message = api::schema::message("core/v1.ConfigMap").unwrap();
    assert_eq!(api::codec::decode_object(&wire.bytes, message).unwrap(), made);
    let list = f.send("GET", CONFIG_MAPS, &[proto], "").await;
    let message = api::schema::message("core/v1.ConfigMapList").unwrap();
    let list = api::codec::decode_object(&list.bytes, message).unwrap();
    let expect = f.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(list, expect);
    let mut other = made.clone();
    other["metadata"] = json!({"name": "b"});
    let body = api::codec::encode_object(&other, api::schema::message("core/v1.ConfigMap").unwrap()).unwrap();
    let headers = [("content-type", "application/vnd.kubernetes.protobuf")];
    let created = f.send("POST", CONFIG_MAPS, &headers, body).await.expect(201);
    assert_eq!(created["data"], made["data"]);
}

#[tokio::test]
async fn events_are_one_storage_under_two_groups() {
    let f = Fixture::new().await;
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "hello", "type": "Normal", "source": {"component": "me"}
    });
    f.post("/api/v1/namespaces/default/events", &event).await.expect(201);
    let other = f.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!(other["apiVersion"], "events.k8s.io/v1");
    assert_eq!(other["note"], "hello");
    assert_eq!(other["regarding"]["name"], "p");
    assert_eq!(other["deprecatedSource"]["component"], "me");
    let selected =
        f.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,reason%3DStarted").await;
    assert_eq!(selected.expect(200)["items"].as_array().unwrap().len(), 1);
    // The other version selects by its own names, also after the first has been asked.
    let selected = f.get("/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=regarding.name%3Dp").await;
    assert_eq!(selected.expect(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_of_either_group_is_refused_as_a_core_event() {
    let f = Fixture::new().await;
    let refused = f.post("/apis/events.k8s.io/v1/namespaces/default/events", &json!({"metadata": {"name": "e"}})).await;
    let status = refused.expect(422);
    assert!(status["message"].as_str().unwrap().starts_with("Event \"e\" is invalid: "), "{status}");
    assert_eq!(status["details"]["group"], Value::Null);
}

#[tokio::test]
async fn requests_for_deprecated_kinds_are_warned() {
    let f = Fixture::new().await;
    let warnings = f.get("/api/v1/namespaces/default/endpoints").await.warnings();
    assert_eq!(warnings, ["299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""]);
    let warnings = f.get("/api/v1/namespaces/default/endpoints/none").await.warnings();
    assert_eq!(warnings.len(), 1, "an error is no reason to be silent");
    assert!(f.get(CONFIG_MAPS).await.warnings().is_empty());
}

#[tokio::test]
async fn yaml_is_read_and_written() {
    let f = Fixture::new().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yam\ndata:\n  v: \"1\"\n";
    f.send("POST", CONFIG_MAPS, &[("content-type", "application/yaml")], yaml).await.expect(201);
    let got = f.send("GET", &format!("{CONFIG_MAPS}/yam"), &[("accept", "application/yaml")], "").await;
    assert_eq!(got.headers["content-type"], "application/yaml");
    assert!(String::from_utf8_lossy(&got.bytes).contains("kind: ConfigMap"));
}

#[tokio::test]
async fn tables_and_partial_objects_are_made_on_request() {
    let f = Fixture::new().await;
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = f.send("GET", CONFIG_MAPS, &[accept], "").await.expect(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let accept = ("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let list = f.send("GET", CONFIG_MAPS, &[accept], "").await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert!(list["items"][0].get("data").is_none());
}

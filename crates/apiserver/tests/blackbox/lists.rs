//! Lists: selectors, chunks, revisions, expiry.

use serde_json::{Value, json};
use store::Kv;

use crate::fixture::{CONFIG_MAPS, Fixture, PODS, config_map, pod, version};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

async fn five(f: &Fixture) {
    for (name, v) in [("a", "1"), ("b", "2"), ("c", "1"), ("d", "2"), ("e", "1")] {
        f.post(CONFIG_MAPS, &config_map(name, v)).await.expect(201);
    }
}

#[tokio::test]
async fn a_list_has_items_without_types_and_its_revision() {
    let f = Fixture::new().await;
    five(&f).await;
    let list = f.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["apiVersion"], "v1");
    assert_eq!(names(&list), ["a", "b", "c", "d", "e"]);
    assert!(list["items"][0].get("kind").is_none());
    assert_eq!(version(&list), version(&list["items"][4]));
    let empty = f.get("/api/v1/namespaces/none/configmaps").await.expect(200);
    assert_eq!(empty["items"], json!([]));
    let all = f.get("/api/v1/configmaps").await.expect(200);
    assert_eq!(names(&all), ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn selectors_choose() {
    let f = Fixture::new().await;
    five(&f).await;
    let choose = async |query: &str| {
        let list = f.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
        names(&list).join("")
    };
    assert_eq!(choose("labelSelector=v%3D1").await, "ace");
    assert_eq!(choose("labelSelector=v%20in%20(1,2),v!%3D2").await, "ace");
    assert_eq!(choose("labelSelector=!v").await, "");
    assert_eq!(choose("fieldSelector=metadata.name%3Db").await, "b");
    assert_eq!(choose("fieldSelector=metadata.name!%3Db").await, "acde");
    assert_eq!(choose("fieldSelector=metadata.namespace%3Dother").await, "");
    assert_eq!(choose("fieldSelector=metadata.namespace%3Ddefault&labelSelector=v%3D2").await, "bd");
}

#[tokio::test]
async fn pods_are_selected_by_node_and_phase() {
    let f = Fixture::new().await;
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        let mut object = pod(name);
        object["spec"]["nodeName"] = json!(node);
        f.post(PODS, &object).await.expect(201);
    }
    let list = f.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200);
    assert_eq!(names(&list), ["a"]);
    let wrong = f.get("/api/v1/pods?fieldSelector=spec.nope%3Dn1").await.expect(400);
    assert_eq!(wrong["message"], "field label not supported: spec.nope");
}

#[tokio::test]
async fn chunks_show_one_moment() {
    let f = Fixture::new().await;
    five(&f).await;
    let first = f.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    f.delete(&format!("{CONFIG_MAPS}/c"), None).await.expect(200);
    f.post(CONFIG_MAPS, &config_map("bb", "1")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = f.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["c", "d"], "the state of the first chunk");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["remainingItemCount"], 1);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = f.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["e"]);
    assert!(third["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn a_compacted_chunk_may_go_on_inconsistently() {
    let f = Fixture::new().await;
    five(&f).await;
    let first = f.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    let newer = f.post(CONFIG_MAPS, &config_map("cc", "1")).await.expect(201);
    f.store.compact(version(&newer)).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let gone = f.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.expect(410);
    assert_eq!(gone["reason"], "Expired");
    assert!(gone["message"].as_str().unwrap().starts_with("The provided continue parameter is too old"));
    let token = gone["metadata"]["continue"].as_str().unwrap();
    let rest = f.get(&format!("{CONFIG_MAPS}?continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["c", "cc", "d", "e"]);
    assert_eq!(version(&rest), version(&newer));
}

#[tokio::test]
async fn an_exact_revision_is_the_past() {
    let f = Fixture::new().await;
    five(&f).await;
    let list = f.get(CONFIG_MAPS).await.expect(200);
    let then = version(&list);
    f.delete(&format!("{CONFIG_MAPS}/a"), None).await.expect(200);
    let exact = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(names(&f.get(&exact).await.expect(200)).len(), 5);
    let newer = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&f.get(&newer).await.expect(200)).len(), 4);
    let future = f.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await.expect(504);
    assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    f.store.compact(then + 1).await.unwrap();
    assert_eq!(f.get(&exact).await.expect(410)["reason"], "Expired");
}

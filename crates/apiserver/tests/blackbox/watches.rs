//! Watches: order, selectors, resumption, expiry, bookmarks, streaming lists.

use serde_json::json;

use crate::fixture::{CONFIG_MAPS, Fixture, config_map, version};

#[tokio::test]
async fn a_watch_follows_from_its_version() {
    let f = Fixture::new().await;
    let first = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let mut events = f.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&first))).await;
    f.put(&format!("{CONFIG_MAPS}/a"), &config_map("a", "2")).await.expect(200);
    f.post(CONFIG_MAPS, &config_map("b", "1")).await.expect(201);
    f.delete(&format!("{CONFIG_MAPS}/a"), None).await.expect(200);
    assert_eq!(events.line().await, "MODIFIED a 2");
    assert_eq!(events.line().await, "ADDED b 1");
    let gone = events.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["data"]["v"], "2", "the last state");
    assert_eq!(gone["object"]["kind"], "ConfigMap");
    assert!(version(&gone["object"]) > version(&first) + 2, "with the revision of the deletion");
}

#[tokio::test]
async fn a_watch_without_a_version_starts_with_what_is_there() {
    let f = Fixture::new().await;
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    for version in ["", "&resourceVersion=0"] {
        let mut events = f.watch(&format!("{CONFIG_MAPS}?watch=true{version}&timeoutSeconds=1")).await;
        assert_eq!(events.line().await, "ADDED a 1");
        assert_eq!(events.line().await, "end");
    }
}

#[tokio::test]
async fn an_object_that_stops_matching_is_deleted_for_the_watcher() {
    let f = Fixture::new().await;
    let start = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let from = version(&start);
    let mut ones = f.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}&labelSelector=v%3D1")).await;
    let mut named =
        f.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}&fieldSelector=metadata.name%3Da")).await;
    for v in ["2", "3", "1"] {
        f.put(&format!("{CONFIG_MAPS}/a"), &config_map("a", v)).await.expect(200);
    }
    f.post(CONFIG_MAPS, &config_map("b", "1")).await.expect(201);
    let gone = ones.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["data"]["v"], "1", "the state that matched");
    assert_eq!(version(&gone["object"]), from + 1);
    assert_eq!(ones.line().await, "ADDED a 1");
    assert_eq!(ones.line().await, "ADDED b 1");
    for expect in ["MODIFIED a 2", "MODIFIED a 3", "MODIFIED a 1"] {
        assert_eq!(named.line().await, expect);
    }
}

#[tokio::test]
async fn a_version_before_the_history_is_an_error_event() {
    let f = Fixture::new().await;
    let mut events = f.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1")).await;
    // The caches were filled at a revision of 1 or less on a fresh store, so only a restart makes history short.
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    assert_eq!(events.line().await, "ADDED a 1");
    let clock = std::sync::Arc::new(base::SystemClock::new());
    let rng = Box::new(base::SeededRng::new(1));
    let second = apiserver::ApiServer::new(apiserver::ApiServerConfig::default(), f.store.clone(), clock, rng);
    second.start().await.unwrap();
    let mut request = http::Request::builder().uri(format!("{CONFIG_MAPS}?watch=1&resourceVersion=1"));
    request = request.method("GET");
    let mut request = request.body(apiserver::body::empty()).unwrap();
    request.extensions_mut().insert(crate::fixture::admin());
    let response = second.handle(request).await;
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["code"], 410);
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    second.stop();
}

#[tokio::test]
async fn a_streaming_list_ends_with_a_bookmark() {
    let f = Fixture::new().await;
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = f.watch(&format!("{CONFIG_MAPS}?{query}&timeoutSeconds=4")).await;
    assert_eq!(events.line().await, "ADDED a 1");
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(bookmark["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    f.post(CONFIG_MAPS, &config_map("b", "1")).await.expect(201);
    assert_eq!(events.line().await, "ADDED b 1");
    let last = events.next().await.unwrap();
    assert_eq!(last["type"], "BOOKMARK", "shortly before the end");
    assert_eq!(events.line().await, "end");
}

#[tokio::test]
async fn concurrent_watches_see_the_same_order() {
    let f = Fixture::new().await;
    let start = f.post(CONFIG_MAPS, &config_map("start", "0")).await.expect(201);
    let from = version(&start);
    let watch = format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}");
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(f.watch(&watch).await);
    }
    let writes = (0..40).map(|i| {
        let f = &f;
        async move { f.post(CONFIG_MAPS, &config_map(&format!("n{i}"), "1")).await.expect(201) }
    });
    futures::future::join_all(writes).await;
    let mut orders = Vec::new();
    for events in &mut watches {
        let mut order = Vec::new();
        for _ in 0..40 {
            order.push(events.line().await);
        }
        orders.push(order);
    }
    assert!(orders.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn protobuf_frames_are_length_delimited() {
    let f = Fixture::new().await;
    f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    let headers = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
    let answer = f.send("GET", &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), &headers, "").await;
    assert_eq!(answer.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let length = u32::from_be_bytes(answer.bytes[..4].try_into().unwrap()) as usize;
    assert_eq!(answer.bytes.len(), 4 + length);
    assert_eq!(&answer.bytes[4..11], b"\x0a\x05ADDED");
}

#[tokio::test]
async fn a_watch_from_the_future_waits_for_it() {
    let f = Fixture::new().await;
    let first = f.post(CONFIG_MAPS, &config_map("a", "1")).await.expect(201);
    // The next write is skipped, the one after it is not.
    let from = version(&first) + 1;
    let mut events = f.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}")).await;
    let second = f.post(CONFIG_MAPS, &config_map("b", "1")).await.expect(201);
    assert_eq!(version(&second), from);
    f.post(CONFIG_MAPS, &config_map("c", "1")).await.expect(201);
    assert_eq!(events.line().await, "ADDED c 1");
    let streaming = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=999999";
    let mut events = f.watch(&format!("{CONFIG_MAPS}?{streaming}")).await;
    let error = events.next().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&serde_json::json!("ERROR"), &serde_json::json!(504)));
}

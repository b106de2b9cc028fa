//! What must not hurt: broken bodies, unknown fields, too much of everything, bad parameters.

use serde_json::json;

use crate::fixture::{CONFIG_MAPS, Fixture, PODS, config_map, pod};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn broken_bodies_are_bad_requests() {
    let f = Fixture::new().await;
    let check = async |content_type: &str, body: &[u8], code: u16| {
        let answer = f.send("POST", CONFIG_MAPS, &[("content-type", content_type)], body.to_vec()).await;
        answer.expect(code);
    };
    check("application/json", b"{", 400).await;
    check("application/json", b"[]", 400).await;
    check("application/json", b"null", 422).await;
    check("application/json", b"\xff\xfe", 400).await;
    check("application/json", b"", 400).await;
    check("application/yaml", b"a: [b", 400).await;
    check("application/vnd.kubernetes.protobuf", b"k8s\0\x0a\xff", 400).await;
    check("application/vnd.kubernetes.protobuf", b"nope", 400).await;
    check("text/html", b"{}", 415).await;
    check("application/json", br#"{"metadata": {"name": "a"}, "data": {"v": 1}}"#, 400).await;
    check("application/json", br#"{"kind": "Pod", "metadata": {"name": "a"}}"#, 400).await;
    check("application/json", br#"{"apiVersion": "v2", "metadata": {"name": "a"}}"#, 400).await;
    check("application/json", br#"{"metadata": {}}"#, 422).await;
    assert_eq!(f.get(CONFIG_MAPS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn what_is_wrong_with_a_body_reads_as_upstream_says_it() {
    let f = Fixture::new().await;
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): ";
    let lines: [(&str, &str); 8] = [
        ("", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
        (
            "garbage",
            "couldn't get version/kind; json parse error: invalid character 'g' looking for beginning of value (67617262616765)",
        ),
        (
            r#"{"kind": 3}"#,
            "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string ({\"kind\": 3})",
        ),
        (
            r#"{"apiVersion": "a/b/c", "kind": "ConfigMap"}"#,
            "unexpected GroupVersion string: a/b/c ({\"apiVersion\": \"a/b/c\", \"kind\" ...)",
        ),
        (
            r#"{"kind": "Secret"}"#,
            "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
        (
            r#"{"kind": "Nope"}"#,
            "Nope in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nope\" is registered for version \"v1\" in scheme \"pkg/runtime/scheme.go:111\"",
        ),
        (
            r#"{"apiVersion": "apps/v1", "kind": "ConfigMap"}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"apps/v1\" in scheme \"pkg/runtime/scheme.go:111\"",
        ),
        (
            r#"{"metadata": {"name": 3}}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
        ),
    ];
    for (body, expect) in lines {
        let status = f.send("POST", CONFIG_MAPS, &[JSON], body).await.expect(400);
        let message = status["message"].as_str().unwrap();
        assert_eq!(message.trim_start_matches(unrecognized), expect, "{body}");
    }
}

#[tokio::test]
async fn every_answer_carries_its_audit_id_and_is_not_cached() {
    let f = Fixture::new().await;
    let given = f.send("GET", CONFIG_MAPS, &[("audit-id", "mine")], "").await;
    assert_eq!(given.headers["audit-id"], "mine");
    for target in [CONFIG_MAPS, "/version", "/nowhere", "/api", "/readyz"] {
        let answer = f.get(target).await;
        assert_eq!(answer.headers["audit-id"].len(), 36, "{target}");
        assert_eq!(answer.headers["cache-control"], "no-cache, private", "{target}");
    }
}

#[tokio::test]
async fn deep_nesting_is_refused() {
    let f = Fixture::new().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!("{{\"metadata\":{}1{}}}", open.repeat(100_000), close.repeat(100_000));
        let json = f.send("POST", CONFIG_MAPS, &[JSON], body.clone()).await;
        let yaml = f.send("POST", CONFIG_MAPS, &[("content-type", "application/yaml")], body).await;
        for answer in [json, yaml] {
            assert!(matches!(answer.code, 400 | 422), "{}", answer.code);
        }
    }
    assert_eq!(f.get(CONFIG_MAPS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn oversized_bodies_are_refused() {
    let f = Fixture::new().await;
    let mut object = config_map("a", "1");
    object["data"]["big"] = json!("x".repeat(3 * 1024 * 1024));
    let status = f.post(CONFIG_MAPS, &object).await.expect(413);
    assert_eq!(status["message"], "Request entity too large: limit is 3145728");
}

#[tokio::test]
async fn unknown_fields_are_as_strict_as_asked() {
    let f = Fixture::new().await;
    let body = r#"{"metadata": {"name": "a"}, "nope": 1, "data": {"v": "1", "v": "2"}}"#;
    let strict = f.send("POST", &format!("{CONFIG_MAPS}?fieldValidation=Strict"), &[JSON], body).await.expect(400);
    let message = strict["message"].as_str().unwrap();
    assert!(
        message.starts_with("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: ")
    );
    assert!(message.contains("unknown field \"nope\""), "{message}");
    let warned = f.send("POST", CONFIG_MAPS, &[JSON], body).await;
    warned.expect(201);
    assert!(warned.warnings().iter().any(|w| w == "299 - \"unknown field \\\"nope\\\"\""), "{:?}", warned.warnings());
    let body = r#"{"metadata": {"name": "b"}, "nope": 1}"#;
    let ignored = f.send("POST", &format!("{CONFIG_MAPS}?fieldValidation=Ignore"), &[JSON], body).await;
    ignored.expect(201);
    assert!(ignored.warnings().is_empty());
    f.send("POST", &format!("{CONFIG_MAPS}?fieldValidation=Maybe"), &[JSON], body).await.expect(422);
}

#[tokio::test]
async fn bad_parameters_are_refused() {
    let f = Fixture::new().await;
    let check = async |query: &str, code: u16| {
        f.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(code);
    };
    check("labelSelector=a%20b%20c", 400).await;
    check("fieldSelector=nonsense", 400).await;
    check("fieldSelector=data.v%3D1", 400).await;
    check("resourceVersion=abc", 400).await;
    check("limit=abc", 400).await;
    check("continue=%25%25", 400).await;
    check("resourceVersionMatch=Sometimes&resourceVersion=1", 422).await;
    check("watch=1&resourceVersion=-5", 500).await;
    check("watch=1&resourceVersionMatch=Exact&resourceVersion=1", 422).await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_406() {
    let f = Fixture::new().await;
    let check = async |accept: &str, code: u16| {
        assert_eq!(f.send("GET", CONFIG_MAPS, &[("accept", accept)], "").await.code, code);
    };
    check("text/html", 406).await;
    check("application/json;as=Nonsense;v=v1;g=meta.k8s.io", 406).await;
    let watch = format!("{CONFIG_MAPS}?watch=1");
    assert_eq!(f.send("GET", &watch, &[("accept", "application/yaml")], "").await.code, 406);
}

#[tokio::test]
async fn methods_that_do_not_exist_are_405() {
    let f = Fixture::new().await;
    f.post(PODS, &pod("p")).await.expect(201);
    f.send("POST", &format!("{PODS}/p/status"), &[JSON], "{}").await.expect(405);
    f.send("PUT", &format!("{PODS}/p/binding"), &[JSON], "{}").await.expect(405);
    f.send("OPTIONS", &format!("{PODS}/p"), &[], "").await.expect(405);
    f.get(&format!("{PODS}/p/nonsense")).await.expect(404);
}

#[tokio::test]
async fn an_unknown_caller_gets_no_further() {
    let f = Fixture::new().await;
    let request = http::Request::builder().uri(CONFIG_MAPS).body(apiserver::body::empty()).unwrap();
    let response = f.server.handle(request).await;
    assert_eq!(response.status(), 401);
}

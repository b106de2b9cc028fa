//! Scenarios of several managers writing one object.

use serde_json::{Value, json};

use super::*;

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        api_version: "apps/v1",
        subresource: "",
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
        message: api::schema::message("apps/v1.Deployment"),
        reset: vec![vec!["status"]],
    }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn whole(config: &Value) -> Configuration<'_> {
    Configuration { sent: config, decoded: config }
}

/// The field set of one manager; null if it has no entry.
fn fields(object: &Value, manager: &str, operation: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let found = entries.into_iter().find(|e| e["manager"] == manager && e["operation"] == operation);
    found.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

fn applied(manager: &str, live: Option<&Value>, spec: Value) -> Result<Value, String> {
    apply(&writer(manager), live, whole(&deployment(spec)), false).map_err(|e| e.to_string())
}

#[test]
fn a_creator_owns_what_it_sent() {
    let mut object = deployment(json!({"replicas": 1, "strategy": {"type": "Recreate"}, "template": {"spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}));
    object["metadata"]["labels"] = json!({"a": "b"});
    track(&writer("kubectl"), &mut object, None);
    let expect = json!({
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {"f:replicas": {}, "f:strategy": {"f:type": {}}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {".": {},
                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}});
    assert_eq!(fields(&object, "kubectl", "Update"), expect);
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["time"], "2026-01-02T03:04:05Z");
    assert_eq!(entry["apiVersion"], "apps/v1");
    assert_eq!(entry["fieldsType"], "FieldsV1");
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut live = deployment(json!({"replicas": 1, "paused": true}));
    track(&writer("one"), &mut live, None);
    let mut object = live.clone();
    object["spec"]["replicas"] = json!(2);
    track(&writer("two"), &mut object, Some(&live));
    assert_eq!(fields(&object, "one", "Update"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(fields(&object, "two", "Update"), json!({"f:spec": {"f:replicas": {}}}));
    let mut same = object.clone();
    let later = Writer { now: "2027-01-01T00:00:00Z".parse().unwrap(), ..writer("two") };
    track(&later, &mut same, Some(&object));
    assert_eq!(same, object);
}

#[test]
fn a_status_write_owns_status_only() {
    let mut live = deployment(json!({"replicas": 1}));
    track(&writer("one"), &mut live, None);
    let mut object = live.clone();
    object["spec"]["replicas"] = json!(2);
    object["status"] = json!({"replicas": 1});
    let status = Writer { subresource: "status", reset: vec![vec!["spec"]], ..writer("controller") };
    track(&status, &mut object, Some(&live));
    assert_eq!(fields(&object, "controller", "Update"), json!({"f:status": {".": {}, "f:replicas": {}}}));
    assert_eq!(fields(&object, "one", "Update"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn conflicts_name_manager_and_field() {
    let live = applied("one", None, json!({"replicas": 1})).unwrap();
    assert_eq!(
        applied("two", Some(&live), json!({"replicas": 2})).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    let mut live = deployment(json!({"replicas": 1, "paused": true}));
    track(&writer("hand"), &mut live, None);
    let error = apply(&writer("two"), Some(&live), whole(&deployment(json!({"replicas": 2, "paused": false}))), false);
    assert_eq!(
        error.unwrap_err(),
        ApplyError::Conflicts {
            message: "Apply failed with 2 conflicts: conflicts with \"hand\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
                .to_owned(),
            causes: vec![
                ("conflict with \"hand\" using apps/v1".to_owned(), ".spec.paused".to_owned()),
                ("conflict with \"hand\" using apps/v1".to_owned(), ".spec.replicas".to_owned()),
            ],
        }
    );
}

#[test]
fn force_takes_over_and_equal_values_are_shared() {
    let live = applied("one", None, json!({"replicas": 1, "paused": true})).unwrap();
    let shared = applied("two", Some(&live), json!({"replicas": 1})).unwrap();
    assert_eq!(fields(&shared, "one", "Apply"), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
    assert_eq!(fields(&shared, "two", "Apply"), json!({"f:spec": {"f:replicas": {}}}));
    let forced = apply(&writer("two"), Some(&live), whole(&deployment(json!({"replicas": 5}))), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 5);
    assert_eq!(fields(&forced, "one", "Apply"), json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn what_is_no_longer_applied_goes_unless_shared() {
    let one = applied("one", None, json!({"replicas": 1, "paused": true})).unwrap();
    let gone = applied("one", Some(&one), json!({"paused": true})).unwrap();
    assert_eq!(gone["spec"], json!({"paused": true}));
    let shared = applied("two", Some(&one), json!({"replicas": 1})).unwrap();
    let kept = applied("one", Some(&shared), json!({"paused": true})).unwrap();
    assert_eq!(kept["spec"], json!({"paused": true, "replicas": 1}));
}

#[test]
fn list_elements_merge_by_key_and_are_removed_one_by_one() {
    let containers = |list: Value| json!({"template": {"spec": {"containers": list}}});
    let live =
        applied("one", None, containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]))).unwrap();
    let both = applied("two", Some(&live), containers(json!([{"name": "c", "image": "1"}]))).unwrap();
    let names = |object: &Value| {
        let list = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&both), ["a", "b", "c"]);
    let fewer = applied("one", Some(&both), containers(json!([{"name": "b", "image": "2"}]))).unwrap();
    assert_eq!(names(&fewer), ["b", "c"]);
    assert_eq!(fewer["spec"]["template"]["spec"]["containers"][0]["image"], "2");
}

#[test]
fn default_keys_identify_elements() {
    let ports =
        |list: Value| json!({"template": {"spec": {"containers": [{"name": "a", "image": "1", "ports": list}]}}});
    let live = applied("one", None, ports(json!([{"containerPort": 80, "protocol": "TCP"}]))).unwrap();
    let same = applied("one", Some(&live), ports(json!([{"containerPort": 80, "name": "http"}]))).unwrap();
    let list = &same["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list[0]["name"], "http");
}

#[test]
fn duplicate_keys_are_malformed() {
    let spec = json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}});
    let live = deployment(json!({"template": {"spec": {"containers": [{"name": "b"}]}}}));
    let error = applied("one", Some(&live), spec).unwrap_err();
    assert!(error.ends_with("duplicate entries for key [name=\"a\"]"), "{error}");
}

#[test]
fn the_first_apply_finds_the_old_fields_owned() {
    let live = deployment(json!({"replicas": 1, "paused": true}));
    let object = applied("one", Some(&live), json!({"replicas": 1})).unwrap();
    assert_eq!(fields(&object, "before-first-apply", "Update"), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
}

#[test]
fn kubectl_moves_from_client_side_to_server_side() {
    let config = deployment(json!({"replicas": 1}));
    let mut live = config.clone();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: config.to_string()});
    track(&writer("kubectl-client-side-apply"), &mut live, None);
    let moved = apply(&writer("kubectl"), Some(&live), whole(&deployment(json!({"replicas": 2}))), false).unwrap();
    assert_eq!(moved["spec"]["replicas"], 2);
    assert!(moved["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap().contains("\"replicas\":2"));
    live["spec"]["replicas"] = json!(7);
    assert!(apply(&writer("kubectl"), Some(&live), whole(&deployment(json!({"replicas": 2}))), false).is_err());
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let first = applied("one", None, json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}})).unwrap();
    let later = Writer { now: "2027-01-01T00:00:00Z".parse().unwrap(), ..writer("one") };
    let config = deployment(json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}}));
    assert_eq!(apply(&later, Some(&first), whole(&config), false).unwrap(), first);
}

#[test]
fn at_most_ten_update_managers_are_kept() {
    let mut object = deployment(json!({}));
    object["metadata"]["labels"] = json!({"l": "0"});
    track(&writer("start"), &mut object, None);
    for number in 0..14 {
        let live = object.clone();
        object["metadata"]["labels"][format!("l{number}")] = json!("x");
        let name = format!("manager-{number:02}");
        track(&writer(&name), &mut object, Some(&live));
    }
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert!(entries.iter().any(|entry| entry["manager"] == "ancient-changes"));
}

#[test]
fn an_empty_list_from_the_client_resets_the_tracking() {
    let mut live = deployment(json!({"replicas": 1}));
    track(&writer("one"), &mut live, None);
    let mut object = live.clone();
    object["metadata"]["managedFields"] = json!([]);
    track(&writer("two"), &mut object, Some(&live));
    assert!(object["metadata"]["managedFields"].is_null());
}

#[test]
fn managers_are_named_by_option_or_agent() {
    let check = |option: &str, agent: &str, expect: &str| assert_eq!(manager_name(option, agent), expect);
    check("mine", "kubectl/v1.37", "mine");
    check("", "kubectl/v1.37 (linux)", "kubectl");
    check("", "", "");
}

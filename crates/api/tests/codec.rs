//! The codec against facts and against noise.
//!
//! `golden.txt` holds, per object, the message's name, the protobuf bytes as upstream's encoder writes them (hex) and
//! the JSON as upstream's encoder prints it. Both directions must reproduce them byte for byte. Then properties: any
//! bytes are survived, and the two receivers of a walk agree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use api::codec::{self, TypeMeta, decode_json_strict, decode_proto, encode_proto, envelope, transcode_json};
use api::schema::{self, MessageRef};
use proptest::prelude::*;
use serde_json::{Value, json};

const GOLDEN: &str = include_str!("golden.txt");

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn golden() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let lines: Vec<&str> = GOLDEN.lines().collect();
    lines.chunks(3).map(|chunk| (chunk[0], unhex(chunk[1]), chunk[2])).collect()
}

fn objects() -> Vec<(&'static str, MessageRef, Vec<u8>, &'static str)> {
    let messages = golden()
        .into_iter()
        .filter_map(|(name, bytes, json)| schema::message(name).map(|message| (name, message, bytes, json)));
    messages.collect()
}

#[test]
fn protobuf_prints_as_upstream_prints() {
    assert!(objects().len() > 20);
    for (name, message, bytes, json) in objects() {
        let mut out = Vec::new();
        transcode_json(&[&bytes], message, None, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), json, "{name}");
    }
}

#[test]
fn json_encodes_as_upstream_encodes() {
    for (name, message, bytes, json) in objects() {
        let decoded = decode_json_strict(json.as_bytes(), message).unwrap();
        assert_eq!(decoded.problems, Vec::<String>::new(), "{name}");
        let encoded = encode_proto(&decoded.value, message).unwrap();
        assert_eq!(encoded, bytes, "{name}: {json}");
    }
}

/// As upstream prints it, although OpenAPI says that there is a time.
#[test]
fn a_conditions_zero_time_is_null() {
    let condition = schema::message("meta/v1.Condition").unwrap();
    // The type is "a"; Go writes a zero time (4) as an empty message.
    for bytes in [&b"\x0a\x01a"[..], b"\x0a\x01a\x22\x00"] {
        let found = decode_proto(bytes, condition).unwrap();
        assert_eq!(found, json!({"type": "a", "status": "", "lastTransitionTime": null, "reason": "", "message": ""}));
        let mut printed = Vec::new();
        transcode_json(&[bytes], condition, None, &mut printed).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&printed).unwrap(), found);
    }
}

#[test]
fn both_receivers_agree() {
    for (name, message, bytes, json) in objects() {
        let value = decode_proto(&bytes, message).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(json).unwrap(), "{name}");
        assert_eq!(encode_proto(&value, message).unwrap(), bytes, "{name}");
    }
}

#[test]
fn the_envelope_is_upstreams() {
    let (_, bytes, _) = golden().into_iter().find(|(name, ..)| *name == "envelope").unwrap();
    let message = schema::message("core/v1.ConfigMap").unwrap();
    let value = codec::decode_object(&bytes, message).unwrap();
    assert_eq!(value, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}));
    assert_eq!(codec::encode_object(&value, message).unwrap(), bytes);
}

#[test]
fn a_second_metadata_fragment_carries_the_resource_version() {
    let (_, message, bytes, _) = objects().into_iter().find(|(name, ..)| *name == "core/v1.Secret").unwrap();
    let fragment = codec::resource_version_fragment(42);
    let mut out = Vec::new();
    let type_meta = Some(TypeMeta { api_version: "v1", kind: "Secret" });
    transcode_json(&[&bytes, &fragment], message, type_meta, &mut out).unwrap();
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["metadata"], json!({"name": "s", "resourceVersion": "42"}));
    assert!(out.starts_with(br#"{"kind":"Secret","apiVersion":"v1","metadata":"#));
    let mut enveloped = Vec::new();
    envelope::wrap(TypeMeta { api_version: "v1", kind: "Secret" }, &[&bytes, &fragment], &mut enveloped);
    assert_eq!(codec::decode_object(&enveloped, message).unwrap(), value);
}

#[test]
fn an_object_within_an_object_says_its_kind() {
    let whole = |name: &str, value: Value| {
        let message = schema::message(name).unwrap();
        decode_proto(&encode_proto(&value, message).unwrap(), message).unwrap()
    };
    let claim = json!({"metadata": {"name": "data"}});
    let set = whole("apps/v1.StatefulSet", json!({"spec": {"volumeClaimTemplates": [claim]}}));
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!((&claim["kind"], &claim["apiVersion"]), (&json!("PersistentVolumeClaim"), &json!("v1")));
    let list = whole("core/v1.PersistentVolumeClaimList", json!({"items": [claim]}));
    assert_eq!(list["items"][0]["kind"], Value::Null, "items of a list do not");
}

fn check_strict(message: &str, json: &str, expect: &[&str]) {
    let decoded = decode_json_strict(json.as_bytes(), schema::message(message).unwrap()).unwrap();
    assert_eq!(decoded.problems, expect, "{json}");
}

#[test]
fn strict_problems_have_upstreams_words() {
    check_strict("core/v1.Pod", r#"{"kind":"Pod","spec":{"foo":1}}"#, &[r#"unknown field "spec.foo""#]);
    check_strict(
        "apps/v1.Deployment",
        r#"{"spec":{"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"name":"a","x":{"y":1}}]}}}}"#,
        &[r#"duplicate field "spec.replicas""#, r#"unknown field "spec.template.spec.containers[0].x""#],
    );
    check_strict(
        "core/v1.Pod",
        r#"{"metadata":{"labels":{"a":"b","a":"c"}}}"#,
        &[r#"duplicate field "metadata.labels.a""#],
    );
    check_strict("core/v1.Pod", r#"{"Spec":{}}"#, &[r#"unknown field "Spec""#]);
    check_strict("core/v1.Pod", r#"{"kind":"Pod","kind":"Pod"}"#, &[r#"duplicate field "kind""#]);
    check_strict("apps/v1.ControllerRevision", r#"{"data":{"a":null,"b":{"any":[1]}}}"#, &[]);
    assert_eq!(codec::strict_decoding_message(&["a".to_owned(), "b".to_owned()]), "strict decoding error: a, b");
}

fn check_error(message: &str, json: &str, expect: &str) {
    let error = decode_json_strict(json.as_bytes(), schema::message(message).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), expect, "{json}");
}

#[test]
fn wrong_types_have_gos_words() {
    let deployment = "apps/v1.Deployment";
    let head = "json: cannot unmarshal";
    check_error(
        deployment,
        r#"{"spec":{"replicas":"3"}}"#,
        &format!("{head} string into Go struct field DeploymentSpec.spec.replicas of type int32"),
    );
    check_error(
        deployment,
        r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
        &format!("{head} object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"),
    );
    check_error(
        "core/v1.Pod",
        r#"{"spec":{"restartPolicy":1}}"#,
        &format!("{head} number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy"),
    );
    check_error(
        "core/v1.Pod",
        r#"{"spec":{"volumes":[{"emptyDir":[]}]}}"#,
        &format!(
            "{head} array into Go struct field Volume.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource"
        ),
    );
    check_error(
        "core/v1.ConfigMap",
        r#"{"data":{"a":1}}"#,
        &format!("{head} number into Go struct field ConfigMap.data of type string"),
    );
    check_error("core/v1.Pod", "[]", &format!("{head} array into Go value of type v1.Pod"));
    check_error(
        "core/v1.Node",
        r#"{"status":{"capacity":{"cpu":"x"}}}"#,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    check_error("core/v1.Secret", r#"{"data":{"a":"a*"}}"#, "illegal base64 data at input byte 1");
    check_error(
        deployment,
        r#"{"spec":{"replicas":3000000000}}"#,
        &format!("{head} number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"),
    );
}

#[test]
fn decoding_makes_values_normal() {
    let pod = schema::message("core/v1.Pod").unwrap();
    let json = r#"{"metadata":{"creationTimestamp":null,"deletionTimestamp":"2026-01-01T02:00:00+02:00"},
        "spec":{"containers":[null,{"resources":{"limits":{"cpu":"1000m","memory":0.5}}}],"nodeName":null}}"#;
    let value = decode_json_strict(json.as_bytes(), pod).unwrap().value;
    assert_eq!(
        value,
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{}, {"resources": {"limits": {"cpu": "1", "memory": "500m"}}}]}})
    );
}

#[test]
fn deep_nesting_is_refused() {
    let crd = schema::message("apiextensions/v1.JSONSchemaProps").unwrap();
    let deep = format!("{}{}", r#"{"not":"#.repeat(5000), "{}".to_owned() + &"}".repeat(5000));
    assert!(decode_json_strict(deep.as_bytes(), crd).is_err());
    // Tag 30 is `not`: every level wraps the one below.
    let mut bytes = Vec::new();
    for _ in 0..5000 {
        let mut outer = Vec::new();
        codec::wire::put_bytes(&mut outer, 28, &bytes);
        bytes = outer;
    }
    let not = crd.json_field("not").unwrap();
    assert_eq!(not.tag, 28);
    assert_eq!(decode_proto(&bytes, crd), Err(codec::ProtoError::Depth));
}

#[test]
fn json_schema_unions_round_trip() {
    let message = schema::message("apiextensions/v1.JSONSchemaProps").unwrap();
    let json = json!({"type": "object", "items": {"type": "string"}, "additionalProperties": false,
        "dependencies": {"a": ["b"], "c": {"type": "string"}}, "enum": [1, "x", null], "default": {"a": 1},
        "maximum": 1.5, "not": {"additionalProperties": {"type": "string"}, "items": [{"type": "string"}]},
        "x-kubernetes-preserve-unknown-fields": true});
    let decoded = decode_json_strict(json.to_string().as_bytes(), message).unwrap();
    assert_eq!((&decoded.value, decoded.problems.len()), (&json, 0));
    let bytes = encode_proto(&json, message).unwrap();
    assert_eq!(decode_proto(&bytes, message).unwrap(), json);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..600) {
        let message = schema::messages().nth(at).unwrap();
        let mut out = b"before".to_vec();
        match transcode_json(&[&bytes], message, None, &mut out) {
            Ok(()) => {
                let printed: Value = serde_json::from_slice(&out[6..]).unwrap();
                prop_assert_eq!(printed, decode_proto(&bytes, message).unwrap());
            }
            Err(_) => prop_assert_eq!(out, b"before".to_vec()),
        }
        let _ = decode_json_strict(&bytes, message);
        let _ = envelope::unwrap(&bytes);
    }

    /// A flipped byte in a real object gives another object or an error; what is printed decodes and encodes, and from
    /// then on nothing changes any more.
    #[test]
    fn damaged_objects_are_survived(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let objects = objects();
        let (_, message, bytes, _) = pick.get(&objects);
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len().max(1));
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
        let mut printed = Vec::new();
        if transcode_json(&[&bytes], *message, None, &mut printed).is_ok() {
            let again = decode_json_strict(&printed, *message).unwrap();
            prop_assert_eq!(again.problems, Vec::<String>::new());
            let encoded = encode_proto(&again.value, *message).unwrap();
            let mut printed = Vec::new();
            transcode_json(&[&encoded], *message, None, &mut printed).unwrap();
            let again = decode_json_strict(&printed, *message).unwrap();
            prop_assert_eq!(encode_proto(&again.value, *message).unwrap(), encoded);
        }
    }

    #[test]
    fn quantities_are_a_fixed_point(text in "[+-]?[0-9]{0,12}(\\.[0-9]{0,10})?(Ki|Mi|Gi|Ti|m|u|n|k|M|G|T|e3|E-2)?") {
        if let Ok(quantity) = api::quantity::Quantity::parse(&text) {
            let printed = quantity.to_string();
            let again = api::quantity::Quantity::parse(&printed).unwrap();
            prop_assert_eq!(&again, &quantity);
            prop_assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn selectors_print_what_they_parse(text in "[a-c!=, ()<>]{0,12}|[a-c]( in | notin )\\([a-c,]{0,5}\\)") {
        if let Ok(selector) = api::selector::LabelSelector::parse(&text) {
            let again = api::selector::LabelSelector::parse(&selector.to_string()).unwrap();
            prop_assert_eq!(again, selector);
        }
        let _ = api::selector::FieldSelector::parse(&text);
    }
}

//! Test words: run a write of a kind through the whole strategy and compare what it says.

use serde_json::{Value, json};

use crate::field::aggregate;
use crate::kinds::strategy_of;
use crate::strategy::{Context, Rejection, Subresource, User, Write, create, fill_metadata, update};

/// A context at a fixed time; namespaced unless the kind is not.
pub fn context(kind: &str) -> Context {
    let cluster_scoped = [
        "Namespace",
        "Node",
        "PersistentVolume",
        "ClusterRole",
        "ClusterRoleBinding",
        "PriorityClass",
        "StorageClass",
        "RuntimeClass",
        "CertificateSigningRequest",
        "CustomResourceDefinition",
        "CSIDriver",
        "CSINode",
        "VolumeAttachment",
        "IngressClass",
    ];
    Context {
        namespace: (!cluster_scoped.contains(&kind)).then(|| "ns".to_owned()),
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
        uid: "uid-1".to_owned(),
        name_suffix: "abcde".to_owned(),
        user: User { name: "jane".to_owned(), ..User::default() },
    }
}

fn named(mut object: Value) -> Value {
    if object["metadata"]["name"].is_null() && object["metadata"]["generateName"].is_null() {
        object["metadata"]["name"] = json!("x");
    }
    object
}

/// Defaults, prepares and validates a new object; the object or the text of its errors.
pub fn run_create(group: &str, version: &str, kind: &str, object: Value) -> Result<Value, String> {
    let strategy = strategy_of(group, version, kind);
    let context = context(kind);
    let mut object = named(object);
    strategy.default(&mut object)?;
    fill_metadata(&context, &mut object).map_err(words)?;
    create(strategy, &context, &mut object).map_err(words)?;
    Ok(object)
}

/// Defaults, prepares and validates a change; both objects get the system's metadata first.
pub fn run_update(
    (group, version, kind): (&str, &str, &str),
    sub: Subresource,
    object: Value,
    old: Value,
) -> Result<Value, String> {
    let strategy = strategy_of(group, version, kind);
    let context = context(kind);
    let prepare = |value: Value| -> Result<Value, String> {
        let mut value = named(value);
        strategy.default(&mut value)?;
        let meta = &mut value["metadata"];
        meta["uid"] = json!("uid-1");
        meta["resourceVersion"] = json!("7");
        if let Some(namespace) = &context.namespace {
            meta["namespace"] = json!(namespace);
        }
        Ok(value)
    };
    let mut object = prepare(object)?;
    let old = prepare(old)?;
    update(strategy, &Write { context: &context, sub }, &mut object, &old).map_err(words)?;
    Ok(object)
}

/// `expect` is the text of the errors, `""` if there are none.
#[track_caller]
pub fn check_create(group: &str, version: &str, kind: &str, object: Value, expect: &str) {
    let found = run_create(group, version, kind, object.clone()).err().unwrap_or_default();
    assert_eq!(found, expect, "{object}");
}

/// `expect` is the text of the errors of changing `old` into `object`, `""` if there are none.
#[track_caller]
pub fn check_update(group: &str, version: &str, kind: &str, object: Value, old: Value, expect: &str) {
    let found = run_update((group, version, kind), Subresource::Main, object.clone(), old).err().unwrap_or_default();
    assert_eq!(found, expect, "{object}");
}

fn words(rejection: Rejection) -> String {
    match rejection {
        Rejection::BadRequest(text) => text,
        Rejection::Invalid(errors) => aggregate(&errors),
    }
}

/// Creates a pod whose spec is `spec` merged over a minimal valid one; the text of its errors is `expect`.
#[track_caller]
pub fn check_pod(spec: Value, expect: &str) {
    let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    check_create("", "v1", "Pod", pod, expect);
}

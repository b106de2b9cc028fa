//! The roles and bindings that every cluster has, and how they are kept at start.
//!
//! In: `defaults.txt` (its head explains the format) and what the cluster holds. Out: [`plan_reconcile`], the writes that
//! are missing; [`apply`], which makes them through the API.
//!
//! Rules (upstream's): missing rules, subjects, labels and annotations are added; nothing is taken away; an object whose
//! annotation `rbac.authorization.kubernetes.io/autoupdate` is `false` is left alone; a binding to another role is
//! deleted and made anew, since `roleRef` cannot change. Planning on the result plans nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::rule::find_missing;
use super::{GROUP, Rule, tables};
use crate::reader::Reader;

const TEXT: &str = include_str!("defaults.txt");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// One write; the object carries kind, namespace and name.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Create(Value),
    Update(Value),
    /// Delete what is there under this name, then create.
    Recreate(Value),
}

/// The default objects, roles before bindings.
pub fn parse_defaults() -> Result<Vec<Value>, String> {
    parse(TEXT)
}

/// What is missing in the cluster that `reader` shows.
pub fn plan_reconcile(reader: &dyn Reader) -> Result<Vec<Write>, String> {
    let mut desired = parse_defaults()?;
    fill_aggregated(&mut desired);
    Ok(desired.into_iter().filter_map(|object| plan_object(object, reader)).collect())
}

fn plan_object(desired: Value, reader: &dyn Reader) -> Option<Write> {
    let (namespace, name) = (text(&desired["metadata"]["namespace"]), text(&desired["metadata"]["name"]));
    let Some(existing) = reader.get(GROUP, resource_of(&desired), namespace, name) else {
        return Some(Write::Create(desired));
    };
    if existing["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let is_binding = desired.get("roleRef").is_some();
    if is_binding && existing["roleRef"] != desired["roleRef"] {
        return Some(Write::Recreate(desired));
    }
    let mut merged = Value::clone(&existing);
    for field in ["labels", "annotations"] {
        for (key, value) in desired["metadata"][field].as_object().into_iter().flatten() {
            if merged["metadata"][field].get(key).is_none() {
                merged["metadata"][field][key] = value.clone();
            }
        }
    }
    if is_binding {
        add_missing(&mut merged["subjects"], &desired["subjects"], |held, wanted| held.contains(wanted));
    } else {
        add_missing(&mut merged["rules"], &desired["rules"], |held, wanted| {
            let held: Vec<Rule> = held.iter().map(Rule::parse).collect();
            find_missing(&held, &[Rule::parse(wanted)]).is_empty()
        });
        if merged.get("aggregationRule").is_none_or(Value::is_null) && desired.get("aggregationRule").is_some() {
            merged["aggregationRule"] = desired["aggregationRule"].clone();
        }
    }
    (merged != *existing).then_some(Write::Update(merged))
}

fn add_missing(held: &mut Value, wanted: &Value, includes: impl Fn(&[Value], &Value) -> bool) {
    let mut list = held.as_array().cloned().unwrap_or_default();
    let before = list.len();
    for item in wanted.as_array().into_iter().flatten() {
        if !includes(&list, item) {
            list.push(item.clone());
        }
    }
    if list.len() > before {
        *held = Value::Array(list);
    }
}

/// Aggregated roles get the rules they gather, as the aggregation controller would write them.
fn fill_aggregated(objects: &mut [Value]) {
    let snapshot = objects.to_vec();
    let by_name: BTreeMap<String, &Value> = snapshot
        .iter()
        .filter(|object| object["kind"] == "ClusterRole")
        .map(|object| (text(&object["metadata"]["name"]).to_owned(), object))
        .collect();
    for object in objects.iter_mut().filter(|object| object.get("aggregationRule").is_some()) {
        let rules = tables::gather(text(&object["metadata"]["name"]), &by_name);
        object["rules"] = rules.iter().map(Rule::to_value).collect();
    }
}

/// Applies [`plan_reconcile`] through the API. A write that loses against another one is left to the next start; every
/// other failure is returned after all writes were tried.
pub async fn apply(client: &kube::Client, reader: Arc<dyn Reader>) -> Result<usize, ApplyError> {
    let writes = plan_reconcile(&*reader).map_err(ApplyError::Data)?;
    let count = writes.len();
    let mut failed = None;
    for write in writes {
        if let Err(error) = apply_one(client, &write).await {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot write a default role or binding");
            failed = Some(error);
        }
    }
    failed.map_or(Ok(count), Err)
}

/// Why the default roles are not all there.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("the built-in default roles are unreadable: {0}")]
    Data(String),
    #[error("cannot build the request for {path}")]
    Request { path: String, source: http::Error },
    #[error("cannot write {path}")]
    Write { path: String, source: Box<kube::Error> },
}

async fn apply_one(client: &kube::Client, write: &Write) -> Result<(), ApplyError> {
    match write {
        Write::Create(object) => send(client, "POST", &collection_path(object), object).await,
        Write::Update(object) => send(client, "PUT", &object_path(object), object).await,
        Write::Recreate(object) => {
            send(client, "DELETE", &object_path(object), &json!({"kind": "DeleteOptions", "apiVersion": "v1"})).await?;
            send(client, "POST", &collection_path(object), object).await
        }
    }
}

async fn send(client: &kube::Client, method: &str, path: &str, body: &Value) -> Result<(), ApplyError> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|source| ApplyError::Request { path: path.to_owned(), source })?;
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(source) => Err(ApplyError::Write { path: path.to_owned(), source: Box::new(source) }),
    }
}

fn collection_path(object: &Value) -> String {
    let resource = resource_of(object);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/apis/{GROUP}/v1/namespaces/{namespace}/{resource}"),
        None => format!("/apis/{GROUP}/v1/{resource}"),
    }
}

fn object_path(object: &Value) -> String {
    format!("{}/{}", collection_path(object), text(&object["metadata"]["name"]))
}

fn resource_of(object: &Value) -> &'static str {
    match object["kind"].as_str() {
        Some("ClusterRole") => "clusterroles",
        Some("Role") => "roles",
        Some("ClusterRoleBinding") => "clusterrolebindings",
        _ => "rolebindings",
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn parse(text: &str) -> Result<Vec<Value>, String> {
    let mut objects: Vec<Value> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty()) {
        let problem = || format!("line {}: {line:?}", number + 1);
        match line.strip_prefix("  ") {
            None => objects.push(parse_head(line).ok_or_else(problem)?),
            Some(item) => {
                let (field, value) = parse_item(item).ok_or_else(problem)?;
                let object = objects.last_mut().ok_or_else(problem)?;
                object[field].as_array_mut().ok_or_else(problem)?.push(value);
            }
        }
    }
    Ok(objects)
}

fn parse_head(line: &str) -> Option<Value> {
    let mut words = line.split(' ');
    let (kind, path) = (words.next()?, words.next()?);
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "annotations": {AUTOUPDATE: "true"},
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        },
    });
    match kind {
        "Role" | "RoleBinding" => {
            let (namespace, name) = path.split_once('/')?;
            object["metadata"]["namespace"] = namespace.into();
            object["metadata"]["name"] = name.into();
        }
        _ => object["metadata"]["name"] = path.into(),
    }
    if kind.ends_with("Binding") {
        let ("to", role_kind, role) = (words.next()?, words.next()?, words.next()?) else { return None };
        object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
        object["subjects"] = json!([]);
        return Some(object);
    }
    object["rules"] = json!([]);
    for word in words {
        match word.split_once('=')? {
            ("aggregated-to", label) => object["metadata"]["labels"][format!("{AGGREGATE}{label}")] = "true".into(),
            ("aggregates", label) => {
                let selector = json!({"matchLabels": {format!("{AGGREGATE}{label}"): "true"}});
                object["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
            }
            _ => return None,
        }
    }
    Some(object)
}

fn parse_item(item: &str) -> Option<(&'static str, Value)> {
    let list = |word: &str| -> Vec<String> { word.split(',').map(str::to_owned).collect() };
    let words: Vec<&str> = item.split(' ').collect();
    let subject = |kind: &str, name: &str| json!({"apiGroup": GROUP, "kind": kind, "name": name});
    Some(match words.as_slice() {
        [kind @ ("Group" | "User"), name] => ("subjects", subject(kind, name)),
        ["ServiceAccount", path] => {
            let (namespace, name) = path.split_once('/')?;
            ("subjects", json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}))
        }
        [verbs, "url", urls] => ("rules", Rule { urls: list(urls), verbs: list(verbs), ..Rule::default() }.to_value()),
        [verbs, "of", groups, resources, rest @ ..] => {
            let groups = list(groups).into_iter().map(|g| if g == "core" { String::new() } else { g }).collect();
            let names = match rest {
                [] => Vec::new(),
                ["named", names] => list(names),
                _ => return None,
            };
            (
                "rules",
                Rule { groups, resources: list(resources), urls: Vec::new(), names, verbs: list(verbs) }.to_value(),
            )
        }
        _ => return None,
    })
}

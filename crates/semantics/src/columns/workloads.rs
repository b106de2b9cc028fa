//! Rows of what makes Pods: deployments, replica sets and their like.

use api::selector::LabelSelector;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, NAME, age, at, integer, labels_at, list, name_of, number, or, text, value_at, wide};

const CONTAINERS: Column = wide("Containers");
const IMAGES: Column = wide("Images");
const SELECTOR: Column = wide("Selector");

pub(super) const DEPLOYMENT: &[Column] =
    &[NAME, text("Ready"), text("Up-to-date"), text("Available"), text("Age"), CONTAINERS, IMAGES, SELECTOR];

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, "spec.template.spec.containers");
    vec![
        name_of(object),
        ready_of_desired(object),
        json!(number(object, "status.updatedReplicas")),
        json!(number(object, "status.availableReplicas")),
        age::of(object, now),
        names,
        images,
        selector(object, "<invalid>", ""),
    ]
}

/// Of replica sets and replication controllers.
pub(super) const REPLICA_SET: &[Column] =
    &[NAME, integer("Desired"), integer("Current"), integer("Ready"), text("Age"), CONTAINERS, IMAGES, SELECTOR];

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, "spec.template.spec.containers");
    // A replication controller's selector is a plain map of labels.
    let plain = value_at(object, "spec.selector")
        .is_some_and(|selector| selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none());
    let shown = if plain { labels_at(object, "spec.selector") } else { selector(object, "<error>", "<none>") };
    vec![
        name_of(object),
        json!(number(object, "spec.replicas")),
        json!(number(object, "status.replicas")),
        json!(number(object, "status.readyReplicas")),
        age::of(object, now),
        names,
        images,
        shown,
    ]
}

pub(super) const STATEFUL_SET: &[Column] = &[NAME, text("Ready"), text("Age"), CONTAINERS, IMAGES];

pub(super) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, "spec.template.spec.containers");
    vec![name_of(object), ready_of_desired(object), age::of(object, now), names, images]
}

pub(super) const DAEMON_SET: &[Column] = &[
    NAME,
    integer("Desired"),
    integer("Current"),
    integer("Ready"),
    integer("Up-to-date"),
    integer("Available"),
    text("Node Selector"),
    text("Age"),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, "spec.template.spec.containers");
    let status = |field: &str| json!(number(object, &format!("status.{field}")));
    vec![
        name_of(object),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        labels_at(object, "spec.template.spec.nodeSelector"),
        age::of(object, now),
        names,
        images,
        selector(object, "<error>", "<none>"),
    ]
}

pub(super) const POD_TEMPLATE: &[Column] = &[NAME, text("Containers"), text("Images"), text("Pod Labels")];

pub(super) fn pod_template(object: &Value, _now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(object, "template.spec.containers");
    vec![name_of(object), names, images, labels_at(object, "template.metadata.labels")]
}

pub(super) const REVISION: &[Column] = &[NAME, text("Controller"), text("Revision"), text("Age")];

pub(super) fn revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = api::meta::owner_references(object);
    let controller = owners.iter().find(|owner| owner.controller).map_or("<none>".to_owned(), |owner| {
        let (group, _) = api::kinds::split_api_version(&owner.api_version);
        let group = if group.is_empty() { String::new() } else { format!(".{group}") };
        format!("{}{group}/{}", owner.kind.to_lowercase(), owner.name)
    });
    vec![name_of(object), json!(controller), json!(number(object, "revision")), age::of(object, now)]
}

/// `2/3`: ready of desired.
fn ready_of_desired(object: &Value) -> Value {
    json!(format!("{}/{}", number(object, "status.readyReplicas"), number(object, "spec.replicas")))
}

/// Names and images, each joined by commas.
fn containers(object: &Value, path: &str) -> (Value, Value) {
    let join = |field: &str| {
        let words: Vec<&str> = list(object, path).iter().map(|container| at(container, field)).collect();
        json!(words.join(","))
    };
    (join("name"), join("image"))
}

fn selector(object: &Value, invalid: &str, none: &str) -> Value {
    let shown = LabelSelector::from_value(value_at(object, "spec.selector").unwrap_or(&Value::Null));
    json!(shown.map_or(invalid.to_owned(), |selector| or(&selector.to_string(), none).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_and_its_replica_set() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}}},
            "status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}});
        let expect = json!(["web", "2/3", 3, 2, "60s", "a,b", "x,y", "app=web"]);
        assert_eq!(Value::from(deployment(&object, now)), expect);
        let expect = json!(["web", 3, 3, 2, "60s", "a,b", "x,y", "app=web"]);
        assert_eq!(Value::from(replica_set(&object, now)), expect);
    }

    #[test]
    fn a_revision_names_its_controller() {
        let object = json!({"metadata": {"name": "r", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true}]}, "revision": 4});
        let expect = json!(["r", "daemonset.apps/d", 4, "<unknown>"]);
        assert_eq!(Value::from(revision(&object, Timestamp::UNIX_EPOCH)), expect);
    }
}

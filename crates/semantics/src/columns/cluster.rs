//! Rows of nodes, namespaces, events, configuration, quotas, leases and role bindings.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, NAME, age, at, list, map_at, name_of, number, or, text, value_at, wide};

pub(super) const NODE: &[Column] = &[
    NAME,
    text("Status"),
    text("Roles"),
    text("Age"),
    text("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

pub(super) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field: &str| at(object, &format!("status.nodeInfo.{field}")).to_owned();
    let known = |field: &str| or(&info(field), "<unknown>").to_owned();
    let architecture = info("architecture");
    let suffix = if architecture.is_empty() { String::new() } else { format!(" ({architecture})") };
    vec![
        name_of(object),
        json!(node_status(object)),
        json!(node_roles(object)),
        age::of(object, now),
        json!(info("kubeletVersion")),
        node_address(object, "InternalIP"),
        node_address(object, "ExternalIP"),
        json!(known("osImage")),
        json!(format!("{}{suffix}", known("kernelVersion"))),
        json!(known("containerRuntimeVersion")),
    ]
}

fn node_status(object: &Value) -> String {
    let ready = list(object, "status.conditions").iter().rfind(|condition| condition["type"] == "Ready");
    let word = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = value_at(object, "spec.unschedulable").and_then(Value::as_bool) == Some(true);
    if cordoned { format!("{word},SchedulingDisabled") } else { word.to_owned() }
}

fn node_roles(object: &Value) -> String {
    let roles: BTreeSet<&str> = api::meta::labels(object)
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(value),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    or(&roles.into_iter().collect::<Vec<_>>().join(","), "<none>").to_owned()
}

fn node_address(object: &Value, ty: &str) -> Value {
    let address = list(object, "status.addresses").iter().find(|address| address["type"] == ty);
    json!(address.map_or("<none>", |address| at(address, "address")))
}

pub(super) const NAMESPACE: &[Column] = &[NAME, text("Status"), text("Age")];

pub(super) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name_of(object), json!(at(object, "status.phase")), age::of(object, now)]
}

pub(super) const EVENT: &[Column] = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Subobject"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    wide("Count"),
    Column { name: "Name", ty: "string", format: "name", priority: 1 },
];

/// Core events and events of `events.k8s.io`, which have other names for the same fields.
pub(super) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &str, new: &str| or(at(object, core), at(object, new)).to_owned();
    let event_time = at(object, "eventTime").to_owned();
    let first = age::since(or(&either("firstTimestamp", "deprecatedFirstTimestamp"), &event_time), now);
    let last_time = either("lastTimestamp", "deprecatedLastTimestamp");
    let series = value_at(object, "series");
    let last = match series {
        Some(series) => age::since(at(series, "lastObservedTime"), now),
        None if last_time.is_empty() => first.clone(),
        None => age::since(&last_time, now),
    };
    let plain_count = number(object, "count").max(number(object, "deprecatedCount"));
    let count = series.map_or(plain_count.max(1), |series| number(series, "count"));
    let kind = either("involvedObject.kind", "regarding.kind").to_lowercase();
    let name = either("involvedObject.name", "regarding.name");
    let target = if name.is_empty() { kind } else { format!("{kind}/{name}") };
    vec![
        json!(last),
        json!(at(object, "type")),
        json!(at(object, "reason")),
        json!(target),
        json!(either("involvedObject.fieldPath", "regarding.fieldPath")),
        json!(event_source(object)),
        json!(either("message", "note").trim()),
        json!(first),
        json!(count),
        name_of(object),
    ]
}

/// `component, instance`.
fn event_source(object: &Value) -> String {
    let first =
        |paths: &[&str]| paths.iter().map(|path| at(object, path)).find(|text| !text.is_empty()).unwrap_or_default();
    let component =
        first(&["source.component", "deprecatedSource.component", "reportingComponent", "reportingController"]);
    let instance = first(&["source.host", "deprecatedSource.host", "reportingInstance"]);
    if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") }
}

pub(super) const CONFIG_MAP: &[Column] = &[NAME, text("Data"), text("Age")];

pub(super) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name_of(object), json!(count(object, "data") + count(object, "binaryData")), age::of(object, now)]
}

pub(super) const SECRET: &[Column] = &[NAME, text("Type"), text("Data"), text("Age")];

pub(super) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name_of(object), json!(at(object, "type")), json!(count(object, "data")), age::of(object, now)]
}

fn count(object: &Value, path: &str) -> usize {
    map_at(object, path).map_or(0, serde_json::Map::len)
}

pub(super) const SERVICE_ACCOUNT: &[Column] = &[NAME, text("Age")];

pub(super) fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name_of(object), age::of(object, now)]
}

pub(super) const LEASE: &[Column] = &[NAME, text("Holder"), text("Age")];

pub(super) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name_of(object), json!(at(object, "spec.holderIdentity")), age::of(object, now)]
}

pub(super) const QUOTA: &[Column] = &[NAME, text("Request"), text("Limit"), text("Age")];

pub(super) fn quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in map_at(object, "status.hard").into_iter().flatten() {
        let used = map_at(object, "status.used").and_then(|used| used.get(resource)).and_then(Value::as_str);
        let entry = format!("{resource}: {}/{}", used.unwrap_or("0"), hard.as_str().unwrap_or_default());
        if resource.starts_with("limits.") { limits.push(entry) } else { requests.push(entry) }
    }
    vec![name_of(object), json!(requests.join(", ")), json!(limits.join(", ")), age::of(object, now)]
}

pub(super) const COMPONENT_STATUS: &[Column] = &[NAME, text("Status"), text("Message"), text("Error")];

pub(super) fn component_status(object: &Value, _now: Timestamp) -> Vec<Value> {
    let healthy = list(object, "conditions").iter().find(|condition| condition["type"] == "Healthy");
    let status = match healthy {
        Some(condition) if condition["status"] == "True" => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let word = |field: &str| json!(healthy.map(|condition| at(condition, field)).unwrap_or_default());
    vec![name_of(object), json!(status), word("message"), word("error")]
}

/// Of role bindings and cluster role bindings.
pub(super) const BINDING: &[Column] =
    &[NAME, text("Role"), text("Age"), wide("Users"), wide("Groups"), wide("ServiceAccounts")];

pub(super) fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let of_kind = list(object, "subjects").iter().filter(|subject| subject["kind"] == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", at(subject, "namespace"), at(subject, "name")),
                _ => at(subject, "name").to_owned(),
            })
            .collect();
        json!(names.join(", "))
    };
    let role = format!("{}/{}", at(object, "roleRef.kind"), at(object, "roleRef.name"));
    let (users, groups, accounts) = (subjects("User"), subjects("Group"), subjects("ServiceAccount"));
    vec![name_of(object), json!(role), age::of(object, now), users, groups, accounts]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordoned_node() {
        let object = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.2", "kernelVersion": "6.1", "architecture": "amd64"}}});
        let expect = json!([
            "n",
            "Ready,SchedulingDisabled",
            "control-plane",
            "<unknown>",
            "v1.37.2",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "6.1 (amd64)",
            "<unknown>"
        ]);
        assert_eq!(Value::from(node(&object, Timestamp::UNIX_EPOCH)), expect);
    }

    #[test]
    fn both_kinds_of_events_look_alike() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let core = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "type": "Normal",
            "reason": "Pulled", "message": "ok\n", "source": {"component": "kubelet", "host": "n"}, "count": 2,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:50Z"});
        let new = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p"}, "type": "Normal",
            "reason": "Pulled", "note": "ok\n", "deprecatedSource": {"component": "kubelet", "host": "n"},
            "deprecatedCount": 2, "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z",
            "deprecatedLastTimestamp": "2026-01-01T00:00:50Z"});
        let expect = json!(["10s", "Normal", "Pulled", "pod/p", "", "kubelet, n", "ok", "60s", 2, "e"]);
        assert_eq!(Value::from(event(&core, now)), expect);
        assert_eq!(Value::from(event(&new, now)), expect);
    }

    #[test]
    fn bindings_and_quotas() {
        let object = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "d"}]});
        let expect = json!(["b", "Role/r", "<unknown>", "u", "", "d/s"]);
        assert_eq!(Value::from(binding(&object, Timestamp::UNIX_EPOCH)), expect);
        let object = json!({"metadata": {"name": "q"}, "status": {"hard": {"limits.cpu": "2", "pods": "4"},
            "used": {"pods": "1"}}});
        let expect = json!(["q", "pods: 1/4", "limits.cpu: 0/2", "<unknown>"]);
        assert_eq!(Value::from(quota(&object, Timestamp::UNIX_EPOCH)), expect);
    }
}

//! Discovery documents: the kinds table -> what `/api`, `/apis` and below answer.
//!
//! Two forms: legacy (one document per path) and aggregated (`APIGroupDiscoveryList` on `/api` and `/apis`), chosen by
//! [`negotiate`] from the Accept header. Pure: the same kinds give the same documents and the same [`etag`].
//! Upstream's order is kept: groups as in the table, resources sorted by name within a version.

use api::kinds::{Kind, Subresource, split_api_version};
use base64::Engine as _;
use serde_json::{Map, Value, json};

/// Content type of the aggregated form, as far as all versions share it.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io";

/// What the client wants from `/api` and `/apis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `APIVersions` and `APIGroupList`.
    Legacy,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`.
    AggregatedV2,
    /// The same document under its beta version, which clients before 1.30 ask for.
    AggregatedV2Beta1,
}

impl Form {
    /// The Content-Type of the answer.
    pub fn content_type(self) -> String {
        match self {
            Form::Legacy => "application/json".to_owned(),
            Form::AggregatedV2 => format!("{AGGREGATED};v=v2;as=APIGroupDiscoveryList"),
            Form::AggregatedV2Beta1 => format!("{AGGREGATED};v=v2beta1;as=APIGroupDiscoveryList"),
        }
    }
}

/// Picks the form from an Accept header: the first clause that can be served wins; none at all means legacy.
pub fn negotiate(accept: &str) -> Form {
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if !matches!(media_type, "application/json" | "application/*" | "*/*") {
            continue;
        }
        let parameters: Vec<&str> = parts.collect();
        let has = |parameter: &str| parameters.contains(&parameter);
        if !parameters.iter().any(|parameter| parameter.starts_with("as=")) {
            return Form::Legacy;
        }
        if has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io") {
            if has("v=v2") {
                return Form::AggregatedV2;
            }
            if has("v=v2beta1") {
                return Form::AggregatedV2Beta1;
            }
        }
    }
    Form::Legacy
}

/// The ETag of a document, without quotes.
pub fn etag(document: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, document);
    digest.as_ref().iter().fold(String::new(), |mut out, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(out, "{byte:02X}");
        out
    })
}

/// `/api`: the versions of the core group. `server_address` is `host:port` as clients reach it.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`: all groups but core.
pub fn group_list(kinds: &[Kind]) -> Value {
    let groups: Vec<Value> = groups(kinds).iter().filter(|g| !g.name.is_empty()).map(Group::to_value).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; `None` when there is no such group.
pub fn group(kinds: &[Kind], name: &str) -> Option<Value> {
    let found = groups(kinds).into_iter().find(|group| group.name == name && !name.is_empty())?;
    let mut value = found.to_value();
    value["kind"] = Value::from("APIGroup");
    value["apiVersion"] = Value::from("v1");
    Some(value)
}

/// `/api/v1` and `/apis/GROUP/VERSION`; `None` when nothing is served there.
pub fn resource_list(kinds: &[Kind], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.group == group && kind.version == version) {
        resources.push(resource(kind));
        resources.extend(kind.subresources.iter().map(|subresource| subresource_entry(kind, subresource)));
    }
    let first = kinds.iter().find(|kind| kind.group == group && kind.version == version)?;
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let mut list = json!({"kind": "APIResourceList", "groupVersion": first.api_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = Value::from("v1");
    }
    Some(list)
}

/// The aggregated form of `/api` (`core`) or `/apis`.
pub fn aggregated(kinds: &[Kind], core: bool, form: Form) -> Value {
    let version = if form == Form::AggregatedV2Beta1 { "v2beta1" } else { "v2" };
    let items: Vec<Value> = groups(kinds)
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| group.to_aggregated(kinds))
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

/// A group with its versions, preferred one first.
struct Group {
    name: &'static str,
    versions: Vec<(&'static str, &'static str)>,
}

fn groups(kinds: &[Kind]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for kind in kinds {
        let version = (kind.api_version, kind.version);
        match groups.iter_mut().find(|group| group.name == kind.group) {
            Some(group) if group.versions.contains(&version) => {}
            Some(group) => group.versions.push(version),
            None => groups.push(Group { name: kind.group, versions: vec![version] }),
        }
    }
    groups
}

impl Group {
    fn to_value(&self) -> Value {
        let version = |(api_version, version): &(&str, &str)| json!({"groupVersion": api_version, "version": version});
        json!({
            "name": self.name,
            "versions": self.versions.iter().map(version).collect::<Vec<_>>(),
            "preferredVersion": self.versions.first().map(version),
        })
    }

    fn to_aggregated(&self, kinds: &[Kind]) -> Value {
        let versions = self.versions.iter().map(|(api_version, version)| {
            let mut resources: Vec<Value> =
                kinds.iter().filter(|kind| kind.api_version == *api_version).map(aggregated_resource).collect();
            resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
            json!({"version": version, "resources": resources, "freshness": "Current"})
        });
        let metadata = if self.name.is_empty() { json!({}) } else { json!({"name": self.name}) };
        json!({"metadata": metadata, "versions": versions.collect::<Vec<_>>()})
    }
}

fn resource(kind: &Kind) -> Value {
    let mut value = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    put_names(&mut value, kind);
    if kind.is_stored() {
        value["storageVersionHash"] = Value::from(storage_version_hash(kind));
    }
    value
}

fn put_names(value: &mut Value, kind: &Kind) {
    if !kind.short_names.is_empty() {
        value["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        value["categories"] = json!(kind.categories);
    }
}

/// The first 8 bytes of SHA-256 over `group/version/kind` of the stored version, as clients compare it.
fn storage_version_hash(kind: &Kind) -> String {
    let (group, version) = split_api_version(kind.storage_api_version);
    let text = format!("{group}/{version}/{}", kind.kind);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

fn subresource_entry(kind: &Kind, subresource: &Subresource) -> Value {
    let (api_version, body_kind) = subresource.body_kind(kind);
    let mut value = json!({
        "name": format!("{}/{}", kind.plural, subresource.name),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": body_kind,
        "verbs": subresource.verbs,
    });
    if api_version != kind.api_version {
        let (group, version) = split_api_version(api_version);
        value["group"] = Value::from(group);
        value["version"] = Value::from(version);
    }
    value
}

fn aggregated_resource(kind: &Kind) -> Value {
    let mut value = json!({
        "resource": kind.plural,
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    put_names(&mut value, kind);
    let subresources: Vec<Value> = kind.subresources.iter().map(|sub| aggregated_subresource(kind, sub)).collect();
    if !subresources.is_empty() {
        value["subresources"] = Value::from(subresources);
    }
    value
}

fn aggregated_subresource(kind: &Kind, subresource: &Subresource) -> Value {
    let (api_version, body_kind) = subresource.body_kind(kind);
    let (group, version) = if api_version == kind.api_version { ("", "") } else { split_api_version(api_version) };
    let mut value = Map::new();
    value.insert("subresource".to_owned(), Value::from(subresource.name));
    value.insert("responseKind".to_owned(), json!({"group": group, "version": version, "kind": body_kind}));
    value.insert("verbs".to_owned(), json!(subresource.verbs));
    Value::Object(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;

    #[test]
    fn negotiation() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!(negotiate(&format!("{v2},application/json")), Form::AggregatedV2);
        assert_eq!(negotiate(&format!("{v2};profile=nopeer,{v2}")), Form::AggregatedV2);
        assert_eq!(negotiate(&v2.replace("v=v2", "v=v2beta1")), Form::AggregatedV2Beta1);
        assert_eq!(negotiate("application/json"), Form::Legacy);
        assert_eq!(negotiate(""), Form::Legacy);
        assert_eq!(negotiate("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Form::Legacy);
    }

    #[test]
    fn resources_and_subresources_are_listed() {
        let list = resource_list(kinds::all(), "", "v1").unwrap();
        let entry = |name: &str| list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap();
        assert_eq!(entry("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
        assert_eq!(entry("pods/eviction")["group"], "policy");
        assert_eq!(entry("serviceaccounts/token")["kind"], "TokenRequest");
        assert_eq!(entry("pods")["shortNames"], json!(["po"]));
        assert!(entry("bindings").get("storageVersionHash").is_none());
        assert!(resource_list(kinds::all(), "apps", "v2").is_none());
    }

    #[test]
    fn groups_have_a_preferred_version() {
        assert_eq!(group(kinds::all(), "apps").unwrap()["preferredVersion"]["groupVersion"], "apps/v1");
        assert!(group(kinds::all(), "").is_none());
        let groups = group_list(kinds::all());
        assert_eq!(groups["groups"][0]["name"], "apps");
    }

    #[test]
    fn aggregated_documents_hold_every_kind_once() {
        let count = |core| {
            let document = aggregated(kinds::all(), core, Form::AggregatedV2);
            let items = document["items"].as_array().unwrap().clone();
            let versions = items.iter().flat_map(|item| item["versions"].as_array().unwrap().clone());
            versions.map(|version| version["resources"].as_array().unwrap().len()).sum::<usize>()
        };
        assert_eq!(count(true) + count(false), kinds::all().len());
        let document = aggregated(kinds::all(), false, Form::AggregatedV2Beta1);
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    }
}

//! OpenAPI documents: the kinds table and the schema table -> `/openapi/v2` and `/openapi/v3`.
//!
//! v3 is an index ([`v3_index`]) and one document per group-version ([`v3_document`]); v2 is one document
//! ([`v2_document`]) that clients read as JSON or as gnostic protobuf ([`v2_protobuf`]). Pure and deterministic; building
//! takes tens of milliseconds, so the caller builds on first demand and keeps the bytes. The hash in the index depends on
//! what documents are made of, so that answering the index builds no document.
//! Descriptions are not there: they are upstream's prose.

mod definitions;
mod gnostic;
mod paths;

use std::collections::BTreeSet;

use api::kinds::Kind;
use api::schema::MessageRef;
use serde_json::{Value, json};

use crate::discovery::etag;

/// The protobuf form of version 2, as answers name it; JSON is served for anything else.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The two dialects of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, definition: &str) -> Value {
        let home = match self {
            Dialect::V2 => "#/definitions",
            Dialect::V3 => "#/components/schemas",
        };
        json!({"$ref": format!("{home}/{definition}")})
    }
}

/// `/openapi/v3`: where the document of each group-version is. `release` names the build, such as `v1.37.2+holdfast`.
pub fn v3_index(kinds: &[Kind], release: &str) -> Value {
    let mut paths = serde_json::Map::new();
    for path in v3_paths(kinds) {
        let url = format!("/openapi/v3/{path}?hash={}", v3_hash(&path, release));
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The hash of one document, by its path in the index (`api/v1`, `apis/apps/v1`).
pub fn v3_hash(path: &str, release: &str) -> String {
    etag(format!("{release} {path}").as_bytes())
}

fn v3_paths(kinds: &[Kind]) -> BTreeSet<String> {
    kinds.iter().map(|kind| paths::base(kind).trim_start_matches('/').to_owned()).collect()
}

/// `/openapi/v3/PATH`; `None` when no group-version is served there.
pub fn v3_document(kinds: &[Kind], path: &str, release: &str) -> Option<Value> {
    let served: Vec<&Kind> = kinds.iter().filter(|kind| paths::base(kind).trim_start_matches('/') == path).collect();
    if served.is_empty() {
        return None;
    }
    let schemas = definitions::closure(&roots(&served), kinds, Dialect::V3);
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": paths::build(&served, Dialect::V3),
        "components": {"schemas": schemas, "securitySchemes": security()},
    }))
}

/// `/openapi/v2` as JSON.
pub fn v2_document(kinds: &[Kind], release: &str) -> Value {
    let served: Vec<&Kind> = kinds.iter().collect();
    let schemas = definitions::closure(&roots(&served), kinds, Dialect::V2);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": paths::build(&served, Dialect::V2),
        "definitions": schemas,
        "securityDefinitions": security(),
        "security": [{"BearerToken": []}],
    })
}

/// The v2 document in the protobuf form that client-go reads.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    gnostic::encode(document)
}

fn security() -> Value {
    json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}})
}

/// The messages that the operations of these kinds name.
fn roots(kinds: &[&Kind]) -> Vec<MessageRef> {
    let mut roots = Vec::new();
    for kind in kinds {
        roots.push(kind.message);
        roots.extend(kind.list_message);
        for subresource in kind.subresources {
            let (api_version, body) = subresource.body_kind(kind);
            let (group, version) = api::kinds::split_api_version(api_version);
            roots.extend(api::schema::by_kind(group, version, body));
        }
    }
    let shared = ["meta/v1.DeleteOptions", "meta/v1.Status", "meta/v1.WatchEvent", "meta/v1.APIResourceList"];
    roots.extend(shared.iter().filter_map(|name| api::schema::message(name)));
    roots
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;

    fn apps() -> Value {
        v3_document(kinds::all(), "apis/apps/v1", "v1.37.2").unwrap()
    }

    #[test]
    fn the_index_names_every_group_version() {
        let index = v3_index(kinds::all(), "v1.37.2");
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="));
        for path in index["paths"].as_object().unwrap().keys() {
            assert!(v3_document(kinds::all(), path, "v1.37.2").is_some(), "{path}");
        }
        assert!(v3_document(kinds::all(), "apis/nothing/v1", "v1.37.2").is_none());
    }

    /// kubectl looks for the patch operation of the kind, its parameters, and the strategic merge content type.
    #[test]
    fn patch_operations_carry_what_kubectl_checks() {
        let patch = apps()["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"].clone();
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    }

    #[test]
    fn schemas_carry_list_types_and_patch_strategies() {
        let schemas = &apps()["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        let volumes = &schemas["io.k8s.api.core.v1.Volume"]["properties"];
        assert!(volumes.get("configMap").is_some(), "inlined fields are properties of the outer object");
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
        assert!(deployment["properties"].get("apiVersion").is_some());
    }

    fn check_references(value: &Value, home: &str, defined: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                    let name = reference.strip_prefix(home).unwrap();
                    assert!(defined.get(name).is_some(), "{name}");
                }
                map.values().for_each(|value| check_references(value, home, defined));
            }
            Value::Array(list) => list.iter().for_each(|value| check_references(value, home, defined)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_resolves() {
        for path in v3_paths(kinds::all()) {
            let document = v3_document(kinds::all(), &path, "v1.37.2").unwrap();
            check_references(&document, "#/components/schemas/", &document["components"]["schemas"]);
        }
        let document = v2_document(kinds::all(), "v1.37.2");
        check_references(&document, "#/definitions/", &document["definitions"]);
    }
}

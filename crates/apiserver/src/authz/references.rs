//! Which secrets, config maps, claims and service accounts a pod refers to.
//!
//! In: a pod as JSON. Out: yes or no for one name. Pure.

use serde_json::Value;

/// Kinds that a pod gives its node access to; all in the pod's own namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Referent {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
}

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Whether `pod` refers to the object `name` of `kind`. A mirror pod refers to nothing: its node made it up.
pub fn is_referenced(pod: &Value, kind: Referent, name: &str) -> bool {
    if pod["metadata"]["annotations"].get(MIRROR_ANNOTATION).is_some() {
        return false;
    }
    let spec = &pod["spec"];
    match kind {
        Referent::ServiceAccount => spec["serviceAccountName"] == name,
        Referent::Claim => items(&spec["volumes"]).any(|volume| {
            volume["persistentVolumeClaim"]["claimName"] == name || is_ephemeral_claim(pod, volume, name)
        }),
        Referent::ConfigMap => {
            container_refers(spec, "configMapKeyRef", "configMapRef", name)
                || items(&spec["volumes"]).any(|volume| {
                    volume["configMap"]["name"] == name
                        || items(&volume["projected"]["sources"]).any(|source| source["configMap"]["name"] == name)
                })
        }
        Referent::Secret => {
            items(&spec["imagePullSecrets"]).any(|reference| reference["name"] == name)
                || container_refers(spec, "secretKeyRef", "secretRef", name)
                || items(&spec["volumes"]).any(|volume| volume_uses_secret(volume, name))
        }
    }
}

/// A generic ephemeral volume's claim is named POD-VOLUME.
fn is_ephemeral_claim(pod: &Value, volume: &Value, name: &str) -> bool {
    volume["ephemeral"].is_object()
        && pod["metadata"]["name"]
            .as_str()
            .and_then(|pod| name.strip_prefix(pod)?.strip_prefix('-'))
            .is_some_and(|volume_name| volume["name"] == volume_name)
}

fn container_refers(spec: &Value, key_field: &str, whole_field: &str, name: &str) -> bool {
    CONTAINER_LISTS.iter().flat_map(|list| items(&spec[*list])).any(|container| {
        items(&container["env"]).any(|variable| variable["valueFrom"][key_field]["name"] == name)
            || items(&container["envFrom"]).any(|source| source[whole_field]["name"] == name)
    })
}

fn volume_uses_secret(volume: &Value, name: &str) -> bool {
    const WITH_SECRET_REF: [&str; 6] = ["cephfs", "rbd", "flexVolume", "scaleIO", "iscsi", "storageos"];
    volume["secret"]["secretName"] == name
        || volume["azureFile"]["secretName"] == name
        || volume["csi"]["nodePublishSecretRef"]["name"] == name
        || items(&volume["projected"]["sources"]).any(|source| source["secret"]["name"] == name)
        || WITH_SECRET_REF.iter().any(|kind| volume[*kind]["secretRef"]["name"] == name)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The secrets that volumes and containers use, each with the words that an error says about the place.
pub fn secret_references(pod: &Value) -> Vec<(String, String)> {
    let spec = &pod["spec"];
    let mut out = Vec::new();
    for volume in items(&spec["volumes"]) {
        if let Some(name) = volume["secret"]["secretName"].as_str() {
            out.push(("volume with".to_owned(), name.to_owned()));
        }
    }
    for (list, word) in [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ] {
        for container in items(&spec[list]) {
            let of = format!("{word} {}", container["name"].as_str().unwrap_or_default());
            for variable in items(&container["env"]) {
                if let Some(name) = variable["valueFrom"]["secretKeyRef"]["name"].as_str() {
                    let variable = variable["name"].as_str().unwrap_or_default();
                    out.push((format!("{of} with envVar {variable} referencing"), name.to_owned()));
                }
            }
            for source in items(&container["envFrom"]) {
                if let Some(name) = source["secretRef"]["name"].as_str() {
                    out.push((format!("{of} with envFrom referencing"), name.to_owned()));
                }
            }
        }
    }
    out
}

/// Whether the pod uses any secret at all, mirror pod or not.
pub fn refers_to_any_secret(pod: &Value) -> bool {
    let projected = items(&pod["spec"]["volumes"])
        .flat_map(|volume| items(&volume["projected"]["sources"]))
        .any(|source| source["secret"].is_object());
    projected || items(&pod["spec"]["imagePullSecrets"]).next().is_some() || !secret_references(pod).is_empty()
}

/// What kind of object a pod refers to, if any: what a mirror pod must not do.
pub fn referenced_kind(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if refers_to_any_secret(pod) {
        return Some("secrets");
    }
    let sources = || items(&spec["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    let in_containers = CONTAINER_LISTS.iter().flat_map(|list| items(&spec[*list])).any(|container| {
        items(&container["env"]).any(|variable| variable["valueFrom"]["configMapKeyRef"].is_object())
            || items(&container["envFrom"]).any(|source| source["configMapRef"].is_object())
    });
    if in_containers
        || items(&spec["volumes"]).any(|volume| volume["configMap"].is_object())
        || sources().any(|source| source["configMap"].is_object())
    {
        return Some("configmaps");
    }
    if sources().any(|source| source["serviceAccountToken"].is_object()) {
        return Some("serviceaccounts");
    }
    if sources().any(|source| source["clusterTrustBundle"].is_object()) {
        return Some("clustertrustbundles");
    }
    if items(&spec["volumes"])
        .any(|volume| volume["persistentVolumeClaim"].is_object() || volume["ephemeral"].is_object())
    {
        return Some("persistentvolumeclaims");
    }
    items(&spec["resourceClaims"]).next().map(|_claim| "resourceclaims")
}

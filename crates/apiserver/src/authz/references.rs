//! Which secrets, config maps, claims and service accounts a pod refers to.
//!
//! In: a pod as JSON. Out: yes or no for one name. Pure.

use serde_json::Value;

/// Kinds that a pod gives its node access to; all in the pod's own namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

//! Rows of volumes and claims.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, NAME, age, at, list, name_of, or, text, value_at, wide};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) const VOLUME: &[Column] = &[
    NAME,
    text("Capacity"),
    text("Access Modes"),
    text("Reclaim Policy"),
    text("Status"),
    text("Claim"),
    text("StorageClass"),
    text("VolumeAttributesClass"),
    text("Reason"),
    text("Age"),
    wide("VolumeMode"),
];

pub(super) fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = value_at(object, "spec.claimRef");
    let claim = claim.map(|claim| format!("{}/{}", at(claim, "namespace"), at(claim, "name"))).unwrap_or_default();
    vec![
        name_of(object),
        json!(or(at(object, "spec.capacity.storage"), "0")),
        modes(object, "spec.accessModes"),
        json!(at(object, "spec.persistentVolumeReclaimPolicy")),
        phase(object),
        json!(claim),
        class(object),
        json!(or(at(object, "spec.volumeAttributesClassName"), "<unset>")),
        json!(at(object, "status.reason")),
        age::of(object, now),
        json!(or(at(object, "spec.volumeMode"), "<unset>")),
    ]
}

pub(super) const CLAIM: &[Column] = &[
    NAME,
    text("Status"),
    text("Volume"),
    text("Capacity"),
    text("Access Modes"),
    text("StorageClass"),
    text("VolumeAttributesClass"),
    text("Age"),
    wide("VolumeMode"),
];

pub(super) fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let volume = at(object, "spec.volumeName");
    let (capacity, modes) = if volume.is_empty() {
        (json!(""), json!(""))
    } else {
        (json!(or(at(object, "status.capacity.storage"), "0")), modes(object, "status.accessModes"))
    };
    vec![
        name_of(object),
        phase(object),
        json!(volume),
        capacity,
        modes,
        class(object),
        json!(or(at(object, "spec.volumeAttributesClassName"), "<unset>")),
        age::of(object, now),
        json!(or(at(object, "spec.volumeMode"), "<unset>")),
    ]
}

fn phase(object: &Value) -> Value {
    let leaving = api::meta::deletion_timestamp(object).is_some();
    json!(if leaving { "Terminating" } else { at(object, "status.phase") })
}

fn class(object: &Value) -> Value {
    json!(api::meta::annotation(object, CLASS_ANNOTATION).unwrap_or(at(object, "spec.storageClassName")))
}

/// Always in this order.
fn modes(object: &Value, path: &str) -> Value {
    const SHORT: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let present = list(object, path);
    let shown = SHORT.iter().filter(|(mode, _)| present.iter().any(|given| given == mode)).map(|(_, short)| *short);
    json!(shown.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_claim_shows_its_volume() {
        let object = json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v", "storageClassName": "fast"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}});
        let expect = json!(["c", "Bound", "v", "1Gi", "RWO,RWX", "fast", "<unset>", "<unknown>", "<unset>"]);
        assert_eq!(Value::from(claim(&object, Timestamp::UNIX_EPOCH)), expect);
    }
}

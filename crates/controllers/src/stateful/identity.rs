//! The identity of a StatefulSet's pods: set and ordinal -> name, labels, host name, volumes and claims.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use reconcile::{Key, View, Write};
use serde_json::json;

use super::announced;
use crate::labels::Labels;
use crate::pods::derive_pod;
use crate::revisions::HASH_LABEL;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

fn name_of(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The ordinal in the pod's name; none if the name is no member's.
pub(super) fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let digits = pod.metadata.name.as_deref()?.strip_prefix(name_of(set))?.strip_prefix('-')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

/// The pod of that ordinal.
pub(super) fn derive_member(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = derive_pod(set, template);
    let name = format!("{}-{ordinal}", name_of(set));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity_labels(&name, ordinal));
    labels.insert(HASH_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.service_name.clone().filter(|name| !name.is_empty());
    let claims: Vec<PersistentVolumeClaim> = set.spec.volume_claim_templates.clone().unwrap_or_default();
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !claims.iter().any(|claim| claim.metadata.name.as_ref() == Some(&volume.name)));
    for claim in &claims {
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim_name(set, claim, ordinal), read_only: None };
        let name = claim.metadata.name.clone().unwrap_or_default();
        volumes.push(Volume { name, persistent_volume_claim: Some(source), ..Volume::default() });
    }
    spec.volumes = spec.volumes.take().filter(|volumes| !volumes.is_empty());
    pod
}

fn identity_labels(name: &str, ordinal: i32) -> Labels {
    Labels::from([(POD_NAME.to_owned(), name.to_owned()), (POD_INDEX.to_owned(), ordinal.to_string())])
}

fn claim_name(set: &StatefulSet, claim: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", claim.metadata.name.as_deref().unwrap_or_default(), name_of(set))
}

/// The claims that the pod of that ordinal needs and that don't exist.
pub(super) fn missing_claims(set: &StatefulSet, ordinal: i32, view: &View) -> Vec<Write> {
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    let claims = set.spec.volume_claim_templates.iter().flatten().map(|template| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace = Some(namespace.clone());
        let selected = set.spec.selector.match_labels.clone().unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(selected);
        claim.status = None;
        claim
    });
    let missing = claims.filter(|claim| {
        view.get::<PersistentVolumeClaim>(&namespace, claim.metadata.name.as_deref().unwrap_or_default()).is_none()
    });
    let create = |claim: PersistentVolumeClaim| {
        let claim_name = claim.metadata.name.clone().unwrap_or_default();
        let what = format!("Claim {claim_name} Pod {0}-{ordinal} in StatefulSet {0}", name_of(set));
        announced(set, Write::create(&claim), "create", what)
    };
    missing.map(create).collect()
}

/// Puts the identity's labels back where they were changed.
pub(super) fn fix_identity(set: &StatefulSet, pod: &Pod) -> Option<Write> {
    let wanted = identity_labels(pod.metadata.name.as_deref()?, ordinal_of(set, pod)?);
    let fine = pod.metadata.labels.as_ref().is_some_and(|labels| crate::labels::contains_all(labels, &wanted));
    let body = json!({ "metadata": { "uid": pod.metadata.uid, "labels": wanted } });
    (!fine).then(|| Write::merge_patch::<Pod>(Key::of(&pod.metadata), body))
}

pub(super) fn create(set: &StatefulSet, pod: &Pod) -> Write {
    announced(set, Write::create(pod), "create", describe(set, pod))
}

pub(super) fn delete(set: &StatefulSet, pod: &Pod) -> Write {
    announced(set, Write::delete(pod), "delete", describe(set, pod))
}

fn describe(set: &StatefulSet, pod: &Pod) -> String {
    format!("Pod {} in StatefulSet {}", pod.metadata.name.as_deref().unwrap_or_default(), name_of(set))
}

//! Adopting and releasing dependents: an owner, its selector and candidates -> which are its own, and the patches that
//! make it so.
//!
//! Invariants: never takes what another controller holds; adopts nothing while the owner is being deleted, and not
//! before a live read has confirmed that it isn't. A patch names the UID it was meant for.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use reconcile::{Key, Object, Observation, Observe, Observed, ResourceId, Write, controller_of, owner_reference};
use serde_json::json;

use crate::labels::is_selected;

/// The outcome of claiming.
#[derive(Debug)]
pub struct Claims<D> {
    /// The owner's dependents, those to be adopted included.
    pub mine: Vec<Arc<D>>,
    pub patches: Vec<Write>,
    /// The live read of the owner that adoption needs first.
    pub observe: Option<Observe>,
}

/// Sorts out `candidates` of the owner's namespace.
pub fn decide_claims<O: Object, D: Object>(
    owner: &O,
    selector: &LabelSelector,
    candidates: impl IntoIterator<Item = Arc<D>>,
    observed: &Observed,
) -> Claims<D> {
    let owner_meta = owner.metadata();
    let mut claims = Claims { mine: Vec::new(), patches: Vec::new(), observe: None };
    for candidate in candidates {
        let meta = candidate.metadata();
        let matches = is_selected(selector, meta);
        match controller_of(meta) {
            Some(holder) if Some(&holder.uid) != owner_meta.uid.as_ref() => {}
            Some(_) if matches => claims.mine.push(candidate),
            Some(_) if owner_meta.deletion_timestamp.is_some() => {}
            Some(_) => claims.patches.push(plan_release::<O, D>(owner, meta)),
            None if !matches || owner_meta.deletion_timestamp.is_some() || meta.deletion_timestamp.is_some() => {}
            None => match may_adopt(owner, observed) {
                Adoption::Allowed => {
                    claims.patches.push(plan_adoption::<O, D>(owner, meta));
                    claims.mine.push(candidate);
                }
                Adoption::Ask(observe) => claims.observe = Some(observe),
                Adoption::Denied => {}
            },
        }
    }
    claims
}

enum Adoption {
    Allowed,
    Denied,
    Ask(Observe),
}

fn may_adopt<O: Object>(owner: &O, observed: &Observed) -> Adoption {
    let live = Observe::Get { resource: ResourceId::of::<O>(), key: Key::of(owner.metadata()) };
    match observed.get(&live) {
        None => Adoption::Ask(live),
        Some(Observation::Found(object)) => {
            let same = object["metadata"]["uid"].as_str() == owner.metadata().uid.as_deref();
            let deleting = !object["metadata"]["deletionTimestamp"].is_null();
            if same && !deleting { Adoption::Allowed } else { Adoption::Denied }
        }
        Some(_) => Adoption::Denied,
    }
}

fn plan_adoption<O: Object, D: Object>(owner: &O, meta: &ObjectMeta) -> Write {
    let body = json!({ "metadata": { "uid": meta.uid, "ownerReferences": [owner_reference(owner)] } });
    Write::strategic_patch::<D>(Key::of(meta), body)
}

fn plan_release<O: Object, D: Object>(owner: &O, meta: &ObjectMeta) -> Write {
    let gone = json!({ "$patch": "delete", "uid": owner.metadata().uid });
    let body = json!({ "metadata": { "uid": meta.uid, "ownerReferences": [gone] } });
    Write::strategic_patch::<D>(Key::of(meta), body)
}

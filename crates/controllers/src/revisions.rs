//! ControllerRevisions: the history of a template, for kinds whose pods are told apart by revision.
//!
//! Input: the owner, its revisions and its current template. Output: the revision of that template (to be created, or
//! raised to the newest), and the old ones that history no longer keeps. Invariant: equal templates share a revision; the
//! current one has the highest number. The data is the patch that `kubectl rollout undo` applies.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use reconcile::plan::to_value;
use reconcile::{Object, Write, owner_reference};
use semantics::pod_template_hash::pod_template_hash;
use semantics::semantic_eq::semantic_eq;
use serde_json::{Value, json};

/// The label of revisions, and of the pods made by one.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// An owner's history.
#[derive(Debug)]
pub struct History {
    /// The revision of the current template.
    pub current: ControllerRevision,
    /// All others, oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
    /// What makes the history so; none if it is.
    pub write: Option<Write>,
    /// Another template's revision has the name that the current one would get: `collisionCount` must rise.
    pub is_name_taken: bool,
}

/// Finds or makes the revision of `template`.
pub fn decide_history<O: Object>(
    owner: &O,
    template: &PodTemplateSpec,
    collision_count: Option<i32>,
    mut mine: Vec<Arc<ControllerRevision>>,
) -> History {
    mine.sort_by(|a, b| (number(a), &a.metadata.name).cmp(&(number(b), &b.metadata.name)));
    let data = derive_data(template);
    let next = mine.last().map_or(0, |newest| number(newest)) + 1;
    let Some(index) = mine.iter().rposition(|revision| semantic_eq(&revision.data.0, &data)) else {
        let current = derive_revision(owner, template, data, collision_count, next);
        let is_name_taken = mine.iter().any(|known| known.metadata.name == current.metadata.name);
        return History { write: Some(Write::create(&current)), current, old: mine, is_name_taken };
    };
    let found = mine.remove(index);
    let mut current = (*found).clone();
    let write = (index < mine.len()).then(|| {
        current.revision = Some(next);
        Write::replace(&current)
    });
    History { current, old: mine, write, is_name_taken: false }
}

/// The old revisions beyond `limit` that no pod uses, to be deleted.
pub fn expired(history: &History, limit: Option<i32>, is_used: impl Fn(&ControllerRevision) -> bool) -> Vec<Write> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let surplus = history.old.len().saturating_sub(limit);
    let unused =
        history.old.iter().filter(|revision| !is_used(revision) && revision.metadata.deletion_timestamp.is_none());
    unused.take(surplus).map(|revision| Write::delete(&**revision)).collect()
}

/// The hash that pods of this revision carry.
pub fn hash(revision: &ControllerRevision) -> &str {
    revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default()
}

/// The template that a revision stands for.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The values of the hash label among `pods`' labels.
pub fn hashes_in_use<'a>(metas: impl Iterator<Item = &'a ObjectMeta>) -> BTreeSet<&'a str> {
    metas.filter_map(|meta| meta.labels.as_ref()?.get(HASH_LABEL)).map(String::as_str).collect()
}

fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

fn derive_data(template: &PodTemplateSpec) -> Value {
    let mut template = to_value(template);
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

fn derive_revision<O: Object>(
    owner: &O,
    template: &PodTemplateSpec,
    data: Value,
    collision_count: Option<i32>,
    number: i64,
) -> ControllerRevision {
    let hash = pod_template_hash(template, collision_count);
    let meta = owner.metadata();
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", meta.name.as_deref().unwrap_or_default())),
        namespace: meta.namespace.clone(),
        labels: Some(labels),
        annotations: meta.annotations.clone(),
        owner_references: Some(vec![owner_reference(owner)]),
        ..ObjectMeta::default()
    };
    ControllerRevision { metadata, data: RawExtension(data), revision: Some(number) }
}

//! What may change in the spec of a pod that exists.

use k8s_openapi::api::core::v1::{Affinity, Container, NodeAffinity, Pod, PodSpec, Toleration};
use serde_json::{Value, json};

use crate::defaults::text;
use crate::field::{Errors, Path, quote};
use crate::semantic_eq::semantic_eq;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A write of the ephemeral containers changes nothing else.
pub(super) fn keep_all_but_ephemeral(object: &mut Pod, old: &Pod) {
    let added = object.spec.take().and_then(|spec| spec.ephemeral_containers);
    let metadata = super::resize::keep_metadata(object, old);
    *object = Pod { metadata, ..old.clone() };
    object.spec.get_or_insert_default().ephemeral_containers = added;
}

pub(super) fn validate_ephemeral(object: &Pod, old: &Pod, errors: &mut Errors) {
    let path = Path::root("spec").child("ephemeralContainers");
    let containers = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let new = containers(object);
    for before in containers(old) {
        let name = quote(&before.name);
        match new.iter().find(|container| container.name == before.name) {
            None => {
                errors.forbidden(path.clone(), format!("existing ephemeral containers {name} may not be removed\n"))
            }
            Some(container) if *container != before => {
                errors.forbidden(path.clone(), format!("existing ephemeral containers {name} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

/// The rules of an ordinary update.
pub(super) fn validate(object: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(spec), Some(old)) = (&object.spec, &old.spec) else { return };
    let path = Path::root("spec");
    let none = Vec::new();
    let pairs = [
        ("containers", &spec.containers, &old.containers),
        (
            "initContainers",
            spec.init_containers.as_ref().unwrap_or(&none),
            old.init_containers.as_ref().unwrap_or(&none),
        ),
    ];
    for (name, new, before) in pairs {
        if !validate_images(new, before, &path.child(name), errors) {
            return;
        }
    }
    if !validate_deadline(spec, old, &path, errors) {
        return;
    }
    validate_tolerations(spec, old, &path, errors);
    validate_gates(spec, old, &path, errors);
    let mut munged = munge(spec, old);
    if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        munge_gated(&mut munged, old, &path, errors);
    }
    let (new, before) = (json!(munged), json!(old));
    if !semantic_eq(&new, &before) {
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n{}", difference(&before, &new));
        errors.forbidden(path, detail);
    }
}

/// False if the lists are too different to go on.
fn validate_images(new: &[Container], old: &[Container], path: &Path, errors: &mut Errors) -> bool {
    if new.len() != old.len() {
        let detail = "pod updates may not add or remove containers";
        errors.forbidden(path.clone(), detail);
        return false;
    }
    for (index, container) in new.iter().enumerate() {
        let path = path.index(index).child("image");
        let image = text(&container.image);
        if image.is_empty() {
            errors.required(path.clone(), "");
        }
        if image.trim() != image {
            errors.invalid(path, image, "must not have leading or trailing whitespace");
        }
    }
    true
}

fn validate_deadline(spec: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) -> bool {
    let path = path.child("activeDeadlineSeconds");
    match (spec.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(path, new, format!("must be between 0 and {}, inclusive", i32::MAX));
            false
        }
        (Some(new), Some(before)) if before < new => {
            errors.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

/// Tolerations are added, and a limited stay may be shortened or extended, but none is taken away.
fn validate_tolerations(spec: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let bare = |toleration: &Toleration| Toleration { toleration_seconds: None, ..toleration.clone() };
    let new = spec.tolerations.as_deref().unwrap_or_default();
    let kept = |before: &Toleration| {
        new.iter()
            .any(|t| if before.effect.as_deref() == Some("NoExecute") { bare(t) == bare(before) } else { t == before })
    };
    if !old.tolerations.iter().flatten().all(kept) {
        errors.forbidden(
            path.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn validate_gates(spec: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let before = old.scheduling_gates.as_deref().unwrap_or_default();
    for (index, gate) in spec.scheduling_gates.iter().flatten().enumerate().filter(|(_, gate)| !before.contains(gate)) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.forbidden(path.child("schedulingGates").index(index).child("name"), detail);
    }
}

/// The new spec with everything that may change set back, so that what differs still may not.
fn munge(spec: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut munged = spec.clone();
    for (container, before) in munged.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&before.image);
    }
    let before = old.init_containers.iter().flatten();
    for (container, before) in munged.init_containers.iter_mut().flatten().zip(before) {
        container.image.clone_from(&before.image);
    }
    munged.active_deadline_seconds = old.active_deadline_seconds;
    munged.tolerations.clone_from(&old.tolerations);
    munged.scheduling_gates.clone_from(&old.scheduling_gates);
    let negative = old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0);
    if negative && munged.termination_grace_period_seconds == Some(1) {
        munged.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    munged
}

/// While gated, a pod's node constraints may become tighter.
fn munge_gated(munged: &mut PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let selector = munged.node_selector.clone().unwrap_or_default();
    let kept = |(key, value): (&String, &String)| selector.get(key) == Some(value);
    if !old.node_selector.iter().flatten().all(kept) {
        let detail = "only additions are allowed (no mutations or deletions)";
        errors.invalid(path.child("nodeSelector"), json!(selector), detail);
    }
    munged.node_selector.clone_from(&old.node_selector);
    let before = old.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let now = munged.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    validate_node_affinity(now, before, &path.child("affinity").child("nodeAffinity"), errors);
    let before = before.cloned();
    let mut affinity = munged.affinity.take().unwrap_or_default();
    affinity.node_affinity = before;
    let empty = affinity == Affinity::default() && old.affinity.is_none();
    munged.affinity = Some(affinity).filter(|_| !empty);
}

/// Required terms stay as many, and each only gains requirements.
fn validate_node_affinity(new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, path: &Path, errors: &mut Errors) {
    let Some(old) = old.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()) else { return };
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    let new = new.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = new.map(|selector| selector.node_selector_terms.as_slice()).unwrap_or_default();
    if old.node_selector_terms.is_empty() {
        return;
    }
    if terms.len() != old.node_selector_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(path, json!(terms), detail);
    }
    for (index, (term, before)) in terms.iter().zip(&old.node_selector_terms).enumerate() {
        let starts = |new: Option<&Vec<_>>, old: Option<&Vec<_>>| {
            let (new, old) = (new.map(Vec::as_slice).unwrap_or_default(), old.map(Vec::as_slice).unwrap_or_default());
            new.starts_with(old)
        };
        let only_more = starts(term.match_expressions.as_ref(), before.match_expressions.as_ref())
            && starts(term.match_fields.as_ref(), before.match_fields.as_ref());
        if !only_more {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid(path.index(index), json!(term), detail);
        }
    }
}

/// The top-level fields that differ, old and new.
fn difference(old: &Value, new: &Value) -> String {
    let mut text = String::from("  core.PodSpec{\n");
    let empty = serde_json::Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (before, now) = (old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null));
        if !semantic_eq(before, now) {
            text.push_str(&format!("- \t{name}: {before},\n+ \t{name}: {now},\n"));
        }
    }
    text.push_str("  }");
    text
}

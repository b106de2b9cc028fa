//! PersistentVolumeClaim: its two ways to name a source agree; the spec stays, but for size and attributes once bound.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference, TypedObjectReference,
};

use crate::amount::nanos_or_zero;
use crate::defaults::claim::default_claim;
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Context, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::claim::validate_claim_spec;
use crate::warnings::claim::{STORAGE_CLASS_ANNOTATION, claim_spec_warnings, storage_class_warning};

pub struct ClaimRules;

impl Rules for ClaimRules {
    type Object = PersistentVolumeClaim;
    const SHAPE: Shape = Shape::new(subdomain_name).with_status();

    fn default(object: &mut PersistentVolumeClaim) {
        object.spec.get_or_insert_default();
        default_claim(object);
    }

    fn prepare_create(_context: &Context, object: &mut PersistentVolumeClaim) {
        object.status.get_or_insert_default().phase = Some("Pending".to_owned());
        if let Some(spec) = &mut object.spec {
            drop_unknown_source(spec);
            normalize_sources(spec);
        }
    }

    fn validate_create(object: &PersistentVolumeClaim, errors: &mut Errors) {
        if let Some(spec) = &object.spec {
            validate_claim_spec(spec, &Path::root("spec"), errors);
        }
    }

    fn prepare_update(write: &Write<'_>, object: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        if write.sub != Subresource::Main {
            return;
        }
        if let Some(spec) = &mut object.spec {
            let in_use =
                old.spec.as_ref().is_some_and(|old| old.data_source.is_some() || old.data_source_ref.is_some());
            if !in_use {
                drop_unknown_source(spec);
            }
            normalize_sources(spec);
        }
    }

    fn validate_update(
        write: &Write<'_>,
        object: &PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
        errors: &mut Errors,
    ) {
        if write.sub != Subresource::Main {
            return;
        }
        let (Some(spec), Some(old_spec)) = (&object.spec, &old.spec) else { return };
        let path = Path::root("spec");
        validate_claim_spec(spec, &path, errors);
        let bound = object.status.as_ref().is_some_and(|s| text(&s.phase) == "Bound");
        validate_frozen(spec, old_spec, bound, errors);
        validate_size(object, old, &path, errors);
        if spec.volume_mode != old_spec.volume_mode {
            errors.invalid(Path::root("volumeMode"), text(&spec.volume_mode), "field is immutable");
        }
    }

    fn warnings(object: &PersistentVolumeClaim, _old: Option<&PersistentVolumeClaim>) -> Vec<String> {
        let annotated =
            object.metadata.annotations.as_ref().is_some_and(|map| map.contains_key(STORAGE_CLASS_ANNOTATION));
        let annotation = annotated.then(|| storage_class_warning(&Path::root("metadata").child("annotations")));
        let spec = object.spec.iter().flat_map(|spec| claim_spec_warnings(spec, &Path::root("spec")));
        annotation.into_iter().chain(spec).collect()
    }
}

/// In the old field only claims and snapshots are known; anything else is dropped without a word.
fn drop_unknown_source(spec: &mut PersistentVolumeClaimSpec) {
    let known = |source: &TypedLocalObjectReference| {
        let group = text(&source.api_group);
        source.kind == "PersistentVolumeClaim" && group.is_empty()
            || source.kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io"
    };
    if spec.data_source_ref.is_none() && !spec.data_source.as_ref().is_some_and(known) {
        spec.data_source = None;
    }
}

fn normalize_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if text(&source.namespace).is_empty() => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

fn validate_frozen(
    spec: &PersistentVolumeClaimSpec,
    old: &PersistentVolumeClaimSpec,
    bound: bool,
    errors: &mut Errors,
) {
    let mut expected = old.clone();
    if text(&old.volume_name).is_empty() {
        expected.volume_name.clone_from(&spec.volume_name);
    }
    if old.storage_class_name.is_none() {
        expected.storage_class_name.clone_from(&spec.storage_class_name);
    }
    if bound {
        let storage = spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")).cloned();
        if let (Some(storage), Some(resources)) = (storage, &mut expected.resources) {
            resources.requests.get_or_insert_default().insert("storage".to_owned(), storage);
        }
        expected.volume_attributes_class_name.clone_from(&spec.volume_attributes_class_name);
    }
    if expected != *spec {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(Path::root("spec"), detail);
    }
}

/// A claim may shrink only back towards what it already has.
fn validate_size(object: &PersistentVolumeClaim, old: &PersistentVolumeClaim, path: &Path, errors: &mut Errors) {
    let size = |claim: &PersistentVolumeClaim| {
        let spec = claim.spec.as_ref()?;
        spec.resources.as_ref()?.requests.as_ref()?.get("storage").map(nanos_or_zero)
    };
    let (new, before) = (size(object).unwrap_or(0), size(old).unwrap_or(0));
    let has = old.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage").map(nanos_or_zero)).unwrap_or(0);
    if new < before && new <= has {
        let path = path.child("resources").child("requests").child("storage");
        errors.forbidden(path, "field can not be less than status.capacity");
    }
}

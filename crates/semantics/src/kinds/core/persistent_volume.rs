//! PersistentVolume: starts Pending, retains by default; its source never changes.

mod sources;
mod validation;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::defaults::volume::default_persistent_source;
use crate::defaults::{fill, fill_text, text};
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::resources::round_up;
use crate::semantic_eq::semantic_eq;
use crate::strategy::{Context, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::warnings::persistent_volume::volume_warnings;

/// Fields of the spec that are not the source.
const NOT_SOURCES: [&str; 10] = [
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
    "",
];

pub struct PersistentVolumeRules;

impl Rules for PersistentVolumeRules {
    type Object = PersistentVolume;
    const SHAPE: Shape = Shape::new(subdomain_name).with_status();

    fn default(object: &mut PersistentVolume) {
        fill_text(&mut object.status.get_or_insert_default().phase, "Pending");
        let spec = object.spec.get_or_insert_default();
        fill_text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        fill(&mut spec.volume_mode, "Filesystem".to_owned());
        round_up(&mut spec.capacity);
        default_persistent_source(spec);
    }

    fn prepare_create(context: &Context, object: &mut PersistentVolume) {
        let status = object.status.get_or_insert_default();
        status.phase = Some("Pending".to_owned());
        status.last_phase_transition_time = Some(Time(context.now));
    }

    fn validate_create(object: &PersistentVolume, errors: &mut Errors) {
        validation::validate(object, errors);
    }

    fn prepare_update(write: &Write<'_>, object: &mut PersistentVolume, old: &PersistentVolume) {
        if write.sub != Subresource::Status {
            return;
        }
        let status = object.status.get_or_insert_default();
        let before = old.status.clone().unwrap_or_default();
        if status.phase == before.phase {
            if status.last_phase_transition_time.is_none() {
                status.last_phase_transition_time = before.last_phase_transition_time;
            }
        } else if status.last_phase_transition_time.is_none()
            || status.last_phase_transition_time == before.last_phase_transition_time
        {
            status.last_phase_transition_time = Some(Time(write.context.now));
        }
    }

    fn validate_update(write: &Write<'_>, object: &PersistentVolume, old: &PersistentVolume, errors: &mut Errors) {
        if write.sub != Subresource::Main {
            return;
        }
        validation::validate(object, errors);
        let (Some(spec), Some(old)) = (&object.spec, &old.spec) else { return };
        let path = Path::root("spec");
        if !semantic_eq(&source(spec), &source(old)) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.forbidden(path.child("persistentvolumesource"), detail);
        }
        if spec.volume_mode != old.volume_mode {
            errors.invalid(Path::root("volumeMode"), text(&spec.volume_mode), "field is immutable");
        }
    }

    fn warnings(object: &PersistentVolume, _old: Option<&PersistentVolume>) -> Vec<String> {
        volume_warnings(object)
    }
}

fn source(spec: &PersistentVolumeSpec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        map.retain(|name, _| !NOT_SOURCES.contains(&name.as_str()));
    }
    value
}

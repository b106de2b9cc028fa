//! ReplicaSet: one replica by default; the selector never changes.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodSpec;

use crate::defaults::fill;
use crate::defaults::pod_spec::default_template;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::numbers::validate_count;
use crate::validate::replicas::{ReplicaCounts, validate_replica_counts};
use crate::validate::template::{
    DEPLOYMENT, validate_running_template, validate_selector, validate_selector_unchanged,
};
use crate::warnings::workload_warnings;

pub struct ReplicaSetRules;

impl Rules for ReplicaSetRules {
    type Object = ReplicaSet;
    const SELECTOR_MAY_LACK: bool = true;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();

    fn default(object: &mut ReplicaSet) {
        let spec = &mut object.spec;
        fill(&mut spec.replicas, 1);
        default_template(spec.template.get_or_insert_default());
    }

    fn pod_spec(object: &mut ReplicaSet) -> Option<&mut PodSpec> {
        object.spec.template.as_mut()?.spec.as_mut()
    }

    fn validate_create(object: &ReplicaSet, errors: &mut Errors) {
        validate_spec(&object.spec, errors);
    }

    fn validate_update(write: &Write<'_>, object: &ReplicaSet, old: &ReplicaSet, errors: &mut Errors) {
        if write.sub == Subresource::Status {
            return validate_status(object, errors);
        }
        let (spec, old) = (&object.spec, &old.spec);
        validate_spec(spec, errors);
        validate_selector_unchanged(&spec.selector, &old.selector, errors);
    }

    fn warnings(object: &ReplicaSet, old: Option<&ReplicaSet>) -> Vec<String> {
        let changed = old.is_none_or(|old| old.spec != object.spec);
        let template = object.spec.template.as_ref().filter(|_| changed);
        workload_warnings(object.metadata.name.as_deref().filter(|_| old.is_none()), template)
    }
}

fn validate_spec(spec: &ReplicaSetSpec, errors: &mut Errors) {
    let path = Path::root("spec");
    validate_count(spec.replicas, path.child("replicas"), errors);
    validate_count(spec.min_ready_seconds, path.child("minReadySeconds"), errors);
    let template = spec.template.clone().unwrap_or_default();
    if validate_selector(&spec.selector, &template, DEPLOYMENT, &path, errors) {
        validate_running_template(&template, "ReplicaSet", &path.child("template"), errors);
    }
}

fn validate_status(object: &ReplicaSet, errors: &mut Errors) {
    let Some(status) = &object.status else { return };
    let counts = ReplicaCounts {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas,
        ready: status.ready_replicas,
        available: status.available_replicas,
        terminating: status.terminating_replicas,
        observed_generation: status.observed_generation,
    };
    validate_replica_counts(&counts, errors);
}

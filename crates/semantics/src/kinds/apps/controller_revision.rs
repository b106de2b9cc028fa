//! ControllerRevision: its data is an object and never changes.

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Shape, Write};
use crate::typed::Rules;
use crate::validate::numbers::{validate_immutable, validate_not_negative};

pub struct ControllerRevisionRules;

impl Rules for ControllerRevisionRules {
    type Object = ControllerRevision;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate_create(object: &ControllerRevision, errors: &mut Errors) {
        validate_revision(object, errors);
        match &object.data.0 {
            serde_json::Value::Null => errors.required(Path::root("data"), "data is mandatory"),
            data if !data.is_object() => errors.required(Path::root("data"), "data must be a valid JSON object"),
            _ => {}
        }
    }

    fn validate_update(_write: &Write<'_>, object: &ControllerRevision, old: &ControllerRevision, errors: &mut Errors) {
        validate_revision(object, errors);
        validate_immutable(&object.data, &old.data, Path::root("data"), errors);
    }
}

fn validate_revision(object: &ControllerRevision, errors: &mut Errors) {
    validate_not_negative(object.revision.unwrap_or(0), Path::root("revision"), errors);
}

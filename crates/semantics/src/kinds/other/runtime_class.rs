//! RuntimeClass: the handler is a DNS label and never changes.

use k8s_openapi::api::node::v1::RuntimeClass;

use crate::field::{Errors, Path};
use crate::names::{dns1123_label, subdomain_name};
use crate::resources::round_up;
use crate::strategy::{Shape, Write};
use crate::typed::Rules;

pub struct RuntimeClassRules;

impl Rules for RuntimeClassRules {
    type Object = RuntimeClass;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn default(object: &mut RuntimeClass) {
        if let Some(overhead) = &mut object.overhead {
            round_up(&mut overhead.pod_fixed);
        }
    }

    fn validate_create(object: &RuntimeClass, errors: &mut Errors) {
        errors.invalid_each(&Path::root("handler"), &object.handler, dns1123_label(&object.handler));
    }

    fn validate_update(_write: &Write<'_>, object: &RuntimeClass, old: &RuntimeClass, errors: &mut Errors) {
        if object.handler != old.handler {
            errors.invalid(Path::root("handler"), object.handler.as_str(), "field is immutable");
        }
    }
}

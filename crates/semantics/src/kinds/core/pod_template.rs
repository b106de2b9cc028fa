//! PodTemplate: a stored template.

use k8s_openapi::api::core::v1::{PodSpec, PodTemplate};

use crate::defaults::pod_spec::default_template;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape};
use crate::typed::Rules;
use crate::validate::template::validate_template;
use crate::warnings::pod::template_warnings;

pub struct PodTemplateRules;

impl Rules for PodTemplateRules {
    type Object = PodTemplate;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Content);

    fn default(object: &mut PodTemplate) {
        default_template(object.template.get_or_insert_default());
    }

    fn pod_spec(object: &mut PodTemplate) -> Option<&mut PodSpec> {
        object.template.as_mut()?.spec.as_mut()
    }

    fn validate(object: &PodTemplate, errors: &mut Errors) {
        if let Some(template) = &object.template {
            validate_template(template, &Path::root("template"), errors);
        }
    }

    fn warnings(object: &PodTemplate, old: Option<&PodTemplate>) -> Vec<String> {
        let changed = old.is_none_or(|old| old.template != object.template);
        let template = object.template.iter().filter(|_| changed);
        template.flat_map(|template| template_warnings(template, &Path::root("template"))).collect()
    }
}

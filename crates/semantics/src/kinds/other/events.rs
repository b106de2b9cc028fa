//! Event of the group `events.k8s.io`: strict at creation, only its series may change.

use k8s_openapi::api::events::v1::Event;

use crate::field::{Errors, Path};
use crate::names::{qualified_name, subdomain_name};
use crate::strategy::{Shape, Write};
use crate::typed::Rules;
use crate::validate::numbers::validate_immutable;

pub struct EventRules;

impl Rules for EventRules {
    type Object = Event;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate_create(object: &Event, errors: &mut Errors) {
        validate_series(object, errors);
        if object.event_time.is_none() {
            errors.required(Path::root("eventTime"), "");
        }
        let type_ = object.type_.as_deref().unwrap_or_default();
        if !matches!(type_, "Normal" | "Warning") {
            errors.invalid(Path::root("type"), "", format!("has invalid value: {type_}"));
        }
        validate_reporter(object, errors);
        let unset = [
            ("firstTimestamp", object.deprecated_first_timestamp.is_none()),
            ("lastTimestamp", object.deprecated_last_timestamp.is_none()),
            ("count", matches!(object.deprecated_count, None | Some(0))),
        ];
        for (name, _) in unset.iter().filter(|(_, unset)| !unset) {
            errors.invalid(Path::root(name), "", "needs to be unset");
        }
    }

    fn validate_update(_write: &Write<'_>, object: &Event, old: &Event, errors: &mut Errors) {
        if object.series != old.series {
            validate_series(object, errors);
        }
        validate_immutable(&object.regarding, &old.regarding, Path::root("involvedObject"), errors);
        validate_immutable(&object.reason, &old.reason, Path::root("reason"), errors);
        validate_immutable(&object.note, &old.note, Path::root("message"), errors);
        validate_immutable(&object.type_, &old.type_, Path::root("type"), errors);
        validate_immutable(&object.event_time, &old.event_time, Path::root("eventTime"), errors);
        validate_immutable(&object.action, &old.action, Path::root("action"), errors);
        validate_immutable(&object.related, &old.related, Path::root("related"), errors);
        let controller = Path::root("reportingController");
        validate_immutable(&object.reporting_controller, &old.reporting_controller, controller, errors);
        let instance = Path::root("reportingInstance");
        validate_immutable(&object.reporting_instance, &old.reporting_instance, instance, errors);
    }
}

fn validate_series(object: &Event, errors: &mut Errors) {
    if object.series.as_ref().is_some_and(|series| series.count < 2) {
        errors.invalid(Path::root("series.count"), "", "should be at least 2");
    }
}

fn validate_reporter(object: &Event, errors: &mut Errors) {
    let controller = object.reporting_controller.as_deref().unwrap_or_default();
    if controller.is_empty() {
        errors.required(Path::root("reportingController"), "");
    }
    errors.invalid_each(&Path::root("reportingController"), controller, qualified_name(controller));
    for (name, value) in
        [("reportingInstance", &object.reporting_instance), ("action", &object.action), ("reason", &object.reason)]
    {
        let value = value.as_deref().unwrap_or_default();
        if value.is_empty() {
            errors.required(Path::root(name), "");
        }
        if value.len() > 128 {
            errors.invalid(Path::root(name), "", "can have at most 128 characters");
        }
    }
}

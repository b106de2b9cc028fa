//! Event of the core group: lenient, but its namespace agrees with the object's.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::field::{Errors, Path};
use crate::names::{path_segment_name, qualified_name};
use crate::strategy::Shape;
use crate::typed::Rules;

const TEXT_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

pub struct EventRules;

impl Rules for EventRules {
    type Object = Event;
    const SHAPE: Shape = Shape::new(path_segment_name);

    fn validate(event: &Event, errors: &mut Errors) {
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let involved = event.involved_object.namespace.as_deref().unwrap_or_default();
        let agrees = match (event.event_time.is_some(), involved.is_empty()) {
            (false, true) => matches!(namespace, "" | "default"),
            (false, false) => namespace == involved,
            (true, true) => matches!(namespace, "default" | "kube-system"),
            (true, false) => true,
        };
        if !agrees {
            let path = Path::root("involvedObject").child("namespace");
            errors.invalid(path, involved, "does not match event.namespace");
        }
        if event.event_time.is_some() {
            validate_new_style(event, errors);
        }
    }

    /// The source is the reporter's component, under its old or its new name.
    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let names = [&object["source"]["component"], &object["reportingComponent"]];
        let source = names.into_iter().filter_map(Value::as_str).find(|name| !name.is_empty());
        vec![("source", source.unwrap_or_default().to_owned())]
    }
}

fn validate_new_style(event: &Event, errors: &mut Errors) {
    let component = event.reporting_component.as_deref().unwrap_or_default();
    if component.is_empty() {
        errors.required(Path::root("reportingComponent"), "");
    }
    errors.invalid_each(&Path::root("reportingComponent"), component, qualified_name(component));
    let fields =
        [("reportingInstance", &event.reporting_instance), ("action", &event.action), ("reason", &event.reason)];
    for (name, value) in fields {
        let value = value.as_deref().unwrap_or_default();
        if value.is_empty() {
            errors.required(Path::root(name), "");
        }
        if value.len() > TEXT_BYTES_MAX {
            errors.invalid(Path::root(name), "", format!("can have at most {TEXT_BYTES_MAX} characters"));
        }
    }
    if event.message.as_deref().unwrap_or_default().len() > NOTE_BYTES_MAX {
        errors.invalid(Path::root("message"), "", format!("can have at most {NOTE_BYTES_MAX} characters"));
    }
}

#[cfg(test)]
mod tests {
    use crate::check::check_create;
    use crate::kinds::strategy_of;
    use serde_json::json;

    #[test]
    fn namespaces_agree() {
        check_create("", "v1", "Event", json!({"involvedObject": {"namespace": "ns"}}), "");
        check_create(
            "",
            "v1",
            "Event",
            json!({"involvedObject": {"namespace": "other"}}),
            "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
        );
    }

    #[test]
    fn the_source_falls_back_to_the_reporter() {
        let fields = strategy_of("", "v1", "Event").selectable_fields(&json!({"reportingComponent": "kubelet"}));
        assert_eq!(fields, [("source", "kubelet".to_owned())]);
    }
}

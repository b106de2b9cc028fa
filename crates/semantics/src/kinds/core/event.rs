//! Event of the core group: lenient, but its namespace agrees with the object's.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::defaults::text;
use crate::field::Errors;
use crate::names::path_segment_name;
use crate::strategy::Shape;
use crate::typed::Rules;
use crate::validate::event::{EventWords, validate_event};

pub struct EventRules;

impl Rules for EventRules {
    type Object = Event;
    const SHAPE: Shape = Shape::new(path_segment_name);

    fn validate(event: &Event, errors: &mut Errors) {
        let words = EventWords {
            namespace: text(&event.metadata.namespace),
            involved_namespace: text(&event.involved_object.namespace),
            timed: event.event_time.is_some(),
            controller_field: "reportingComponent",
            controller: text(&event.reporting_component),
            instance: text(&event.reporting_instance),
            action: text(&event.action),
            reason: text(&event.reason),
            note: text(&event.message),
        };
        validate_event(&words, errors);
    }

    /// The source is the reporter's component, under its old or its new name.
    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let names = [&object["source"]["component"], &object["reportingComponent"]];
        let source = names.into_iter().filter_map(Value::as_str).find(|name| !name.is_empty());
        vec![("source", source.unwrap_or_default().to_owned())]
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

//! Event of the group `events.k8s.io`: strict at creation, only its series may change.

use api::zero_time::is_zero;
use k8s_openapi::api::events::v1::Event;

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Shape, Write};
use crate::typed::Rules;
use crate::validate::event::{EventWords, validate_event};
use crate::validate::numbers::validate_immutable;

pub struct EventRules;

impl Rules for EventRules {
    type Object = Event;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate(object: &Event, errors: &mut Errors) {
        let regarding = object.regarding.as_ref();
        let event = EventWords {
            namespace: text(&object.metadata.namespace),
            involved_namespace: regarding.map(|regarding| text(&regarding.namespace)).unwrap_or_default(),
            timed: object.event_time.is_some(),
            controller_field: "reportingController",
            controller: text(&object.reporting_controller),
            instance: text(&object.reporting_instance),
            action: text(&object.action),
            reason: text(&object.reason),
            note: text(&object.note),
        };
        validate_event(&event, errors);
    }

    fn validate_create(object: &Event, errors: &mut Errors) {
        validate_series(object, errors);
        if object.event_time.is_none() {
            errors.required(Path::root("eventTime"), "");
        }
        let type_ = text(&object.type_);
        if !matches!(type_, "Normal" | "Warning") {
            errors.invalid(Path::root("type"), "", format!("has invalid value: {type_}"));
        }
        let source = object.deprecated_source.clone().unwrap_or_default();
        let unset = [
            ("firstTimestamp", object.deprecated_first_timestamp.is_none()),
            ("lastTimestamp", object.deprecated_last_timestamp.is_none()),
            ("count", matches!(object.deprecated_count, None | Some(0))),
            ("source", text(&source.component).is_empty() && text(&source.host).is_empty()),
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
        let unchanged = |name: &str, new: &Option<String>, old: &Option<String>, errors: &mut Errors| {
            validate_immutable(&text(new), &text(old), Path::root(name), errors);
        };
        unchanged("reason", &object.reason, &old.reason, errors);
        unchanged("message", &object.note, &old.note, errors);
        validate_immutable(&object.deprecated_source, &old.deprecated_source, Path::root("source"), errors);
        let (first, last) = (&object.deprecated_first_timestamp, &object.deprecated_last_timestamp);
        validate_immutable(first, &old.deprecated_first_timestamp, Path::root("firstTimestamp"), errors);
        validate_immutable(last, &old.deprecated_last_timestamp, Path::root("lastTimestamp"), errors);
        validate_immutable(&object.deprecated_count, &old.deprecated_count, Path::root("count"), errors);
        unchanged("type", &object.type_, &old.type_, errors);
        validate_immutable(&object.event_time, &old.event_time, Path::root("eventTime"), errors);
        unchanged("action", &object.action, &old.action, errors);
        validate_immutable(&object.related, &old.related, Path::root("related"), errors);
        unchanged("reportingController", &object.reporting_controller, &old.reporting_controller, errors);
        unchanged("reportingInstance", &object.reporting_instance, &old.reporting_instance, errors);
    }
}

fn validate_series(object: &Event, errors: &mut Errors) {
    let Some(series) = &object.series else { return };
    if series.count < 2 {
        errors.invalid(Path::root("series.count"), "", "should be at least 2");
    }
    if is_zero(series.last_observed_time.0) {
        errors.required(Path::root("series.lastObservedTime"), "");
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update};
    use serde_json::{Value, json};

    const KIND: (&str, &str, &str) = ("events.k8s.io", "v1", "Event");

    fn event(change: fn(&mut Value)) -> Value {
        let mut event = json!({"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c",
            "reportingInstance": "i", "action": "A", "reason": "R", "type": "Normal", "note": "n",
            "regarding": {"kind": "Pod", "namespace": "ns", "name": "p"}});
        change(&mut event);
        event
    }

    fn check(change: fn(&mut Value), expect: &str) {
        check_create(KIND.0, KIND.1, KIND.2, event(change), expect);
    }

    #[test]
    fn a_new_event() {
        check(|_| {}, "");
        check(|e| e["action"] = json!(""), "action: Required value");
        check(
            |e| e["regarding"]["namespace"] = json!(""),
            "involvedObject.namespace: Invalid value: \"\": does not match event.namespace",
        );
        check(
            |e| e["note"] = json!("n".repeat(1025)),
            "message: Invalid value: \"\": can have at most 1024 characters",
        );
        check(|e| e["deprecatedSource"] = json!({"component": "c"}), "source: Invalid value: \"\": needs to be unset");
    }

    #[test]
    fn only_the_series_of_an_event_changes() {
        let update = |change: fn(&mut Value), expect: &str| {
            check_update(KIND.0, KIND.1, KIND.2, event(change), event(|_| {}), expect);
        };
        update(|e| e["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}), "");
        update(
            |e| e["series"] = json!({"count": 1}),
            "[series.count: Invalid value: \"\": should be at least 2, series.lastObservedTime: Required value]",
        );
        update(|e| e["note"] = json!("m"), "message: Invalid value: \"m\": field is immutable");
        update(
            |e| e["action"] = json!(""),
            "[action: Required value, action: Invalid value: \"\": field is immutable]",
        );
    }
}

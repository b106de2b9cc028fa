//! What both forms of an event (core and `events.k8s.io`) must satisfy: where it stands and who reports.

use crate::field::{Errors, Path};
use crate::names::qualified_name;

/// Of an instance, an action and a reason.
const WORD_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

/// An event's words, whatever its form calls them.
pub struct EventWords<'a> {
    pub namespace: &'a str,
    /// The namespace of the object that the event is about.
    pub involved_namespace: &'a str,
    /// Whether it has an event time, as events of the new style do.
    pub timed: bool,
    /// The name of the field that holds `controller`.
    pub controller_field: &'static str,
    pub controller: &'a str,
    pub instance: &'a str,
    pub action: &'a str,
    pub reason: &'a str,
    pub note: &'a str,
}

pub fn validate_event(event: &EventWords<'_>, errors: &mut Errors) {
    let (own, involved) = (event.namespace, event.involved_namespace);
    let agrees = match (event.timed, involved.is_empty()) {
        (false, true) => matches!(own, "" | "default"),
        (false, false) => own == involved,
        (true, true) => matches!(own, "default" | "kube-system"),
        (true, false) => true,
    };
    if !agrees {
        let path = Path::root("involvedObject").child("namespace");
        errors.invalid(path, involved, "does not match event.namespace");
    }
    if event.timed {
        validate_report(event, errors);
    }
}

fn validate_report(event: &EventWords<'_>, errors: &mut Errors) {
    let path = Path::root(event.controller_field);
    if event.controller.is_empty() {
        errors.required(path.clone(), "");
    }
    errors.invalid_each(&path, event.controller, qualified_name(event.controller));
    let words = [("reportingInstance", event.instance), ("action", event.action), ("reason", event.reason)];
    for (name, word) in words {
        if word.is_empty() {
            errors.required(Path::root(name), "");
        }
        validate_length(name, word, WORD_BYTES_MAX, errors);
    }
    validate_length("message", event.note, NOTE_BYTES_MAX, errors);
}

fn validate_length(name: &str, value: &str, bytes_max: usize, errors: &mut Errors) {
    if value.len() > bytes_max {
        errors.invalid(Path::root(name), "", format!("can have at most {bytes_max} characters"));
    }
}

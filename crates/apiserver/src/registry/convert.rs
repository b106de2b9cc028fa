//! Kinds that are stored in another version than they are served in.
//!
//! Input: an object as a value. Output: the same object in the other version's fields, in place.
//! Invariant: storage -> served -> storage is the identity for what either version can say.

use api::kinds::Kind;
use serde_json::Value;

/// Both directions between a served version and the stored one.
pub struct Conversion {
    pub from_storage: fn(&mut Value),
    pub to_storage: fn(&mut Value),
}

/// `None`: stored as served.
pub fn conversion(kind: &Kind) -> Option<&'static Conversion> {
    match (kind.group, kind.plural) {
        _ if kind.api_version == kind.storage_api_version => None,
        ("events.k8s.io", "events") => Some(&EVENTS),
        _ => None,
    }
}

static EVENTS: Conversion = Conversion { from_storage: events_from_storage, to_storage: events_to_storage };

/// (core/v1, events.k8s.io/v1) names of the same field.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn events_from_storage(event: &mut Value) {
    for (core, served) in EVENT_FIELDS {
        rename(event, core, served);
    }
}

fn events_to_storage(event: &mut Value) {
    for (core, served) in EVENT_FIELDS {
        rename(event, served, core);
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Value::Object(map) = object
        && let Some(value) = map.remove(from)
    {
        map.insert(to.to_owned(), value);
    }
}

//! The zero of times that OpenAPI requires: upstream's structs hold one and print `null`, the types of k8s-openapi, whose `Time` has
//! no zero, take neither `null` nor nothing.
//!
//! Input: an object whose required times may be `null` or left out. Output: the same with the zero time there, and back.
//! Invariant: what is stored and served never holds the zero as text.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::schema::{self, MessageRef, Type};

/// The zero of Go's time, as the structs read it.
const ZERO: &str = "0001-01-01T00:00:00Z";

/// Whether an object of this kind may hold such a time: others are spared the look.
pub fn may_occur(group: &str, version: &str, kind: &str) -> bool {
    static KINDS: OnceLock<HashSet<[&str; 3]>> = OnceLock::new();
    let kinds = KINDS.get_or_init(|| {
        let kinds = schema::messages().filter(|message| message.is_kind);
        let holders = kinds.filter(|kind| requires_time(*kind, &mut HashSet::new())).map(MessageRef::get);
        holders.map(|kind| [kind.package.group.unwrap_or_default(), kind.package.version, kind.name]).collect()
    });
    kinds.contains(&[group, version, kind])
}

fn requires_time(message: MessageRef, seen: &mut HashSet<MessageRef>) -> bool {
    seen.insert(message)
        && message.get().fields.iter().any(|field| match field.ty {
            Type::Time | Type::MicroTime => field.required,
            Type::Message(inner) => requires_time(inner, seen),
            _ => false,
        })
}

/// `object` as the structs can read it.
pub fn filled(object: &Value) -> Cow<'_, Value> {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let is_unset = conditions.filter_map(Value::as_object).any(|condition| lacks(condition, "lastTransitionTime"))
        || object["series"].as_object().is_some_and(|series| lacks(series, "lastObservedTime"));
    if !is_unset {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    each_required(&mut object, |holder, name| {
        if lacks(holder, name) {
            holder.insert(name.to_owned(), json!(ZERO));
        }
    });
    Cow::Owned(object)
}

/// Undoes [`filled`] in what a struct was written as.
pub fn clear(object: &mut Value) {
    each_required(object, |holder, name| {
        let time = holder.get(name).and_then(Value::as_str).and_then(|time| time.parse().ok());
        if time.is_some_and(is_zero) {
            holder.remove(name);
        }
    });
}

/// Whether the client left the time out.
pub fn is_zero(time: Timestamp) -> bool {
    ZERO.parse::<Timestamp>().is_ok_and(|zero| time == zero)
}

fn lacks(holder: &Map<String, Value>, name: &str) -> bool {
    holder.get(name).is_none_or(Value::is_null)
}

/// `meta/v1.Condition` (kinds with conditions of their own have an optional time there) and the series of an Event.
fn each_required(object: &mut Value, mut change: impl FnMut(&mut Map<String, Value>, &str)) {
    let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        change(condition, "lastTransitionTime");
    }
    if let Some(series) = object.get_mut("series").and_then(Value::as_object_mut) {
        change(series, "lastObservedTime");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_left_out_is_zero_in_the_struct_and_nowhere_else() {
        let check = |object: Value, expect: Value| {
            let mut filled = filled(&object).into_owned();
            assert_eq!(filled, expect);
            clear(&mut filled);
            let mut without = object;
            each_required(&mut without, |holder, name| {
                if lacks(holder, name) {
                    holder.remove(name);
                }
            });
            assert_eq!(filled, without);
        };
        let named = |condition: Value| json!({"status": {"conditions": [condition]}});
        check(
            named(json!({"type": "A", "lastTransitionTime": null})),
            named(json!({"type": "A", "lastTransitionTime": ZERO})),
        );
        check(named(json!({"type": "A"})), named(json!({"type": "A", "lastTransitionTime": ZERO})));
        let set = named(json!({"type": "A", "lastTransitionTime": "2026-01-01T00:00:00Z"}));
        check(set.clone(), set);
        check(json!({"series": {"count": 2}}), json!({"series": {"count": 2, "lastObservedTime": ZERO}}));
        check(json!({"metadata": {}}), json!({"metadata": {}}));
    }

    /// What [`each_required`] names is what the schema has.
    #[test]
    fn no_other_kind_requires_a_time() {
        let named = |short: &str| schema::message(short).unwrap();
        let holders: Vec<_> = schema::messages()
            .filter(|message| {
                let is_required = |ty| move |field: &&schema::Field| field.required && field.ty == ty;
                let fields = message.get().fields;
                fields.iter().any(|field| is_required(Type::Time)(&field) || is_required(Type::MicroTime)(&field))
            })
            .collect();
        // The time of an Event itself is optional in the structs.
        assert_eq!(holders, [named("events/v1.Event"), named("events/v1.EventSeries"), named("meta/v1.Condition")]);
        assert!(may_occur("", "v1", "Service") && may_occur("policy", "v1", "PodDisruptionBudget"));
        assert!(!may_occur("", "v1", "Pod") && !may_occur("example.com", "v1", "Unknown"));
    }

    #[test]
    fn the_zero_is_found_with_fractions_too() {
        let mut event = json!({"series": {"count": 2, "lastObservedTime": "0001-01-01T00:00:00.000000Z"}});
        clear(&mut event);
        assert_eq!(event, json!({"series": {"count": 2}}));
    }
}

//! Strategic merge patch: a merge patch in which lists merge by key, as the schema table says.
//!
//! Source: the API conventions on strategic merge patch. Directives: `$patch: replace|delete|merge` in objects and list
//! elements, `$retainKeys`, `$setElementOrder/FIELD`, `$deleteFromPrimitiveList/FIELD`. What the schema does not know
//! merges as objects and replaces as lists. Invariant: no directive is left in the result.

use api::schema::{Field, MessageRef, Repeat};
use serde_json::{Map, Value};

use super::PatchError;
use crate::printed::printed;

type Object = Map<String, Value>;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` into `current`, an object described by `message`.
pub fn strategic(current: &Value, patch: &Value, message: Option<MessageRef>) -> Result<Value, PatchError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(malformed("a strategic merge patch and what it changes are objects"));
    };
    Ok(Value::Object(merge_objects(current.clone(), patch, message)?))
}

fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Malformed(text.into())
}

fn failed(text: impl Into<String>) -> PatchError {
    PatchError::Failed(text.into())
}

fn unknown_directive(patch: &Object) -> PatchError {
    let object = printed(&Value::Object(patch.clone()));
    failed(format!("unknown patch type: {} in map: {object}", printed(&patch[PATCH])))
}

/// A directive's value, if it is a list as it must be.
fn list_of(directive: &Value) -> Result<&[Value], PatchError> {
    directive.as_array().map(Vec::as_slice).ok_or_else(|| {
        let found = match directive {
            Value::String(_) => "string",
            Value::Object(_) => "map",
            Value::Bool(_) => "bool",
            _ => "number",
        };
        failed(format!("expected a []interface {{}}, but received a {found}"))
    })
}

fn merge_objects(mut current: Object, patch: &Object, message: Option<MessageRef>) -> Result<Object, PatchError> {
    match patch.get(PATCH).map(|directive| directive.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => return Ok(strip_object(patch)),
        Some(Some("delete")) => return Ok(Object::new()),
        Some(_) => return Err(unknown_directive(patch)),
    }
    retain_keys(&mut current, patch)?;
    for (key, value) in patch {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut current, field, value)?;
            continue;
        }
        let field = message.and_then(|m| m.get().json_field(key));
        let order = patch.get(&format!("{SET_ORDER}{key}"));
        merge_field(&mut current, key, value, Place { field, order })?;
    }
    reorder_unpatched(&mut current, patch, message)?;
    Ok(current)
}

/// What is known of the field being merged.
#[derive(Clone, Copy)]
struct Place<'a> {
    field: Option<&'static Field>,
    /// `$setElementOrder` for it.
    order: Option<&'a Value>,
}

impl Place<'_> {
    /// The message of the value itself: none for map fields, whose values have no fixed keys.
    fn message(&self) -> Option<MessageRef> {
        self.field.filter(|f| f.repeat != Repeat::Map).and_then(Field::message)
    }

    /// The message of a map's values.
    fn value_message(&self) -> Option<MessageRef> {
        self.field.filter(|f| f.repeat == Repeat::Map).and_then(Field::message)
    }

    fn merges(&self) -> bool {
        self.field.is_some_and(|f| f.patch.merge)
    }
}

fn merge_field(current: &mut Object, key: &str, value: &Value, place: Place<'_>) -> Result<(), PatchError> {
    let merged = match (current.get_mut(key).map(Value::take), value) {
        (_, Value::Null) => {
            current.remove(key);
            return Ok(());
        }
        (Some(Value::Object(old)), Value::Object(new)) if place.value_message().is_some() => {
            Value::Object(merge_map(old, new, place.value_message())?)
        }
        (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_objects(old, new, place.message())?),
        (Some(Value::Array(old)), Value::Array(new)) if place.merges() => Value::Array(merge_lists(old, new, place)?),
        (None, Value::Array(new)) if place.merges() => Value::Array(merge_lists(Vec::new(), new, place)?),
        (_, new) => strip(new),
    };
    current.insert(key.to_owned(), merged);
    Ok(())
}

/// A map field: every value is described by the same message.
fn merge_map(mut old: Object, new: &Object, message: Option<MessageRef>) -> Result<Object, PatchError> {
    for (key, value) in new {
        match (old.get_mut(key).map(Value::take), value) {
            (_, Value::Null) => {
                old.remove(key);
            }
            (Some(Value::Object(inner)), Value::Object(patch)) => {
                old.insert(key.clone(), Value::Object(merge_objects(inner, patch, message)?));
            }
            (_, value) => {
                old.insert(key.clone(), strip(value));
            }
        }
    }
    Ok(old)
}

fn retain_keys(current: &mut Object, patch: &Object) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let wrong = || malformed("invalid patch format of retainKeys");
    let keys = directive.as_array().ok_or_else(wrong)?;
    let mut named = patch.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    if named.any(|(key, _)| !keys.iter().any(|k| k == key)) {
        return Err(wrong());
    }
    current.retain(|key, _| keys.iter().any(|k| k == key));
    Ok(())
}

fn delete_from(current: &mut Object, field: &str, doomed: &Value) -> Result<(), PatchError> {
    if let Some(list) = current.get_mut(field).and_then(Value::as_array_mut) {
        let doomed = doomed.as_array().ok_or_else(|| malformed("invalid patch format of primitive list"))?;
        list.retain(|item| !doomed.contains(item));
    }
    Ok(())
}

fn merge_lists(old: Vec<Value>, patch: &[Value], place: Place<'_>) -> Result<Vec<Value>, PatchError> {
    match place.field.and_then(|f| f.merge_key) {
        Some(key) => merge_by_key(old, patch, key, place),
        None => {
            let mut merged = old.clone();
            let new = patch.iter().filter(|item| !old.contains(item));
            merged.extend(new.cloned());
            arrange(merged, &old, order_of(place, patch)?, None)
        }
    }
}

fn merge_by_key(
    old: Vec<Value>,
    patch: &[Value],
    key: &'static str,
    place: Place<'_>,
) -> Result<Vec<Value>, PatchError> {
    let mut merged = old.clone();
    let mut ordinary = Vec::new();
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).map(|directive| directive.as_str()) {
            None | Some(Some("merge")) => ordinary.push(item),
            Some(Some("replace")) => replace = true,
            Some(Some("delete")) => {
                let wanted = key_of(item, key)?;
                merged.retain(|element| element.get(key) != Some(wanted));
            }
            Some(_) => {
                return Err(item.as_object().map_or_else(|| malformed("list element is no object"), unknown_directive));
            }
        }
    }
    if replace {
        return Ok(ordinary.into_iter().map(strip).collect());
    }
    for item in &ordinary {
        merge_element(&mut merged, item, key, place.message())?;
    }
    let order = match place.order {
        Some(_) => order_of(place, patch)?.to_vec(),
        None => ordinary.into_iter().cloned().collect(),
    };
    arrange(merged, &old, &order, Some(key))
}

fn merge_element(
    merged: &mut Vec<Value>,
    item: &Value,
    key: &'static str,
    message: Option<MessageRef>,
) -> Result<(), PatchError> {
    let wanted = key_of(item, key)?;
    let Some(patch) = item.as_object() else { return Err(malformed("list element is no object")) };
    match merged.iter_mut().find(|element| element.get(key) == Some(wanted)) {
        Some(Value::Object(element)) => *element = merge_objects(std::mem::take(element), patch, message)?,
        _ => merged.push(strip(item)),
    }
    Ok(())
}

fn key_of<'a>(item: &'a Value, key: &str) -> Result<&'a Value, PatchError> {
    item.get(key).ok_or_else(|| failed(format!("map: {} does not contain declared merge key: {key}", printed(item))))
}

fn order_of<'a>(place: Place<'a>, patch: &'a [Value]) -> Result<&'a [Value], PatchError> {
    match place.order {
        None => Ok(patch),
        Some(order) => {
            let order = list_of(order)?;
            follows_order(patch, order, place.field.and_then(|f| f.merge_key))?;
            Ok(order)
        }
    }
}

/// What the patch sets must be in `$setElementOrder`, and in the order that it says.
fn follows_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let sets: Vec<&Value> = patch.iter().filter(|item| item.get(PATCH).is_none()).collect();
    let mut rest = order.iter();
    let follows = sets.iter().all(|item| rest.any(|ordered| same_element(item, ordered, key)));
    if follows {
        return Ok(());
    }
    let (sets, order) = (printed(&sets.into_iter().cloned().collect()), printed(&order.iter().cloned().collect()));
    Err(failed(format!("The order in patch list:\n{sets}\n doesn't match $setElementOrder list:\n{order}\n")))
}

/// Whether two elements are one: by the merge key, or as scalars.
fn same_element(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

/// Lists that the patch only reorders.
fn reorder_unpatched(current: &mut Object, patch: &Object, message: Option<MessageRef>) -> Result<(), PatchError> {
    for (directive, order) in patch {
        let Some(name) = directive.strip_prefix(SET_ORDER) else { continue };
        if patch.contains_key(name) {
            continue;
        }
        let Some(Value::Array(list)) = current.get_mut(name) else { continue };
        let order = list_of(order)?;
        let key = message.and_then(|m| m.get().json_field(name)).and_then(|f| f.merge_key);
        let old = std::mem::take(list);
        *list = arrange(old.clone(), &old, order, key)?;
    }
    Ok(())
}

/// Puts what the patch names in the patch's order, and everything else where it stood before relative to those.
fn arrange(merged: Vec<Value>, before: &[Value], order: &[Value], key: Option<&str>) -> Result<Vec<Value>, PatchError> {
    let position = |list: &[Value], item: &Value| list.iter().position(|other| same_element(other, item, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item).is_some());
    named.sort_by_key(|item| position(order, item));
    others.sort_by_key(|item| position(before, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    let mut arranged = Vec::new();
    while let (Some(other), Some(name)) = (others.peek(), named.peek()) {
        let other_first = matches!((position(before, other), position(before, name)), (Some(o), Some(n)) if o < n);
        arranged.extend(if other_first { others.next() } else { named.next() });
    }
    arranged.extend(named);
    arranged.extend(others);
    Ok(arranged)
}

/// A patch value as plain content: without directives and nulls.
fn strip(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(strip_object(object)),
        Value::Array(items) => {
            let kept = items.iter().filter(|item| item.get(PATCH).and_then(Value::as_str) != Some("delete"));
            Value::Array(
                kept.filter(|item| item.as_object().is_none_or(|o| o.len() != 1 || !o.contains_key(PATCH)))
                    .map(strip)
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

fn strip_object(object: &Object) -> Object {
    let kept = object.iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
    kept.map(|(key, value)| (key.clone(), strip(value))).collect()
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(current: Value, patch: Value, expect: Value) {
        let pod = api::schema::message("core/v1.PodSpec");
        assert_eq!(strategic(&current, &patch, pod), Ok(expect));
    }

    #[test]
    fn containers_merge_by_name_and_keep_their_place() {
        check(
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
            json!({"containers": [{"name": "b", "image": "2"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        );
    }

    #[test]
    fn new_elements_stand_where_the_order_says() {
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}], "containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}),
        );
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        );
    }

    #[test]
    fn elements_are_deleted_and_lists_replaced_by_directive() {
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        );
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"containers": [{"name": "c"}]}),
        );
    }

    #[test]
    fn lists_without_strategy_are_replaced() {
        check(
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        );
    }

    #[test]
    fn retain_keys_drops_the_other_volume_source() {
        check(
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
        );
    }

    #[test]
    fn maps_merge_and_nulls_remove() {
        check(
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"a": null, "c": "3"}}),
            json!({"nodeSelector": {"b": "2", "c": "3"}}),
        );
        check(json!({}), json!({"nodeSelector": {"a": null, "c": "3"}}), json!({"nodeSelector": {"c": "3"}}));
    }

    #[test]
    fn scalars_merge_as_a_set_and_are_deleted_by_directive() {
        let meta = api::schema::message("meta/v1.ObjectMeta");
        let merged = strategic(&json!({"finalizers": ["a", "b"]}), &json!({"finalizers": ["b", "c"]}), meta);
        assert_eq!(merged, Ok(json!({"finalizers": ["a", "b", "c"]})));
        let deleted =
            strategic(&json!({"finalizers": ["a", "b"]}), &json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), meta);
        assert_eq!(deleted, Ok(json!({"finalizers": ["b"]})));
    }

    #[test]
    fn what_no_list_can_take() {
        let check = |patch: Value, expect: &str| {
            let pod = api::schema::message("core/v1.PodSpec");
            let result = strategic(&json!({"containers": [{"name": "a"}]}), &patch, pod);
            assert_eq!(result, Err(PatchError::Failed(expect.to_owned())), "{patch}");
        };
        check(json!({"containers": [{"image": "1"}]}), "map: map[image:1] does not contain declared merge key: name");
        check(
            json!({"containers": [{"name": "a", "$patch": "leap"}]}),
            "unknown patch type: leap in map: map[$patch:leap name:a]",
        );
        check(
            json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}),
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        );
        check(
            json!({"$setElementOrder/containers": "a", "containers": []}),
            "expected a []interface {}, but received a string",
        );
    }

    #[test]
    fn replace_of_a_whole_object() {
        check(
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "replace", "runAsGroup": 2}}),
            json!({"securityContext": {"runAsGroup": 2}}),
        );
    }
}

//! JSON patch (RFC 6902), as the API has always read it.
//!
//! Input: the current object and the document. Output: the patched object, or nothing of it. Where the API is laxer than the RFC,
//! clients rely on it: `replace` adds the key of an object that is not there, a missing `value` is null, what is copied from a
//! missing key is null, a negative position counts from the end.

use serde_json::{Map, Value};

use super::PatchError;

/// Upstream's bound on the operations of one patch.
pub const OPERATIONS_MAX: usize = 10_000;
/// What all `copy` operations of one patch may add, as JSON; else a few of them double an object to any size.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// All operations, or none.
pub fn json(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = parse(patch)?;
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooLarge(operations.len()));
    }
    let mut patched = current.clone();
    let mut copied = 0;
    for operation in operations {
        apply(&mut patched, operation, &mut copied)?;
    }
    Ok(patched)
}

/// `null` is an empty patch.
fn parse(patch: &Value) -> Result<Vec<&Map<String, Value>>, PatchError> {
    let wrong = |found: &Value, place: &str| {
        let found = go_kind(found);
        PatchError::Malformed(format!("error decoding patch: json: cannot unmarshal {found} into Go {place}"))
    };
    let operations = match patch {
        Value::Null => return Ok(Vec::new()),
        Value::Array(operations) => operations,
        other => return Err(wrong(other, "value of type []handlers.jsonPatchOp")),
    };
    let mut parsed = Vec::with_capacity(operations.len());
    for operation in operations {
        let Value::Object(operation) = operation else {
            return Err(wrong(operation, "value of type handlers.jsonPatchOp"));
        };
        for name in ["op", "path", "from"] {
            if let Some(found) = operation.get(name).filter(|value| !value.is_string() && !value.is_null()) {
                return Err(wrong(found, &format!("struct field jsonPatchOp.{name} of type string")));
            }
        }
        parsed.push(operation);
    }
    Ok(parsed)
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn apply(document: &mut Value, operation: &Map<String, Value>, copied: &mut usize) -> Result<(), PatchError> {
    let text = |name: &str| {
        let given = operation.get(name).and_then(Value::as_str);
        given.ok_or_else(|| unfit(format!("operation without {name}")))
    };
    let value = || operation.get("value").cloned().unwrap_or_default();
    match text("op")? {
        "add" => place(document, text("path")?)?.add(value()),
        "remove" => place(document, text("path")?)?.remove().map(|_| ()),
        "replace" if text("path")?.is_empty() => {
            *document = value();
            if document.is_object() { Ok(()) } else { Err(unfit("the whole object is replaced by something else")) }
        }
        "replace" => place(document, text("path")?)?.replace(value()),
        "move" => {
            let moved = place(document, text("from")?)?.remove()?;
            place(document, text("path")?)?.add(moved)
        }
        "copy" => {
            let copy = place(document, text("from")?)?.get()?.cloned().unwrap_or_default();
            *copied += copy.to_string().len();
            if *copied > COPIED_BYTES_MAX {
                return Err(unfit(format!("copies of more than {COPIED_BYTES_MAX} bytes")));
            }
            place(document, text("path")?)?.add(copy)
        }
        "test" => test(document, text("path")?, &value()),
        other => Err(unfit(format!("Unexpected kind: {other}"))),
    }
}

fn unfit(text: impl Into<String>) -> PatchError {
    PatchError::Unfit(text.into())
}

fn test(document: &mut Value, path: &str, wanted: &Value) -> Result<(), PatchError> {
    let equal = match path {
        "" => &*document == wanted,
        path => place(document, path)?.get()?.unwrap_or(&Value::Null) == wanted,
    };
    if equal { Ok(()) } else { Err(unfit(format!("testing value {path} failed"))) }
}

/// What a path's last part is looked up in.
enum Place<'a> {
    Key(&'a mut Map<String, Value>, String),
    Position(&'a mut Vec<Value>, String),
}

/// Everything before the first slash of a path is ignored.
fn place<'a>(document: &'a mut Value, path: &str) -> Result<Place<'a>, PatchError> {
    let missing = || unfit(format!("doc is missing path: {path:?}"));
    let parts: Vec<String> = path.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let (last, parents) = parts.split_last().ok_or_else(missing)?;
    let mut at = document;
    for part in parents {
        at = match at {
            Value::Object(map) => map.get_mut(part),
            Value::Array(list) => match position(part, list.len()) {
                Ok(position) => list.get_mut(position),
                Err(_) => None,
            },
            _ => None,
        }
        .ok_or_else(missing)?;
    }
    match at {
        Value::Object(map) => Ok(Place::Key(map, last.clone())),
        Value::Array(list) => Ok(Place::Position(list, last.clone())),
        _ => Err(missing()),
    }
}

/// The position that `part` names in a list of `length` elements; the caller checks the upper end.
fn position(part: &str, length: usize) -> Result<usize, PatchError> {
    let number: i64 = part.parse().map_err(|_| unfit(format!("not a position: {part:?}")))?;
    let counted = if number < 0 { number + i64::try_from(length).unwrap_or(i64::MAX) } else { number };
    usize::try_from(counted).map_err(|_| unfit(format!("Unable to access invalid index: {number}")))
}

impl Place<'_> {
    /// `None`: an object without the key.
    fn get(&self) -> Result<Option<&Value>, PatchError> {
        match self {
            Self::Key(map, key) => Ok(map.get(key)),
            Self::Position(list, part) => {
                let at = position(part, list.len())?;
                list.get(at).map(Some).ok_or_else(|| unfit(format!("Unable to access invalid index: {part}")))
            }
        }
    }

    fn add(self, value: Value) -> Result<(), PatchError> {
        match self {
            Self::Key(map, key) => {
                map.insert(key, value);
            }
            Self::Position(list, part) if part == "-" => list.push(value),
            Self::Position(list, part) => {
                let at = position(&part, list.len() + 1)?;
                if at > list.len() {
                    return Err(unfit(format!("Unable to access invalid index: {part}")));
                }
                list.insert(at, value);
            }
        }
        Ok(())
    }

    fn replace(self, value: Value) -> Result<(), PatchError> {
        self.get()?;
        match self {
            Self::Key(map, key) => {
                map.insert(key, value);
            }
            Self::Position(list, part) => {
                let at = position(&part, list.len())?;
                list[at] = value;
            }
        }
        Ok(())
    }

    fn remove(self) -> Result<Value, PatchError> {
        match self {
            Self::Key(map, key) => {
                map.remove(&key).ok_or_else(|| unfit(format!("Unable to remove nonexistent key: {key}")))
            }
            Self::Position(list, part) => {
                let at = position(&part, list.len())?;
                if at >= list.len() {
                    return Err(unfit(format!("Unable to access invalid index: {part}")));
                }
                Ok(list.remove(at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(operations: Value, expect: Value) {
        let object = json!({"a": "1", "l": ["x", "y"], "m": {"k~/": 1}});
        match json(&object, &operations) {
            Ok(patched) => assert_eq!(patched, expect, "{operations}"),
            Err(error) => assert_eq!(json!(error.to_string()), expect, "{operations}"),
        }
    }

    fn with(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"a": "1", "l": ["x", "y"], "m": {"k~/": 1}});
        change(&mut object);
        object
    }

    #[test]
    fn operations_by_the_book() {
        check(json!([{"op": "add", "path": "/l/-", "value": "z"}]), with(|o| o["l"] = json!(["x", "y", "z"])));
        check(json!([{"op": "add", "path": "/l/0", "value": "z"}]), with(|o| o["l"] = json!(["z", "x", "y"])));
        check(json!([{"op": "replace", "path": "/m/k~0~1", "value": 2}]), with(|o| o["m"]["k~/"] = json!(2)));
        check(json!([{"op": "remove", "path": "/l/1"}]), with(|o| o["l"] = json!(["x"])));
        check(json!([{"op": "copy", "from": "/a", "path": "/b"}]), with(|o| o["b"] = json!("1")));
        check(
            json!([{"op": "move", "from": "/l/0", "path": "/a"}]),
            with(|o| (o["a"], o["l"]) = (json!("x"), json!(["y"]))),
        );
        check(json!([{"op": "test", "path": "/a", "value": "1"}]), with(|_| {}));
        check(json!(null), with(|_| {}));
    }

    #[test]
    fn laxer_than_the_book() {
        check(json!([{"op": "replace", "path": "/b", "value": 1}]), with(|o| o["b"] = json!(1)));
        check(json!([{"op": "add", "path": "/b"}]), with(|o| o["b"] = json!(null)));
        check(json!([{"op": "copy", "from": "/none", "path": "/b"}]), with(|o| o["b"] = json!(null)));
        check(json!([{"op": "remove", "path": "/l/-1"}]), with(|o| o["l"] = json!(["x"])));
        check(json!([{"op": "test", "path": "/l/00", "value": "x"}]), with(|_| {}));
        check(json!([{"op": "add", "path": "x/b", "value": 1}]), with(|o| o["b"] = json!(1)));
    }

    #[test]
    fn what_does_not_fit() {
        check(
            json!([{"op": "add", "path": "/b", "value": 2}, {"op": "test", "path": "/a", "value": 9}]),
            json!("testing value /a failed"),
        );
        check(json!([{"op": "remove", "path": "/b"}]), json!("Unable to remove nonexistent key: b"));
        check(json!([{"op": "add", "path": "/b/c", "value": 1}]), json!("doc is missing path: \"/b/c\""));
        check(json!([{"op": "replace", "path": "/l/2", "value": 1}]), json!("Unable to access invalid index: 2"));
        check(json!([{"op": "remove", "path": "/l/-3"}]), json!("Unable to access invalid index: -3"));
        check(json!([{"op": "leap", "path": "/a"}]), json!("Unexpected kind: leap"));
        check(json!([{"path": "/a"}]), json!("operation without op"));
        check(
            json!([{"op": "replace", "path": "", "value": []}]),
            json!("the whole object is replaced by something else"),
        );
    }

    #[test]
    fn what_is_no_patch() {
        let wrong = "error decoding patch: json: cannot unmarshal";
        check(json!({"op": "add"}), json!(format!("{wrong} object into Go value of type []handlers.jsonPatchOp")));
        check(json!(["add"]), json!(format!("{wrong} string into Go value of type handlers.jsonPatchOp")));
        check(json!([{"op": 1}]), json!(format!("{wrong} number into Go struct field jsonPatchOp.op of type string")));
        let many = vec![json!({"op": "test", "path": "/a", "value": "1"}); OPERATIONS_MAX + 1];
        check(json!(many), json!("The allowed maximum operations in a JSON patch is 10000, got 10001"));
    }

    #[test]
    fn copies_are_bounded() {
        let object = json!({"a": {"x": "x".repeat(10_000)}});
        let double = json!({"op": "copy", "from": "/a", "path": "/a/b"});
        assert!(matches!(json(&object, &json!(vec![double; 40])), Err(PatchError::Unfit(_))));
    }
}

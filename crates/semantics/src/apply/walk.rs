//! Walks over values by shape: which paths a value has, how two values differ, merging and removing.
//!
//! All are linear in the size of the values but for the depth; equal parts are skipped. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::field_set::{FieldSet, field_element};
use super::shape::Shape;

/// The paths that `value` sets.
pub(super) fn paths_of(value: &Value, shape: Shape) -> FieldSet {
    let mut set = FieldSet::default();
    collect(value, shape, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, shape: Shape, path: &mut Vec<String>, set: &mut FieldSet) {
    let shape = shape.deduce(value);
    match value {
        Value::Object(map) if !matches!(shape, Shape::Whole) => {
            for (name, child) in map {
                let (below, named) = shape.entry(name);
                path.push(field_element(name));
                collect(child, below, path, set);
                let empty = child.is_null() || child.as_object().is_some_and(Map::is_empty);
                if empty || !named {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Value::Array(items) if shape.is_list() => {
            for item in items {
                let Some(element) = shape.path_element(item) else { continue };
                path.push(element);
                collect(item, shape.element(), path, set);
                set.insert(path);
                path.pop();
            }
        }
        Value::Null if shape.is_object() || shape.is_list() => {}
        _ => set.insert(path),
    }
}

/// How one value became another.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    pub(super) fn without(self, reset: &[Vec<&str>]) -> Self {
        let strip = |set: FieldSet| reset.iter().fold(set, |set, fields| set.without_prefix(fields));
        Self { added: strip(self.added), modified: strip(self.modified), removed: strip(self.removed) }
    }
}

pub(super) fn compare(old: &Value, new: &Value, shape: Shape) -> Comparison {
    let mut result = Comparison::default();
    compare_at(Some(old), Some(new), shape, &mut Vec::new(), &mut result);
    result
}

fn compare_at(old: Option<&Value>, new: Option<&Value>, shape: Shape, path: &mut Vec<String>, out: &mut Comparison) {
    if old == new {
        return;
    }
    let shape = match (old, new) {
        (Some(a), Some(b)) if matches!(shape, Shape::Deduced) && a.is_object() != b.is_object() => Shape::Whole,
        (_, Some(value)) | (Some(value), None) => shape.deduce(value),
        (None, None) => shape,
    };
    let leaf = match shape {
        Shape::Whole => true,
        _ if shape.is_list() => is_empty_list(old) && is_empty_list(new),
        _ => is_empty_object(old) && is_empty_object(new),
    };
    if !leaf && shape.is_list() {
        compare_lists(old, new, shape, path, out);
    } else if !leaf {
        compare_objects(old, new, shape, path, out);
    }
    match (old, new) {
        (None, _) => out.added.insert(path),
        (_, None) => out.removed.insert(path),
        _ if leaf => out.modified.insert(path),
        _ => {}
    }
}

fn is_empty_list(value: Option<&Value>) -> bool {
    value.and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn is_empty_object(value: Option<&Value>) -> bool {
    value.and_then(Value::as_object).is_none_or(Map::is_empty)
}

fn compare_objects(
    old: Option<&Value>,
    new: Option<&Value>,
    shape: Shape,
    path: &mut Vec<String>,
    out: &mut Comparison,
) {
    let empty = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let new = new.and_then(Value::as_object).unwrap_or(&empty);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        path.push(field_element(name));
        compare_at(old.get(name), new.get(name), shape.entry(name).0, path, out);
        path.pop();
    }
}

fn compare_lists(old: Option<&Value>, new: Option<&Value>, shape: Shape, path: &mut Vec<String>, out: &mut Comparison) {
    let (old, new) = (index(old, shape), index(new, shape));
    let elements: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let none = Vec::new();
    for element in elements {
        let before = old.get(element).unwrap_or(&none);
        let now = new.get(element).unwrap_or(&none);
        path.push(element.clone());
        match (before.len(), now.len()) {
            (0 | 1, 0 | 1) => {
                compare_at(before.first().copied(), now.first().copied(), shape.element(), path, out);
            }
            (0 | 1, _) => out.added.insert(path),
            (_, 0 | 1) => out.removed.insert(path),
            _ if before != now => out.modified.insert(path),
            _ => {}
        }
        path.pop();
    }
}

/// The elements of a list by their path element; equal ones together, in order.
fn index(list: Option<&Value>, shape: Shape) -> BTreeMap<String, Vec<&Value>> {
    let mut index: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        if let Some(element) = shape.path_element(item) {
            index.entry(element).or_default().push(item);
        }
    }
    index
}

/// `live` with everything that `config` sets. Errors, with their place: an element without its keys in a list of `config`.
pub(super) fn merge(live: &Value, config: &Value, shape: Shape) -> Result<Value, String> {
    let shape = shape.deduce(config);
    match (live, config) {
        (Value::Object(old), Value::Object(new)) if !matches!(shape, Shape::Whole) => {
            let mut merged = old.clone();
            for (name, value) in new {
                let merged_value = match old.get(name) {
                    Some(before) => merge(before, value, shape.entry(name).0)?,
                    None => value.clone(),
                };
                merged.insert(name.clone(), merged_value);
            }
            Ok(Value::Object(merged))
        }
        (_, Value::Array(new)) if shape.is_list() => {
            let none = Vec::new();
            merge_lists(live.as_array().unwrap_or(&none), new, shape).map(Value::Array)
        }
        (before, Value::Null) if shape.is_object() || shape.is_list() => Ok(before.clone()),
        _ => Ok(config.clone()),
    }
}

/// The order of `new` holds for what it names; other elements stay before the next one that both have.
fn merge_lists(old: &[Value], new: &[Value], shape: Shape) -> Result<Vec<Value>, String> {
    let mut wanted: Vec<(String, &Value)> = Vec::with_capacity(new.len());
    let mut position: BTreeMap<String, usize> = BTreeMap::new();
    for (at, item) in new.iter().enumerate() {
        let Some(element) = shape.path_element(item) else {
            return Err(format!("element {at}: associative list has an element without its keys"));
        };
        if position.insert(element.clone(), at).is_some() {
            return Err(format!("duplicate entries for key {}", FieldSetPrint(&element)));
        }
        wanted.push((element, item));
    }
    let before = index_first(old, shape);
    let mut merged = Vec::with_capacity(old.len() + new.len());
    let mut emitted = 0;
    let mut emit_to = |end: usize, merged: &mut Vec<Value>| -> Result<(), String> {
        while emitted < end {
            let (element, item) = &wanted[emitted];
            merged.push(match before.get(element) {
                Some(old) => merge(old, item, shape.element())?,
                None => (*item).clone(),
            });
            emitted += 1;
        }
        Ok(())
    };
    for item in old {
        match shape.path_element(item).and_then(|element| position.get(&element)) {
            Some(at) => emit_to(at + 1, &mut merged)?,
            None => merged.push(item.clone()),
        }
    }
    emit_to(wanted.len(), &mut merged)?;
    Ok(merged)
}

struct FieldSetPrint<'a>(&'a str);

impl std::fmt::Display for FieldSetPrint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut set = FieldSet::default();
        set.insert(&[self.0.to_owned()]);
        f.write_str(&set.printed_paths().concat())
    }
}

fn index_first(list: &[Value], shape: Shape) -> BTreeMap<String, &Value> {
    let mut index = BTreeMap::new();
    for item in list {
        if let Some(element) = shape.path_element(item) {
            index.entry(element).or_insert(item);
        }
    }
    index
}

/// `value` without what stands at the paths of `doomed`. What becomes empty by that is gone too.
pub(super) fn remove(value: &Value, doomed: &FieldSet, shape: Shape) -> Option<Value> {
    let shape = shape.deduce(value);
    match value {
        Value::Object(map) if !matches!(shape, Shape::Whole) && !map.is_empty() => {
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(name, child)| {
                    let element = field_element(name);
                    let child = remove_child(child, &element, doomed, shape.entry(name).0)?;
                    Some((name.clone(), child))
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(items) if shape.is_list() && !items.is_empty() => {
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| match shape.path_element(item) {
                    Some(element) => remove_child(item, &element, doomed, shape.element()),
                    None => Some(item.clone()),
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        other => Some(other.clone()),
    }
}

fn remove_child(child: &Value, element: &str, doomed: &FieldSet, shape: Shape) -> Option<Value> {
    if doomed.has(element) {
        return None;
    }
    match doomed.below(element) {
        Some(below) => remove(child, below, shape),
        None => Some(child.clone()),
    }
}

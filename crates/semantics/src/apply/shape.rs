//! How a value is owned: whole, field by field, entry by entry, or element by element.
//!
//! Input: the schema table (or nothing, for custom resources without one). Output: the `Shape` of a value and of each part.

use api::schema::{Field, ListType, MessageRef, Repeat, Type};
use serde_json::{Map, Value};

use super::field_set::{key_element, value_element};

/// The ownership of one value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Owned as a whole: scalars, atomic lists, maps and structs.
    Whole,
    /// A struct, owned field by field.
    Struct(MessageRef),
    /// A map, owned entry by entry; the values have the shape of this field's type.
    Entries(&'static Field),
    /// A JSON object of which only the top level is owned entry by entry.
    OpenObject,
    /// A list whose elements are found by key fields.
    Keyed(&'static Field),
    /// A list of scalars in which each occurs once.
    Set,
    /// Not in the table: objects by entry, everything else as a whole.
    Deduced,
}

impl Shape {
    pub(super) fn of_message(message: Option<MessageRef>) -> Self {
        message.map_or(Self::Deduced, Self::Struct)
    }

    /// The shape of the entry `name` of a value of this shape, and whether the table names it.
    pub(super) fn entry(self, name: &str) -> (Self, bool) {
        match self {
            Self::Struct(message) => match message.get().json_field(name) {
                Some(field) => (of_field(field), true),
                None => (Self::Deduced, false),
            },
            Self::Entries(field) => (of_value(field), false),
            Self::Deduced => (Self::Deduced, false),
            _ => (Self::Whole, false),
        }
    }

    /// The shape of the elements of a list of this shape.
    pub(super) fn element(self) -> Self {
        match self {
            Self::Keyed(field) => of_value(field),
            _ => Self::Whole,
        }
    }

    /// The shape below a path element in written form, and whether it is a field that the table names.
    pub(super) fn below(self, element: &str) -> (bool, Self) {
        match element.strip_prefix("f:") {
            Some(name) => {
                let (shape, named) = self.entry(name);
                (named, shape)
            }
            None => (false, self.element()),
        }
    }

    pub(super) fn is_object(self) -> bool {
        matches!(self, Self::Struct(_) | Self::Entries(_) | Self::OpenObject)
    }

    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Keyed(_) | Self::Set)
    }

    /// What `Deduced` means for this value; other shapes are what they are.
    pub(super) fn deduce(self, value: &Value) -> Self {
        match self {
            Self::Deduced if !value.is_object() => Self::Whole,
            other => other,
        }
    }

    /// How a list element is written in a path. `None`: it has no key, or is no scalar in a set.
    pub(super) fn path_element(self, item: &Value) -> Option<String> {
        match self {
            Self::Set if !item.is_object() && !item.is_array() && !item.is_null() => Some(value_element(item)),
            Self::Keyed(field) => keys_of(field, item).map(key_element),
            _ => None,
        }
    }
}

pub(super) fn of_field(field: &'static Field) -> Shape {
    match (field.repeat, &field.list_type) {
        (Repeat::List, ListType::Map(_)) => Shape::Keyed(field),
        (Repeat::List, ListType::Set) => Shape::Set,
        (Repeat::List, _) => Shape::Whole,
        (Repeat::Map, _) if field.map_atomic => Shape::Whole,
        (Repeat::Map, _) => Shape::Entries(field),
        (Repeat::One, _) if field.map_atomic => Shape::Whole,
        (Repeat::One, _) => of_value(field),
    }
}

/// One value of the field's type, whatever the field's own repetition.
fn of_value(field: &'static Field) -> Shape {
    match field.ty {
        Type::Message(message) if message.get().atomic && !field.map_granular => Shape::Whole,
        Type::Message(message) => Shape::Struct(message),
        Type::Raw | Type::Fields => Shape::OpenObject,
        _ => Shape::Whole,
    }
}

/// The key fields of an element; a key that is left out counts with its default, if it has one.
fn keys_of(field: &'static Field, item: &Value) -> Option<Map<String, Value>> {
    let ListType::Map(names) = &field.list_type else { return None };
    let object = item.as_object()?;
    let message = field.message();
    let mut keys = Map::new();
    for name in names {
        let given = object.get(*name).filter(|value| !value.is_null()).cloned();
        let default = || {
            let field = message?.get().json_field(name)?;
            serde_json::from_str(field.default?).ok()
        };
        if let Some(value) = given.or_else(default) {
            keys.insert((*name).to_owned(), value);
        }
    }
    (!keys.is_empty()).then_some(keys)
}

/// A message's JSON form with nothing set: what is never absent is there, empty or null.
pub(super) fn empty_of(message: Option<MessageRef>) -> Value {
    let mut map = Map::new();
    let Some(message) = message else { return Value::Object(map) };
    for entry in message.get().json_fields() {
        let field = entry.field;
        let nullable = field.pointer || field.repeat != Repeat::One;
        match field.ty {
            Type::Message(inner) if !nullable && !field.omit_zero => {
                map.insert(field.name.to_owned(), empty_of(Some(inner)));
            }
            _ if nullable && !field.omit_empty => {
                map.insert(field.name.to_owned(), Value::Null);
            }
            _ => {}
        }
    }
    Value::Object(map)
}

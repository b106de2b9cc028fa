//! The adapter that makes a `Strategy` of a kind's `Rules`, written over the k8s-openapi struct.
//!
//! Input: JSON values of the kind. Output: the same, passed through the struct. Each write decodes the object once,
//! however many rules look at it. A value that does not fit the struct becomes a field error, never a panic.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::{Errors, Path};
use crate::strategy::{Context, Shape, Strategy, Subresource, Write, common_reset_fields};

/// What is special about one kind. Every method has the meaning "nothing special" by default.
pub trait Rules: Send + Sync + 'static {
    type Object: Serialize + DeserializeOwned + Send + Sync;
    const SHAPE: Shape;
    /// Fields for field selectors, besides name and namespace.
    const SELECTABLE: &'static [Selectable] = &[];

    /// Fills what the client left out. Idempotent.
    fn default(_object: &mut Self::Object) {}

    /// Sets what the server decides at creation. Status and generation are handled by `SHAPE`.
    fn prepare_create(_context: &Context, _object: &mut Self::Object) {}

    fn validate_create(_context: &Context, _object: &Self::Object, _errors: &mut Errors) {}

    /// Sets or restores what this write may not change. Status and generation are handled by `SHAPE`.
    fn prepare_update(_write: &Write<'_>, _object: &mut Self::Object, _old: &Self::Object) {}

    fn validate_update(_write: &Write<'_>, _object: &Self::Object, _old: &Self::Object, _errors: &mut Errors) {}

    /// Warnings for the client; `old` is absent at creation.
    fn warnings(_object: &Self::Object, _old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// Paths a write of `sub` cannot own.
    fn reset_fields(sub: Subresource) -> Vec<Vec<&'static str>> {
        common_reset_fields(Self::SHAPE, sub)
    }
}

/// A field that field selectors may name.
#[derive(Debug, Clone, Copy)]
pub struct Selectable {
    /// The name in the selector.
    pub name: &'static str,
    /// Dotted paths in the object; the first that holds a value counts. Empty: the name is the path.
    pub paths: &'static [&'static str],
    /// The value if the object has none there.
    pub absent: &'static str,
}

impl Selectable {
    pub const fn new(name: &'static str) -> Self {
        Self { name, paths: &[], absent: "" }
    }

    pub const fn at(name: &'static str, paths: &'static [&'static str]) -> Self {
        Self { name, paths, absent: "" }
    }

    pub const fn flag(name: &'static str) -> Self {
        Self { name, paths: &[], absent: "false" }
    }

    pub const fn number(name: &'static str) -> Self {
        Self { name, paths: &[], absent: "0" }
    }

    fn read(&self, object: &Value) -> String {
        let named = [self.name];
        let paths = if self.paths.is_empty() { named.as_slice() } else { self.paths };
        paths.iter().find_map(|path| read_path(object, path)).unwrap_or_else(|| self.absent.to_owned())
    }
}

fn read_path(object: &Value, path: &str) -> Option<String> {
    match path.split('.').fold(object, |value, field| &value[field]) {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    }
}

/// The strategy made of `R`.
#[derive(Debug)]
pub struct Typed<R>(PhantomData<R>);

impl<R> Typed<R> {
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<R> Default for Typed<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Rules> Strategy for Typed<R> {
    fn shape(&self) -> Shape {
        R::SHAPE
    }

    fn default(&self, object: &mut Value) -> Result<(), String> {
        let mut typed = decode::<R>(object)?;
        R::default(&mut typed);
        *object = serde_json::to_value(&typed).map_err(|e| e.to_string())?;
        Ok(())
    }

    fn create(&self, context: &Context, object: &mut Value) -> Result<Vec<String>, Errors> {
        let mut typed = decode::<R>(object).map_err(misfit)?;
        R::prepare_create(context, &mut typed);
        *object = encode(&typed)?;
        let mut errors = Errors::new();
        R::validate_create(context, &typed, &mut errors);
        if errors.is_empty() { Ok(R::warnings(&typed, None)) } else { Err(errors) }
    }

    fn update(&self, write: &Write<'_>, object: &mut Value, old: &Value) -> Result<Vec<String>, Errors> {
        let mut typed = decode::<R>(object).map_err(misfit)?;
        let old = decode::<R>(old).map_err(misfit)?;
        R::prepare_update(write, &mut typed, &old);
        *object = encode(&typed)?;
        let mut errors = Errors::new();
        R::validate_update(write, &typed, &old, &mut errors);
        if errors.is_empty() { Ok(R::warnings(&typed, Some(&old))) } else { Err(errors) }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        R::SELECTABLE.iter().map(|field| (field.name, field.read(object))).collect()
    }

    fn selectable_names(&self) -> Vec<&'static str> {
        R::SELECTABLE.iter().map(|field| field.name).collect()
    }

    fn reset_fields(&self, sub: Subresource) -> Vec<Vec<&'static str>> {
        R::reset_fields(sub)
    }
}

fn decode<R: Rules>(object: &Value) -> Result<R::Object, String> {
    R::Object::deserialize(object).map_err(|e| e.to_string())
}

fn encode<T: Serialize>(object: &T) -> Result<Value, Errors> {
    serde_json::to_value(object).map_err(|e| misfit(e.to_string()))
}

fn misfit(detail: String) -> Errors {
    let mut errors = Errors::new();
    errors.internal(Path::default(), detail);
    errors
}

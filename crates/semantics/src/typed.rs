//! The adapter that makes a `Strategy` of a kind's `Rules`, written over the k8s-openapi struct.
//!
//! Input: JSON values of the kind. Output: the same, passed through the struct. Each write decodes the object once,
//! however many rules look at it. A value that does not fit the struct becomes a field error, never a panic.

use std::marker::PhantomData;

use api::zero_time;
use k8s_openapi::api::core::v1::PodSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::absent_selector;
use crate::defaults::disabled::drop_disabled;
use crate::field::{Errors, Path};
use crate::strategy::{Context, Shape, Strategy, Subresource, Write, common_reset_fields};

/// What is special about one kind. Every method has the meaning "nothing special" by default.
pub trait Rules: Send + Sync + 'static {
    type Object: Serialize + DeserializeOwned + Send + Sync;
    const SHAPE: Shape;
    /// True if the struct requires a `spec.selector` that clients may leave out: see [`absent_selector`].
    const SELECTOR_MAY_LACK: bool = false;

    /// Fills what the client left out. Idempotent.
    fn default(_object: &mut Self::Object) {}

    /// The spec of a pod within the object, if the kind has one.
    fn pod_spec(_object: &mut Self::Object) -> Option<&mut PodSpec> {
        None
    }

    /// Sets what the server decides at creation. Status and generation are handled by `SHAPE`.
    fn prepare_create(_context: &Context, _object: &mut Self::Object) {}

    /// What holds of every object: asked at creation and at updates of the object itself, ahead of the two for each. A
    /// write of a subresource keeps the rest as it was, so it isn't asked then.
    fn validate(_object: &Self::Object, _errors: &mut Errors) {}

    fn validate_create(_object: &Self::Object, _errors: &mut Errors) {}

    /// Sets or restores what this write may not change. Status and generation are handled by `SHAPE`.
    fn prepare_update(_write: &Write<'_>, _object: &mut Self::Object, _old: &Self::Object) {}

    fn validate_update(_write: &Write<'_>, _object: &Self::Object, _old: &Self::Object, _errors: &mut Errors) {}

    /// Warnings about a new object that has not been prepared, ahead of the others.
    fn warnings_as_sent(_object: &Self::Object) -> Vec<String> {
        Vec::new()
    }

    /// Warnings for the client; `old` is absent at creation.
    fn warnings(_object: &Self::Object, _old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// Values for field selectors that are more than the field the kinds table names.
    fn selectable_fields(_object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Paths a write of `sub` cannot own.
    fn reset_fields(sub: Subresource) -> Vec<Vec<&'static str>> {
        common_reset_fields(Self::SHAPE, sub)
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
        *object = to_value::<R>(&typed)?;
        Ok(())
    }

    fn create(&self, context: &Context, object: &mut Value) -> Result<Vec<String>, Errors> {
        let mut typed = decode::<R>(object).map_err(misfit)?;
        R::pod_spec(&mut typed).map(drop_disabled);
        let mut warnings = R::warnings_as_sent(&typed);
        R::prepare_create(context, &mut typed);
        *object = to_value::<R>(&typed).map_err(misfit)?;
        let mut errors = Errors::new();
        R::validate(&typed, &mut errors);
        R::validate_create(&typed, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        warnings.extend(R::warnings(&typed, None));
        Ok(warnings)
    }

    fn update(&self, write: &Write<'_>, object: &mut Value, old: &Value) -> Result<Vec<String>, Errors> {
        let mut typed = decode::<R>(object).map_err(misfit)?;
        let old = decode::<R>(old).map_err(misfit)?;
        R::pod_spec(&mut typed).map(drop_disabled);
        R::prepare_update(write, &mut typed, &old);
        *object = to_value::<R>(&typed).map_err(misfit)?;
        let mut errors = Errors::new();
        if write.sub == Subresource::Main {
            R::validate(&typed, &mut errors);
        }
        R::validate_update(write, &typed, &old, &mut errors);
        if errors.is_empty() { Ok(R::warnings(&typed, Some(&old))) } else { Err(errors) }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        R::selectable_fields(object)
    }

    fn reset_fields(&self, sub: Subresource) -> Vec<Vec<&'static str>> {
        R::reset_fields(sub)
    }
}

fn decode<R: Rules>(object: &Value) -> Result<R::Object, String> {
    let mut filled = zero_time::filled(object);
    if R::SELECTOR_MAY_LACK {
        filled = absent_selector::marked(filled);
    }
    R::Object::deserialize(&*filled).map_err(|e| e.to_string())
}

pub fn encode<T: Serialize>(object: &T) -> Result<Value, Errors> {
    written(object).map_err(misfit)
}

fn to_value<R: Rules>(object: &R::Object) -> Result<Value, String> {
    let mut value = written(object)?;
    if R::SELECTOR_MAY_LACK {
        absent_selector::clear(&mut value);
    }
    Ok(value)
}

fn written<T: Serialize>(object: &T) -> Result<Value, String> {
    let mut value = serde_json::to_value(object).map_err(|e| e.to_string())?;
    zero_time::clear(&mut value);
    Ok(value)
}

pub fn misfit(detail: String) -> Errors {
    let mut errors = Errors::new();
    errors.internal(Path::default(), detail);
    errors
}

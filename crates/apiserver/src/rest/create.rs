//! Create: decode, default, fill metadata, admit, validate, write.
//!
//! Invariants: a generated name that is taken is drawn again (and so is a number of a Service that another server gave away, or
//! a quota that it charged read again), a given one is an AlreadyExists; nothing of an object that fails any step reaches the
//! store.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::Value;

use super::admit::{Admit, options};
use super::body::{self, Expected};
use super::{Call, admit};
use crate::body::Body;
use crate::cache::Entry;
use crate::chain::Operation;
use crate::error::ApiError;
use crate::managed;
use crate::registry::write::{Committed, PutRequest};
use crate::stored::decode_entry;

/// Draws of a generated name before giving up; upstream draws as often.
const NAME_DRAWS: usize = 8;

/// Attempts while other servers are faster with objects that this one depends on (Services, quotas).
const ATTEMPTS: usize = 30;

pub async fn create(call: &Call, request_body: Body) -> Result<Response<Body>, ApiError> {
    call.output(false)?;
    let (object, dry_run) = body::posted(call, request_body, Expected::of(call)).await?;
    let entry = create_object(call, object, dry_run, false).await?;
    call.reply(StatusCode::CREATED, &entry)
}

/// Creates a decoded object. `tracked`: its managed fields are set already.
pub async fn create_object(
    call: &Call,
    mut object: Value,
    dry_run: bool,
    tracked: bool,
) -> Result<Arc<Entry>, ApiError> {
    let given_name = object["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    let generated = !given_name && object["metadata"]["generateName"].as_str().is_some_and(|n| !n.is_empty());
    if !given_name && !generated {
        return Err(nameless(call));
    }
    if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    default(call, &mut object)?;
    let mut draws = 0;
    for _ in 0..ATTEMPTS {
        match attempt(call, object.clone(), dry_run, tracked).await? {
            Ok(entry) => return Ok(entry),
            Err(name) if call.resource.cache.get(&call.key(&name)).is_none() => {
                tracing::debug!(
                    name,
                    "another server was faster with an object that this one depends on; trying again"
                );
            }
            Err(name) if !generated => return Err(taken(call, &name)),
            Err(_) if draws + 1 == NAME_DRAWS => return Err(no_free_name(call, &object)),
            Err(name) => {
                draws += 1;
                tracing::debug!(name, "a generated name is taken; drawing again");
            }
        }
    }
    Err(ApiError::timeout("too many objects that this one depends on were written meanwhile; try again", 1))
}

fn no_free_name(call: &Call, object: &Value) -> ApiError {
    let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default();
    let mut error = ApiError::already_exists(&call.resource.group, &call.resource.plural, prefix);
    error.message.push_str(", the server was not able to generate a unique name for the object");
    error
}

/// The name is another object's; the client is told if that one is about to go.
fn taken(call: &Call, name: &str) -> ApiError {
    let mut error = ApiError::already_exists(&call.resource.group, &call.resource.plural, name);
    let other = call.resource.cache.get(&call.key(name));
    let other = other.and_then(|entry| decode_entry(&entry, &call.resource.source).ok());
    if other.is_some_and(|other| other["metadata"]["deletionTimestamp"].is_string()) {
        error.message.insert_str(0, "object is being deleted: ");
    }
    error
}

/// Fills what the client left out.
pub fn default(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    call.resource
        .strategy
        .default(object)
        .map_err(|detail| ApiError::bad_request(format!("{}: {detail}", call.resource.kind_name)))
}

fn nameless(call: &Call) -> ApiError {
    let cause = serde_json::json!({
        "reason": "FieldValueRequired",
        "message": "Required value: name or generateName is required",
        "field": "metadata.name"
    });
    ApiError::invalid(&call.resource.group, &call.resource.kind_name, "", vec![cause])
}

/// One attempt: `Ok(Err(name))` when the name is taken.
async fn attempt(
    call: &Call,
    mut object: Value,
    dry_run: bool,
    tracked: bool,
) -> Result<Result<Arc<Entry>, String>, ApiError> {
    let context = call.context();
    let no_name = String::new();
    semantics::fill_metadata(&context, &mut object).map_err(|rejection| call.rejected(&no_name, rejection))?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if !tracked {
        managed::track(call, &mut object, None, semantics::Subresource::Main);
    }
    let mut request = call.admission_request(Admit {
        operation: Operation::Create,
        name: name.clone(),
        object: Some(object),
        old_object: None,
        options: options("CreateOptions", call, dry_run),
        dry_run,
    });
    call.mutate(&mut request).await?;
    let mut object = request.object.take().unwrap_or_default();
    let allocation = call.core.services.allocate(call, &mut object, None, dry_run).await?;
    let warnings = semantics::create(call.resource.strategy, &context, &mut object)
        .map_err(|rejection| call.rejected(&name, rejection))?;
    call.warnings.add(warnings);
    request.object = Some(object);
    call.validate(&request).await?;
    let mut charged = call.core.quotas.charge(call.registry(), &request).await?;
    let value = request.object.take().unwrap_or_default();
    let committed = call
        .registry()
        .put(PutRequest {
            resource: &call.resource,
            key: call.key(&name),
            base: None,
            value,
            ttl: admit::time_to_live(call),
            newest: allocation.as_ref().map(|allocation| allocation.newest),
            beside: std::mem::take(&mut charged.quotas),
            dry_run,
        })
        .await?;
    drop((allocation, charged));
    Ok(match committed {
        Committed::Done(entry) => Ok(entry),
        Committed::Outdated => Err(name),
    })
}

//! Update: replace an object or one half of it; the loop that patches and subresources use as well.
//!
//! ```text
//! current -> make (the wanted object) -> preconditions -> managed fields -> mutate -> strategy -> validate -> put
//!    ^                                                                                                         |
//!    +------------------------------ somebody else was faster -------------------------------------------------+
//! ```
//!
//! Invariants: a resource version in the wanted object must be the current one, else 409; without one the write is repeated on
//! the newest state; removing the last finalizer of a deleted object deletes it.

use std::sync::Arc;

use http::{Response, StatusCode};
use semantics::strategy::{Subresource, Write};
use serde_json::Value;

use super::Call;
use super::admit::{self, Admit, options};
use super::body::{self, Expected};
use super::create::{create_object, default};
use crate::body::Body;
use crate::cache::Entry;
use crate::chain::Operation;
use crate::encode::Encoder;
use crate::error::ApiError;
use crate::managed;
use crate::negotiate::{Representation, negotiate_input};
use crate::policy;
use crate::registry::write::{Committed, PutRequest};
use crate::write_options::{OptionsKind, WriteOptions};

/// Attempts of one write on ever newer states; a bound for a hot object.
const ATTEMPTS: usize = 30;

/// What is being changed, and by which request.
#[derive(Clone, Copy)]
pub struct Change {
    pub sub: Subresource,
    pub dry_run: bool,
    /// `UpdateOptions` or `PatchOptions`.
    pub options_kind: &'static str,
    /// A missing object may be created from what `make` returns for `None`.
    pub creates: bool,
    /// The manager's fields have been set already (server-side apply).
    pub tracked: bool,
}

/// Makes the wanted object from the current one; called again for each attempt. `None`: there is no such object.
pub type Make<'a> = &'a (dyn Fn(Option<&Value>) -> Result<Value, ApiError> + Send + Sync);

pub async fn update(call: &Call, request_body: Body, sub: Subresource) -> Result<Response<Body>, ApiError> {
    call.output(false)?;
    let media = negotiate_input(&call.headers)?;
    let bytes = body::read(request_body, call.core.config.body_bytes_max).await?;
    let WriteOptions { dry_run, validation } = WriteOptions::parse(&call.query, OptionsKind::Update)?;
    let mut object = body::decode(&bytes, media, Expected::of(call), validation, &call.warnings)?;
    check_name(call, &mut object)?;
    default(call, &mut object)?;
    let change = Change {
        sub,
        dry_run,
        options_kind: "UpdateOptions",
        creates: sub == Subresource::Main && policy::creates_on_update(&call.resource.group, &call.resource.plural),
        tracked: false,
    };
    let (entry, created) = modify(call, change, &|_| Ok(object.clone())).await?;
    call.reply(if created { StatusCode::CREATED } else { StatusCode::OK }, &entry)
}

/// The name in the object is that of the path.
pub fn check_name(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        let wanted = &call.info.name;
        let why = "name must be provided";
        return Err(ApiError::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: {why}"
        )));
    }
    fill_name(call, object)
}

/// Like [`check_name`]; it is filled in if left out.
pub fn fill_name(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let wanted = &call.info.name;
    match object["metadata"]["name"].as_str().unwrap_or_default() {
        "" => {
            if !object["metadata"].is_object() {
                object["metadata"] = serde_json::json!({});
            }
            object["metadata"]["name"] = Value::from(wanted.as_str());
            Ok(())
        }
        name if name == wanted => Ok(()),
        name => Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
    }
}

/// Changes the named object. Answers the new entry, and whether it was created.
pub async fn modify(call: &Call, change: Change, make: Make<'_>) -> Result<(Arc<Entry>, bool), ApiError> {
    let name = call.info.name.clone();
    let key = call.key(&name);
    let decoder = Encoder::new(call.resource.clone(), Representation::JSON);
    for _ in 0..ATTEMPTS {
        let Some(base) = call.resource.cache.get(&key) else {
            if !change.creates {
                return Err(call.not_found(&name));
            }
            let object = make(None)?;
            match create_object(call, object, change.dry_run, change.tracked).await {
                Err(error) if error.reason == "AlreadyExists" => continue,
                result => return result.map(|entry| (entry, true)),
            }
        };
        let old = Arc::new(decoder.served_value(&base)?);
        let object = make(Some(&old))?;
        match attempt(call, change, &base, &old, object).await? {
            Committed::Done(entry) => return Ok((entry, false)),
            Committed::Outdated => {}
        }
    }
    Err(ApiError::modified(&call.resource.group, &call.resource.plural, &name))
}

async fn attempt(
    call: &Call,
    change: Change,
    base: &Arc<Entry>,
    old: &Arc<Value>,
    mut object: Value,
) -> Result<Committed, ApiError> {
    let name = &call.info.name;
    check_preconditions(call, &mut object, old)?;
    if !change.tracked {
        managed::track(call, &mut object, Some(old), change.sub);
    }
    let mut request = call.admission_request(Admit {
        operation: Operation::Update,
        name: name.clone(),
        object: Some(object),
        old_object: Some(old.clone()),
        options: options(change.options_kind, call, change.dry_run),
        dry_run: change.dry_run,
    });
    call.mutate(&mut request).await?;
    let mut object = request.object.take().unwrap_or_default();
    let allocation = call.core.services.allocate(call, &mut object, Some(old), change.dry_run).await?;
    let context = call.context();
    let write = Write { context: &context, sub: change.sub };
    let warnings = semantics::update(call.resource.strategy, &write, &mut object, old)
        .map_err(|rejection| call.rejected(name, rejection))?;
    call.warnings.add(warnings);
    request.object = Some(object);
    call.validate(&request).await?;
    let mut charged = call.core.quotas.charge(call.registry(), &request).await?;
    let value = request.object.take().unwrap_or_default();
    let committed = if deletes(call, &value, old) {
        remove_emptied(call, base, value, change.dry_run).await
    } else {
        let put = PutRequest {
            resource: &call.resource,
            key: base.key.clone(),
            base: Some(base),
            value,
            ttl: admit::time_to_live(call),
            newest: allocation.as_ref().map(|allocation| allocation.newest),
            beside: std::mem::take(&mut charged.quotas),
            dry_run: change.dry_run,
        };
        call.registry().put(put).await
    };
    drop((allocation, charged));
    committed
}

/// Deletes an object whose last finalizer went; the answer shows it as the update left it.
async fn remove_emptied(call: &Call, base: &Arc<Entry>, value: Value, dry_run: bool) -> Result<Committed, ApiError> {
    match call.registry().remove(&call.resource, base, dry_run).await? {
        Committed::Outdated => Ok(Committed::Outdated),
        Committed::Done(gone) => {
            let mut value = value;
            if let Some(meta) = value["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            if let Some(conversion) = call.resource.conversion {
                (conversion.to_storage)(&mut value);
            }
            let encoded = call.resource.source.encode(&base.key, &value).map_err(ApiError::internal)?;
            Ok(Committed::Done(Arc::new(call.resource.source.entry(base.key.clone(), encoded, gone.revision))))
        }
    }
}

fn check_preconditions(call: &Call, object: &mut Value, old: &Value) -> Result<(), ApiError> {
    let (group, plural, name) = (&call.resource.group, &call.resource.plural, &call.info.name);
    let text = |value: &Value, field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (uid, old_uid) = (text(object, "uid"), text(old, "uid"));
    // What a patch makes of the uid is for validation to refuse.
    if !uid.is_empty() && uid != old_uid && call.info.verb != "patch" {
        let key = String::from_utf8_lossy(&call.key(name)).into_owned();
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}"
        );
        return Err(ApiError::conflict(group, plural, name, &why));
    }
    let (version, old_version) = (text(object, "resourceVersion"), text(old, "resourceVersion"));
    if !version.is_empty() && version.parse::<u64>().is_err() {
        let detail = format!("strconv.ParseUint: parsing {}: invalid syntax", semantics::field::quote(&version));
        return Err(ApiError::new(500, "", detail));
    }
    if version.is_empty() || version == "0" {
        if !policy::updates_unconditionally(group, plural) {
            let cause = serde_json::json!({
                "reason": "FieldValueInvalid",
                "message": "Invalid value: 0: must be specified for an update",
                "field": "metadata.resourceVersion"
            });
            return Err(ApiError::invalid(group, plural, name, vec![cause]));
        }
        object["metadata"]["resourceVersion"] = Value::from(old_version);
        return Ok(());
    }
    if version == old_version { Ok(()) } else { Err(ApiError::modified(group, plural, name)) }
}

/// Whether this update completes a deletion: it was asked for with no grace left, and nothing holds the object any more.
fn deletes(call: &Call, value: &Value, old: &Value) -> bool {
    let held = value["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    let due = old["metadata"]["deletionGracePeriodSeconds"].as_i64() == Some(0)
        || (is_namespace(call) && old["metadata"]["deletionTimestamp"].is_string());
    let namespace_held =
        is_namespace(call) && value["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    due && !held && !namespace_held
}

pub fn is_namespace(call: &Call) -> bool {
    call.resource.group.is_empty() && call.resource.plural == "namespaces"
}

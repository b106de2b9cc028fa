//! Scale: the replica count of any kind that has one, as an autoscaling/v1 Scale.
//!
//! Invariants: writing a Scale changes `spec.replicas` and who owns it, nothing else; its resource version is that of the
//! object.

use api::selector::LabelSelector;
use http::{Response, StatusCode};
use semantics::Subresource;
use semantics::apply::{Configuration, scale};
use serde_json::{Value, json};

use crate::body::Body;
use crate::encode::Encoder;
use crate::error::ApiError;
use crate::managed;
use crate::negotiate::{Media, PatchType, Representation, negotiate_input, negotiate_patch};
use crate::rest::body::{self, Expected};
use crate::rest::update::{Change, modify};
use crate::rest::{Call, patch};
use crate::write_options::{FieldValidation, OptionsKind, WriteOptions};

fn expected<'a>() -> Expected<'a> {
    Expected {
        api_version: "autoscaling/v1",
        kind: "Scale",
        message: api::schema::by_kind("autoscaling", "v1", "Scale"),
    }
}

pub async fn handle(call: &Call, request_body: Body) -> Result<Response<Body>, ApiError> {
    call.plain_output()?;
    let decoder = Encoder::new(call.resource.clone(), Representation::JSON);
    if call.info.verb == "get" {
        let object = decoder.served_value(&*call.current()?)?;
        return call.reply_value(StatusCode::OK, &derive_scale(call, &object)?);
    }
    let is_patch = call.info.verb == "patch";
    let kind = if is_patch { Some(negotiate_patch(&call.headers, true)?) } else { None };
    let options_kind = kind.map_or(OptionsKind::Update, PatchType::options_kind);
    let WriteOptions { dry_run, validation } = WriteOptions::parse(&call.query, options_kind)?;
    let media = if is_patch { None } else { Some(negotiate_input(&call.headers)?) };
    let bytes = body::read(request_body, call.core.config.body_bytes_max).await?;
    let wanted = Wanted::parse(call, kind, media, &bytes, validation)?;
    let change =
        Change { sub: Subresource::Main, dry_run, options_kind: options_kind.name(), creates: false, tracked: true };
    let make = |current: Option<&Value>| -> Result<Value, ApiError> {
        let current = current.ok_or_else(|| call.not_found(&call.info.name))?;
        let mut live = derive_scale(call, current)?;
        scale::lend_managers(current, &mut live);
        let scale = wanted.make(call, &live, validation)?;
        check(call, &scale)?;
        let mut object = current.clone();
        scale::take_back_managers(&mut object, &call.resource.api_version, &scale);
        object["spec"]["replicas"] = json!(scale["spec"]["replicas"].as_i64().unwrap_or(0));
        let version = scale["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        object["metadata"]["resourceVersion"] = json!(version);
        if let Some(uid) = scale["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
            object["metadata"]["uid"] = json!(uid);
        }
        Ok(object)
    };
    let (entry, _) = modify(call, change, &make).await?;
    let object = decoder.served_value(&entry)?;
    call.reply_value(StatusCode::OK, &derive_scale(call, &object)?)
}

/// The Scale that the client wants: as it is, or as a change of the current one.
enum Wanted {
    Whole(Value),
    Patched(patch::Patch),
    Applied { sent: Value, decoded: Value },
}

impl Wanted {
    fn parse(
        call: &Call,
        kind: Option<PatchType>,
        media: Option<Media>,
        bytes: &[u8],
        validation: FieldValidation,
    ) -> Result<Self, ApiError> {
        match (kind, media) {
            (Some(PatchType::Apply), _) => {
                let sent = patch::applied(call, bytes, expected())?;
                let decoded = body::decode_patched(&sent, expected(), validation, &call.warnings)
                    .map_err(|failure| failure.of_object(bytes, expected()))?;
                Ok(Self::Applied { sent, decoded })
            }
            (Some(kind), _) => patch::parse(kind, bytes).map(Self::Patched),
            (None, Some(media)) => body::decode(bytes, media, expected(), validation, &call.warnings).map(Self::Whole),
            (None, None) => Err(ApiError::method_not_allowed()),
        }
    }

    /// The Scale wanted, with its managed fields.
    fn make(&self, call: &Call, live: &Value, validation: FieldValidation) -> Result<Value, ApiError> {
        let mut scale = match self {
            Self::Applied { sent, decoded } => {
                let config = Configuration { sent, decoded };
                return managed::apply_scale(call, live, config, call.query.flag("force"));
            }
            Self::Whole(scale) => scale.clone(),
            Self::Patched(patch) => patch::patched(patch, live, expected(), validation, &call.warnings)?,
        };
        managed::track_scale(call, &mut scale, live);
        Ok(scale)
    }
}

fn check(call: &Call, scale: &Value) -> Result<(), ApiError> {
    let name = scale["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let cause = json!({
            "reason": "FieldValueInvalid",
            "message": format!("Invalid value: {replicas}: must be greater than or equal to 0"),
            "field": "spec.replicas"
        });
        return Err(ApiError::invalid("autoscaling", "Scale", &call.info.name, vec![cause]));
    }
    Ok(())
}

/// The Scale of an object.
fn derive_scale(call: &Call, object: &Value) -> Result<Value, ApiError> {
    let meta = &object["metadata"];
    let selector = &object["spec"]["selector"];
    let parsed = if call.resource.plural == "replicationcontrollers" {
        let pairs = selector.as_object().into_iter().flatten();
        LabelSelector::from_labels(pairs.filter_map(|(k, v)| v.as_str().map(|v| (k.as_str(), v))))
    } else {
        LabelSelector::from_value(selector).map_err(ApiError::internal)?
    };
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"]
        },
        "spec": {},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": parsed.to_string()}
    });
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = json!(replicas);
    }
    Ok(scale)
}

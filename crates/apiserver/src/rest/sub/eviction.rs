//! Eviction: a delete of a Pod that respects disruption budgets.
//!
//! Without a PodDisruptionBudget that selects the Pod it is a delete whose Pod first gets the condition `DisruptionTarget`.

use api::selector::LabelSelector;
use http::{Response, StatusCode};
use semantics::Subresource;
use serde_json::{Value, json};

use crate::body::Body;
use crate::error::ApiError;
use crate::reader::Reader;
use crate::rest::Call;
use crate::rest::body::{self, Expected};
use crate::rest::delete::{DeleteOptions, check_options, delete_entry};
use crate::rest::update::{Change, modify};

pub async fn create(call: &Call, request_body: Body) -> Result<Response<Body>, ApiError> {
    call.plain_output()?;
    let expected = Expected {
        api_version: "policy/v1",
        kind: "Eviction",
        message: api::schema::by_kind("policy", "v1", "Eviction"),
    };
    let (eviction, dry_run) = body::posted(call, request_body, expected).await?;
    let name = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    let mut asked: DeleteOptions = check_options(&eviction["deleteOptions"])?;
    asked.dry_run |= dry_run;
    let pod = call.current()?;
    let value = crate::stored::decode_entry(&pod, &call.resource.source).map_err(ApiError::internal)?;
    let ended = matches!(value["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    let deleting = value["metadata"]["deletionTimestamp"].is_string();
    if !ended && !deleting {
        check_budgets(call, &value)?;
    }
    if !deleting && !asked.dry_run {
        mark_target(call).await?;
    }
    delete_entry(call, call.current()?, &asked).await?;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201
    });
    call.reply_value(StatusCode::CREATED, &status)
}

/// Errors: 429 when a budget has nothing left, 500 when several select the Pod.
fn check_budgets(call: &Call, pod: &Value) -> Result<(), ApiError> {
    let budgets = call.registry().list("policy", "poddisruptionbudgets", call.namespace());
    let selecting: Vec<&Value> = budgets
        .iter()
        .map(AsRef::as_ref)
        .filter(|budget| {
            LabelSelector::from_value(&budget["spec"]["selector"]).is_ok_and(|selector| selector.matches_object(pod))
        })
        .collect();
    match selecting.as_slice() {
        [] => Ok(()),
        [budget] if budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) > 0 => Ok(()),
        [budget] => {
            let name = budget["metadata"]["name"].as_str().unwrap_or_default();
            let healthy = budget["status"]["currentHealthy"].as_i64().unwrap_or(0);
            let desired = budget["status"]["desiredHealthy"].as_i64().unwrap_or(0);
            let mut error =
                ApiError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10);
            error.details = Some(json!({"causes": [{
                "reason": "DisruptionBudget",
                "message": format!(
                    "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
                )
            }]}));
            Err(error)
        }
        _ => Err(ApiError::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
    }
}

async fn mark_target(call: &Call) -> Result<(), ApiError> {
    let now = semantics::time::rfc3339(call.registry().now());
    let make = |current: Option<&Value>| -> Result<Value, ApiError> {
        let mut pod = current.cloned().ok_or_else(|| call.not_found(&call.info.name))?;
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": now
        });
        let conditions = &mut pod["status"]["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        if let Some(list) = conditions.as_array_mut() {
            list.retain(|c| c["type"] != "DisruptionTarget");
            list.push(condition);
        }
        Ok(pod)
    };
    let change = Change {
        sub: Subresource::Status,
        dry_run: false,
        options_kind: "UpdateOptions",
        creates: false,
        tracked: false,
    };
    modify(call, change, &make).await.map(|_| ())
}

//! Binding: the scheduler puts a Pod on a node, once.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};
use semantics::kinds::{bind, validate_binding};
use semantics::{FieldError, Subresource};
use serde_json::{Value, json};

use crate::body::Body;
use crate::chain::{Identity, Operation};
use crate::encode::Encoder;
use crate::error::ApiError;
use crate::managed;
use crate::negotiate::Representation;
use crate::registry::write::{Committed, PutRequest};
use crate::request::{Query, RequestInfo};
use crate::rest::admit::{Admit, options};
use crate::rest::body::{self, Expected};
use crate::rest::{Call, Origin, Warnings};
use crate::server::Core;

const ATTEMPTS: usize = 30;

pub async fn create(call: &Call, request_body: Body) -> Result<Response<Body>, ApiError> {
    call.plain_output()?;
    let posted = body::posted(call, request_body, expected()).await?;
    bind_pod(call, posted).await
}

/// `POST namespaces/x/bindings`, the older form: the Pod's name is the Binding's.
pub async fn create_in_namespace(
    core: &Arc<Core>,
    parts: &Parts,
    request_body: Body,
    info: RequestInfo,
    query: Query,
    identity: Identity,
) -> Result<Response<Body>, ApiError> {
    let resource = core.registry.resource("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?;
    let mut call = Call {
        core: core.clone(),
        resource,
        method: parts.method.clone(),
        info: RequestInfo { resource: "pods".to_owned(), subresource: "binding".to_owned(), ..info },
        query,
        headers: parts.headers.clone(),
        identity,
        warnings: Warnings::default(),
        upgrade: std::sync::Mutex::new(None),
        raw_query: String::new(),
        origin: Origin::of(parts),
    };
    let (binding, dry_run) = body::posted(&call, request_body, expected()).await?;
    call.info.name = binding["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    bind_pod(&call, (binding, dry_run)).await
}

fn expected() -> Expected<'static> {
    Expected { api_version: "v1", kind: "Binding", message: api::schema::by_kind("", "v1", "Binding") }
}

async fn bind_pod(call: &Call, (binding, dry_run): (Value, bool)) -> Result<Response<Body>, ApiError> {
    let name = &call.info.name;
    let problems = validate_binding(&binding);
    if !problems.is_empty() {
        let causes = problems.iter().map(FieldError::cause).collect();
        return Err(ApiError::invalid("", "Binding", name, causes));
    }
    let mut request = call.admission_request(Admit {
        operation: Operation::Create,
        name: name.clone(),
        object: Some(binding),
        old_object: None,
        options: options("CreateOptions", call, dry_run),
        dry_run,
    });
    call.mutate(&mut request).await?;
    call.validate(&request).await?;
    let binding = request.object.take().unwrap_or_default();
    let decoder = Encoder::new(call.resource.clone(), Representation::JSON);
    for _ in 0..ATTEMPTS {
        let base = call.current()?;
        let old = decoder.served_value(&base)?;
        let mut pod = old.clone();
        bind(&mut pod, &binding, call.registry().now())
            .map_err(|why| ApiError::conflict("", "pods/binding", name, &why))?;
        managed::track(call, &mut pod, Some(&old), Subresource::Main);
        let put = PutRequest {
            resource: &call.resource,
            key: base.key.clone(),
            base: Some(&base),
            value: pod,
            ttl: None,
            newest: None,
            beside: Vec::new(),
            dry_run,
        };
        if let Committed::Done(_) = call.registry().put(put).await? {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201
            });
            return call.reply_value(StatusCode::CREATED, &status);
        }
    }
    Err(ApiError::modified("", "pods", name))
}

//! The verbs of the API over the registry: ONE handler for all kinds [I6].
//!
//! ```text
//! Call -> read (get, list, watch) -> entries -> encode
//!      -> write (create, update, patch, delete) -> strategy, admission -> registry::put / remove -> entry -> encode
//! ```
//!
//! Reading order: `create`, `update`, `patch`, `delete`, `list`, `watch`, then the subresources in `sub`.

pub mod admit;
pub mod body;
pub mod collection;
pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod patch;
pub mod select;
pub mod sub;
pub mod update;
pub mod watch;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use semantics::strategy;
use serde_json::Value;

use crate::body::{Body, full, response};
use crate::cache::Entry;
use crate::cache::feed::FeedError;
use crate::chain::{Attributes, Identity, RemoteAddress};
use crate::encode::{self, Encoder};
use crate::error::ApiError;
use crate::negotiate::{self, Media, Offers, Representation};
use crate::registry::write::kv_error;
use crate::registry::{Registry, Resource};
use crate::request::{Query, RequestInfo};
use crate::server::Core;
use crate::table;

/// One authorized request for a resource.
pub struct Call {
    pub core: Arc<Core>,
    pub resource: Arc<Resource>,
    pub method: Method,
    pub info: RequestInfo,
    pub query: Query,
    pub headers: HeaderMap,
    pub identity: Identity,
    pub warnings: Warnings,
    /// Taken by the one subresource that turns the connection into a stream.
    pub upgrade: Mutex<Option<hyper::upgrade::OnUpgrade>>,
    /// As the client sent it.
    pub raw_query: String,
    pub origin: Origin,
}

/// Where a request comes from, for servers that it is passed on to.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// `host[:port]` by which the client called this server.
    pub host: Option<HeaderValue>,
    /// Unknown within this process.
    pub address: Option<IpAddr>,
}

impl Origin {
    pub fn of(parts: &Parts) -> Self {
        let authority = || HeaderValue::from_str(parts.uri.authority()?.as_str()).ok();
        let host = parts.headers.get(http::header::HOST).cloned().or_else(authority);
        let address = parts.extensions.get::<RemoteAddress>().map(|RemoteAddress(address)| address.ip());
        Self { host, address }
    }
}

/// Texts for `Warning` headers, in order, each once.
#[derive(Debug, Default, Clone)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

/// More warnings than this are not sent; the rest is dropped.
const WARNINGS_MAX: usize = 100;

impl Warnings {
    pub fn add(&self, texts: impl IntoIterator<Item = String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for text in texts {
            if all.len() < WARNINGS_MAX && !all.contains(&text) {
                all.push(text);
            }
        }
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Call {
    pub fn registry(&self) -> &Registry {
        &self.core.registry
    }

    /// The namespace of the objects: empty for cluster-wide kinds (a Namespace lies in none).
    pub fn namespace(&self) -> &str {
        if self.resource.namespaced { &self.info.namespace } else { "" }
    }

    pub fn key(&self, name: &str) -> bytes::Bytes {
        self.resource.source.key(self.namespace(), name)
    }

    /// The current state of the named object.
    pub fn current(&self) -> Result<Arc<Entry>, ApiError> {
        let name = &self.info.name;
        self.resource.cache.get(&self.key(name)).ok_or_else(|| self.not_found(name))
    }

    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, name)
    }

    pub fn attributes(&self) -> Attributes {
        self.info.attributes(self.identity.clone(), &self.query)
    }

    /// What strategies need to know; with fresh ids.
    pub fn context(&self) -> strategy::Context {
        let (uid, name_suffix) = self.registry().draw_ids();
        strategy::Context {
            namespace: self.resource.namespaced.then(|| self.info.namespace.clone()),
            now: self.registry().now(),
            uid,
            name_suffix,
            user: strategy::User {
                name: self.identity.user.clone(),
                uid: self.identity.uid.clone(),
                groups: self.identity.groups.clone(),
                extra: self.identity.extra.clone(),
            },
        }
    }

    /// Who is written into managed fields: the parameter, or the first word of the user agent.
    pub fn field_manager(&self) -> String {
        crate::managed::manager_of(&self.headers, &self.query)
    }

    /// How the client wants an object (or a list, or a stream) of this resource.
    pub fn output(&self, stream: bool) -> Result<Representation, ApiError> {
        let collection = matches!(self.info.verb.as_str(), "list" | "watch");
        let offers = Offers { transforms: true, proto: self.resource.message.is_some(), stream, collection };
        negotiate::negotiate_output(&self.headers, &self.query, offers)
    }

    /// How the client wants something that is not an object of this resource.
    pub fn plain_output(&self) -> Result<Representation, ApiError> {
        negotiate::negotiate_output(&self.headers, &self.query, Offers::PLAIN)
    }

    pub fn encoder(&self, representation: Representation) -> Result<Encoder, ApiError> {
        let mut encoder = Encoder::new(self.resource.clone(), representation);
        encoder.include = table::parse_include(&self.query)?;
        encoder.now = self.registry().now();
        Ok(encoder)
    }

    /// A response that is one object.
    pub fn reply(&self, code: StatusCode, entry: &Entry) -> Result<Response<Body>, ApiError> {
        let representation = self.output(false)?;
        let bytes = self.encoder(representation)?.object(entry)?;
        Ok(respond(code, representation.media, bytes))
    }

    /// A response that is a free-standing value, such as a Status.
    pub fn reply_value(&self, code: StatusCode, value: &Value) -> Result<Response<Body>, ApiError> {
        let representation = self.plain_output()?;
        let bytes = encode::value_bytes(value, representation.media, representation.pretty)?;
        Ok(respond(code, representation.media, bytes))
    }
}

pub fn respond(code: StatusCode, media: Media, bytes: bytes::Bytes) -> Response<Body> {
    let mut response = response(code, full(bytes));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(media.content_type()));
    response
}

/// A Status of `status: Success`.
pub fn success(resource: &Resource, entry: Option<&Entry>, uid: &str) -> Value {
    let mut details = serde_json::json!({"kind": resource.plural});
    if !resource.group.is_empty() {
        details["group"] = Value::from(resource.group.as_str());
    }
    if let Some(entry) = entry {
        details["name"] = Value::from(entry.name());
    }
    if !uid.is_empty() {
        details["uid"] = Value::from(uid);
    }
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details
    })
}

/// How long a request waits for what other servers have written.
const NEWEST_PATIENCE: Duration = Duration::from_secs(10);

/// Whether a request must see everything that any server has answered: writes, and reads that do not name a moment.
fn wants_newest(call: &Call) -> bool {
    let names_moment = |name| call.query.get(name).is_some_and(|value| !value.is_empty());
    match call.info.verb.as_str() {
        "get" | "list" | "watch" => !names_moment("resourceVersion") && !names_moment("continue"),
        _ => true,
    }
}

fn newest_error(error: &FeedError) -> ApiError {
    match error {
        FeedError::Read(error) | FeedError::Watch(error) => kv_error(error),
        FeedError::Behind => ApiError::timeout("the store did not answer in time", 1),
    }
}

/// Chooses the verb's handler for the main resource.
pub async fn handle(call: Call, body: Body) -> Result<Response<Body>, ApiError> {
    if wants_newest(&call) {
        call.registry().feed.catch_up(NEWEST_PATIENCE).await.map_err(|error| newest_error(&error))?;
    }
    if !call.info.subresource.is_empty() {
        return sub::handle(call, body).await;
    }
    let verb = call.info.verb.as_str();
    let allowed = match verb {
        "get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "deletecollection" => {
            call.resource.has_verb(verb)
        }
        _ => false,
    };
    let named = !call.info.name.is_empty();
    let fits = match verb {
        "create" | "deletecollection" => !named,
        "update" | "patch" | "delete" | "get" => named,
        _ => true,
    };
    if !allowed
        || !fits
        || (call.resource.namespaced && call.namespace().is_empty() && !matches!(verb, "list" | "watch"))
    {
        return Err(ApiError::method_not_allowed());
    }
    match verb {
        "get" => get::get(&call).await,
        "list" => list::list(&call).await,
        "watch" => watch::watch(call).await,
        "create" => create::create(&call, body).await,
        "update" => update::update(&call, body, strategy::Subresource::Main).await,
        "patch" => patch::patch(&call, body, strategy::Subresource::Main).await,
        "delete" => delete::delete(&call, body).await,
        _ => collection::delete_collection(&call, body).await,
    }
}

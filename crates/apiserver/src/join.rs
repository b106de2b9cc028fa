//! How another server becomes one of the cluster, over the API server's own port.
//!
//! `GET /cacerts`: the cluster CA, for anyone; whoever has a join token knows its hash. With a join token
//! ([`tokens`]) as bearer token: `GET /holdfast/join`, what all servers share, and `POST`, a place among the members. `GET /holdfast/members`, `POST /holdfast/members/remove?id=ID`: for administrators, by the usual
//! authentication and authorization.
//!
//! Invariants: a join token opens that one path; one join at a time, the others get 429; who comes with a wrong token is logged. Not here: what joining does, see [`ClusterHandler`].

pub mod tokens;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base::Clock;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::body::{Body, full, response};
use crate::chain::{Authenticator, Identity, PathHandler, RemoteAddress};
use crate::error::ApiError;
use crate::reader::Reader;
use crate::request::Query;
use tokens::{JoinToken, Refusal};

const CACERTS: &str = "/cacerts";
pub const JOIN_PATH: &str = "/holdfast/join";
pub const MEMBERS_PATH: &str = "/holdfast/members";
pub const REMOVE_PATH: &str = "/holdfast/members/remove";

/// A server that wants to join.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub name: String,
    pub address: std::net::IpAddr,
    pub peer_port: u16,
}

/// What the requests do. Errors are texts for the client.
pub trait ClusterHandler: Send + Sync {
    /// What all servers share. Changes nothing: whoever cannot use it leaves no trace.
    fn shared(&self) -> BoxFuture<'_, Result<Value, String>>;
    /// A place among the members.
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<Value, String>>;
    fn members(&self) -> Result<Value, String>;
    fn remove(&self, id: u64) -> BoxFuture<'_, Result<Value, String>>;
}

/// Stands before the other authenticators and among the path handlers.
pub struct JoinGate {
    parts: JoinGateParts,
    slot: Semaphore,
}

/// What a gate is made of.
pub struct JoinGateParts {
    pub ca_pem: String,
    /// Where the join tokens are.
    pub reader: Arc<dyn Reader>,
    pub clock: Arc<dyn Clock>,
    /// Who is asked about everybody else.
    pub next: Arc<dyn Authenticator>,
    pub handler: Arc<dyn ClusterHandler>,
}

/// What a join token says about the CA: SHA-256 of its PEM text, hexadecimal.
pub fn derive_ca_hash(ca_pem: &str) -> String {
    digest(&SHA256, ca_pem.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl JoinGate {
    pub fn new(parts: JoinGateParts) -> Arc<Self> {
        Arc::new(Self { parts, slot: Semaphore::new(1) })
    }

    /// The identity for the two paths of a joiner; `None`: not one of them.
    fn identify(&self, parts: &Parts) -> Option<Result<Identity, ApiError>> {
        let user = match (&parts.method, parts.uri.path()) {
            (&Method::GET, CACERTS) => "system:anonymous",
            (&Method::GET | &Method::POST, JOIN_PATH) => match self.check_token(parts) {
                Ok(()) => "system:holdfast:joiner",
                Err(refusal) => return Some(Err(refused(parts, refusal))),
            },
            _ => return None,
        };
        // For this request alone, whose path is known.
        let groups = vec!["system:masters".to_owned()];
        Some(Ok(Identity { user: user.to_owned(), groups, ..Identity::default() }))
    }

    fn check_token(&self, parts: &Parts) -> Result<(), Refusal> {
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|given| JoinToken::parse(given.strip_prefix("Bearer ")?)).ok_or(Refusal::Unknown)?;
        let stored = self.parts.reader.get("", "secrets", tokens::NAMESPACE, &token.object_name());
        token.check(stored.as_deref(), self.parts.clock.now())
    }

    async fn join(&self, query: &Query) -> Response<Body> {
        let Ok(_slot) = self.slot.try_acquire() else {
            return text(StatusCode::TOO_MANY_REQUESTS, "another server is joining; try again");
        };
        let number = |name| query.get(name).and_then(|text| text.parse().ok());
        let address = query.get("address").and_then(|text| text.parse().ok());
        let (Some(address), Some(peer_port)) = (address, number("port")) else {
            return text(StatusCode::BAD_REQUEST, "expected address=IP and port=PORT");
        };
        let name = query.get("name").unwrap_or_default().to_owned();
        answer(self.parts.handler.join(JoinRequest { name, address, peer_port }).await)
    }
}

fn refused(parts: &Parts, refusal: Refusal) -> ApiError {
    let from = parts.extensions.get::<RemoteAddress>().map(|RemoteAddress(address)| *address);
    tracing::warn!(?from, ?refusal, "a server asked to join with a token that is not good");
    match refusal {
        Refusal::Unknown => ApiError::unauthorized(),
        Refusal::Expired => {
            let message = "the token has expired; `holdfast token` on a server of the cluster makes a new one";
            ApiError::new(401, "Unauthorized", message)
        }
    }
}

impl Authenticator for JoinGate {
    fn authenticate<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Result<Identity, ApiError>> {
        match self.identify(parts) {
            Some(identified) => Box::pin(async { identified }),
            None => self.parts.next.authenticate(parts),
        }
    }
}

impl PathHandler for JoinGate {
    fn serve<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Option<Response<Body>>> {
        Box::pin(async move {
            let query = Query::parse(parts.uri.query().unwrap_or_default());
            Some(match (&parts.method, parts.uri.path()) {
                (&Method::GET, CACERTS) => text(StatusCode::OK, &self.parts.ca_pem),
                (&Method::GET, JOIN_PATH) => answer(self.parts.handler.shared().await),
                (&Method::POST, JOIN_PATH) => self.join(&query).await,
                (&Method::GET, MEMBERS_PATH) => answer(self.parts.handler.members()),
                (&Method::POST, REMOVE_PATH) => match query.get("id").and_then(|id| u64::from_str_radix(id, 16).ok()) {
                    Some(id) => answer(self.parts.handler.remove(id).await),
                    None => text(StatusCode::BAD_REQUEST, "expected id=ID, hexadecimal"),
                },
                _ => return None,
            })
        })
    }
}

fn answer(result: Result<Value, String>) -> Response<Body> {
    match result {
        Ok(value) => text(StatusCode::OK, &value.to_string()),
        Err(reason) => text(StatusCode::CONFLICT, &reason),
    }
}

fn text(code: StatusCode, text: &str) -> Response<Body> {
    response(code, full(text.to_owned()))
}

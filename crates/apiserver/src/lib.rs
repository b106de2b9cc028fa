//! The API server: HTTP in front, the revisioned store behind, one generic handler for all kinds between them.
//!
//! ```text
//!     request -> server (authn, authz, audit) -> request path and negotiation -> registry (admission, strategy, txn) -> store::Kv
//!                                                        |                                                             |
//!                                                        +-------- lists and watches <- cache of wire bytes <- watch --+
//! ```
//!
//! Invariants: [I1] nothing else talks to the store; [I6] there is one handler for all kinds; [I8] the stored form is upstream's;
//! an answered write is visible to every later read of this server.
//!
//! Reading order: [`config`], [`chain`], [`reader`], [`error`], [`body`]; [`server`], [`request`], [`negotiate`]; [`registry`],
//! [`stored`], [`cache`]; [`rest`], [`services`], [`quotas`], [`encode`]; [`streams`], [`listener`], [`upkeep`], [`masters`], [`join`];
//! then the security side: [`pki`], [`authn`], [`authz`], [`rbac`],
//! [`admission`], [`encryption`], [`audit`], put together in [`security`].

pub mod admission;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
pub mod cache;
pub mod chain;
mod compaction;
pub mod config;
pub mod discovery;
pub mod documents;
pub mod encode;
pub mod encryption;
pub mod error;
pub mod join;
pub mod listener;
pub mod managed;
pub mod masters;
pub mod negotiate;
pub mod openapi;
pub mod paths;
pub mod pki;
pub mod policy;
pub mod quotas;
pub mod rbac;
pub mod reader;
pub mod registry;
pub mod request;
pub mod rest;
pub mod review;
pub mod security;
pub mod server;
pub mod services;
mod store_check;
pub mod stored;
pub mod streams;
pub mod table;
pub mod upkeep;
pub mod write_options;

pub use chain::Identity;
pub use config::ApiServerConfig;
pub use error::ApiError;
pub use reader::Reader;
pub use server::ApiServer;

//! api (pure): the words of the Kubernetes API that every other crate speaks.
//!
//! ```text
//!     schema (generated table) --> codec (JSON <-> protobuf <-> Value)
//!     kinds (what is served)   --> discovery, storage keys, REST paths
//!     meta, selector, quantity: accessors and values over `serde_json::Value`
//! ```
//!
//! Reading order: [`schema`], [`codec`], [`kinds`], then the small ones. It holds no behaviour beyond codecs and
//! accessors [I3]: no defaulting, no validation, no IO.
#![forbid(unsafe_code)]

pub mod codec;
pub mod kinds;
pub mod meta;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod zero_time;

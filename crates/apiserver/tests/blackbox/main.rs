//! Black-box tests of the API server: requests in, responses out, over the real store on a temporary directory.
//!
//! `fixture` makes a server and asks it; the other files hold one area of behaviour each.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bad_input;
mod deleting;
mod fixture;
mod lists;
mod objects;
mod patches;
mod proxying;
mod quotas;
mod services;
mod subresources;
mod watches;

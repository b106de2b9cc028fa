//! TLS as every part of the project speaks it: one cryptography, PEM texts, signed tokens, and peers of whom no name is asked.
//!
//! Not here: files themselves, certificates of our own (`apiserver/pki`), who may do what.

#![forbid(unsafe_code)]

mod any_peer;
pub mod jws;
pub mod pem;

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;

pub use any_peer::AnyPeer;

/// The one implementation of TLS's cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client of servers whose certificates nobody checks: encrypted, and no more. Fails only where the provider knows no
/// version of TLS.
pub fn client_of_anyone() -> Result<ClientConfig, rustls::Error> {
    let provider = provider();
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyPeer(provider)))
        .with_no_client_auth())
}

//! TLS between members: certificates in PEM in, the two sides' configurations out.
//!
//! Invariant: [`PeerTls::mutual`] accepts members of one authority alone, in both directions. [`PeerTls::unchecked`] encrypts and
//! proves nothing, as etcd's `--peer-auto-tls`.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use tls::pem::{PemError, parse_chain, parse_key, parse_roots};

use crate::PeerError;

/// Both sides' TLS. Cheap to clone.
#[derive(Clone)]
pub struct PeerTls {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
    /// The name that a dialed member must prove; `None`: the host of its URL.
    pub server_name: Option<ServerName<'static>>,
}

/// A certificate chain with its key, and the authority of the others, all PEM.
pub struct Material<'a> {
    pub chain_pem: &'a str,
    pub key_pem: &'a str,
    pub authority_pem: &'a str,
}

impl PeerTls {
    /// Members of one authority: each side shows a certificate of it. `server_name`: see the field. The certificate must serve
    /// for both directions.
    pub fn mutual(material: &Material<'_>, server_name: Option<&str>) -> Result<Self, PeerError> {
        let roots = Arc::new(parse_roots(material.authority_pem)?);
        let provider = tls::provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(parse_chain(material.chain_pem)?, parse_key(material.key_pem)?)
            .map_err(|error| unusable(&error))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(parse_chain(material.chain_pem)?, parse_key(material.key_pem)?)
            .map_err(|error| unusable(&error))?;
        let server_name = server_name.map(|name| ServerName::try_from(name.to_owned())).transpose();
        let server_name = server_name.map_err(|error| unusable(&error))?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), server_name })
    }

    /// Members whose certificates nobody checks: encrypted, and open to whoever reaches the port.
    pub fn unchecked(chain_pem: &str, key_pem: &str) -> Result<Self, PeerError> {
        let server = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_no_client_auth()
            .with_single_cert(parse_chain(chain_pem)?, parse_key(key_pem)?)
            .map_err(|error| unusable(&error))?;
        let client = tls::client_of_anyone().map_err(|error| unusable(&error))?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), server_name: None })
    }
}

impl From<PemError> for PeerError {
    fn from(error: PemError) -> Self {
        unusable(&error)
    }
}

fn unusable(error: &dyn std::fmt::Display) -> PeerError {
    PeerError::Certificate { detail: error.to_string() }
}

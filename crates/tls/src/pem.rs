//! Certificates and keys from PEM text.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What cannot be used, in the parser's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PemError(String);

impl PemError {
    pub fn new(error: &dyn std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A chain of at least one certificate.
pub fn parse_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| PemError::new(&error))?;
    if chain.is_empty() { Err(PemError::new(&"no certificate in the PEM text")) } else { Ok(chain) }
}

/// A private key of any of the usual forms.
pub fn parse_key(pem: &str) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| PemError::new(&error))
}

/// Authorities that are believed.
pub fn parse_roots(pem: &str) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in parse_chain(pem)? {
        roots.add(certificate).map_err(|error| PemError::new(&error))?;
    }
    Ok(roots)
}

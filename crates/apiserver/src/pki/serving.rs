//! TLS of the API server's listener: a certificate that can be replaced while serving, client certificates by choice.
//!
//! In: a [`Credential`]. Out: a `rustls::ServerConfig` for the life of the process, and [`ClientCertificates`], which
//! tells afterwards whether the certificate a peer showed is one of ours.
//!
//! Invariant: the handshake accepts any client certificate whose key the peer proves to hold, as upstream's does. Whether
//! it means anything is decided per request by [`ClientCertificates::verify`]: a foreign certificate is answered with
//! 401 and a Status that clients can read, not with a broken connection.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::Clock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientCertVerifierBuilder, ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::{Authority, Credential, PkiError};

/// The listener's TLS side.
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: Arc<CurrentCertificate>,
}

impl ServerTls {
    /// For the API server: TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`, any client certificate.
    pub fn new(credential: &Credential) -> Result<Arc<Self>, PkiError> {
        Self::build(credential, Arc::new(tls::AnyPeer(tls::provider())))
    }

    fn build(credential: &Credential, verifier: Arc<dyn ClientCertVerifier>) -> Result<Arc<Self>, PkiError> {
        let provider = tls::provider();
        let certified = certified_key(&provider, credential)?;
        let certificate = Arc::new(CurrentCertificate(ArcSwap::from_pointee(certified)));
        let tls_error = |source| PkiError::Tls { subject: "kube-apiserver".to_owned(), source };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(tls_error)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(Self { config: Arc::new(config), certificate }))
    }

    /// For a server of the cluster's own parts (a kubelet's): client certificates are asked for, not required, and one that
    /// does not lead to `ca` breaks the handshake.
    pub fn verified(credential: &Credential, ca: &Authority) -> Result<Arc<Self>, PkiError> {
        let by_choice = verifier_of(ca)?.allow_unauthenticated();
        Self::build(credential, by_choice.build().map_err(|source| PkiError::Verifier { source })?)
    }

    /// For a server whose clients must have a certificate of `ca`: others get no further than the handshake.
    pub fn mutual(credential: &Credential, ca: &Authority) -> Result<Arc<Self>, PkiError> {
        Self::build(credential, verifier_of(ca)?.build().map_err(|source| PkiError::Verifier { source })?)
    }

    /// For `tokio_rustls::TlsAcceptor`.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// New handshakes use `credential`; open connections go on with the old one.
    pub fn replace(&self, credential: &Credential) -> Result<(), PkiError> {
        let provider = self.config.crypto_provider();
        self.certificate.0.store(Arc::new(certified_key(provider, credential)?));
        Ok(())
    }
}

fn verifier_of(ca: &Authority) -> Result<ClientCertVerifierBuilder, PkiError> {
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots_of(ca)?), tls::provider()))
}

fn roots_of(ca: &Authority) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.certificate_der().clone())
        .map_err(|source| PkiError::Tls { subject: "the cluster CA".to_owned(), source })?;
    Ok(roots)
}

fn certified_key(provider: &CryptoProvider, credential: &Credential) -> Result<CertifiedKey, PkiError> {
    let tls_error = |source| PkiError::Tls { subject: "the serving certificate".to_owned(), source };
    let (chain, key) = credential.to_der().map_err(|error| tls_error(rustls::Error::General(error.to_string())))?;
    CertifiedKey::from_der(chain, key, provider).map_err(tls_error)
}

#[derive(Debug)]
struct CurrentCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Judges the certificates that peers showed, against one CA and the clock.
#[derive(Clone)]
pub struct ClientCertificates {
    verifier: Arc<dyn ClientCertVerifier>,
    clock: Arc<dyn Clock>,
}

impl ClientCertificates {
    pub fn new(ca: &Authority, clock: Arc<dyn Clock>) -> Result<Self, PkiError> {
        let verifier = verifier_of(ca)?.build().map_err(|source| PkiError::Verifier { source })?;
        Ok(Self { verifier, clock })
    }

    /// Whether `chain` (leaf first) leads to the CA, is valid now and meant for clients. The error is for logs.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let seconds = u64::try_from(self.clock.now().as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.verifier.verify_client_cert(leaf, intermediates, now).map(|_verified| ())
    }
}

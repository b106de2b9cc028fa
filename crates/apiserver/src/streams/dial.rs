//! The connector of a server whose host reaches the nodes, pods and services itself.
//!
//! Kubelets: TLS with the server's client certificate; the kubelet's certificate must come from the cluster's CA and name the
//! node's address or name. Network targets: plain TCP, or TLS without verification (Pods have no names that a CA could vouch for).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::chain::{Connection, NodeConnector, Target};
use crate::pki::Credential;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the connector cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("read the PEM of {what}")]
    Pem {
        what: &'static str,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("set up TLS for kubelets")]
    Tls(#[from] rustls::Error),
}

/// See the module.
pub struct DirectConnector {
    /// The CA of the kubelets' serving certificates.
    roots: RootCertStore,
    kubelet: ArcSwap<ClientConfig>,
    anyone: TlsConnector,
}

impl DirectConnector {
    /// `ca_pem` has signed the kubelets' serving certificates; `client` is shown to them.
    pub fn new(ca_pem: &str, client: &Credential) -> Result<Self, DialError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.map_err(pem("the CA"))?)?;
        }
        let kubelet = ArcSwap::from_pointee(kubelet_config(&roots, client)?);
        Ok(Self { roots, kubelet, anyone: TlsConnector::from(Arc::new(tls::client_of_anyone()?)) })
    }

    /// New connections show `client`; open ones go on.
    pub fn replace(&self, client: &Credential) -> Result<(), DialError> {
        self.kubelet.store(Arc::new(kubelet_config(&self.roots, client)?));
        Ok(())
    }

    async fn open(&self, target: &Target) -> std::io::Result<Box<dyn Connection>> {
        let (host, port, tls) = match target {
            Target::Kubelet { host, port, .. } => (host, *port, Some(TlsConnector::from(self.kubelet.load_full()))),
            Target::Network { host, port, tls } => (host, *port, tls.then(|| self.anyone.clone())),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

fn pem(what: &'static str) -> impl Fn(rustls::pki_types::pem::Error) -> DialError {
    move |source| DialError::Pem { what, source }
}

fn kubelet_config(roots: &RootCertStore, client: &Credential) -> Result<ClientConfig, DialError> {
    let (chain, key) = client.to_der().map_err(pem("the client certificate and key"))?;
    Ok(ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain, key)?)
}

impl NodeConnector for DirectConnector {
    fn connect<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, std::io::Result<Box<dyn Connection>>> {
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, self.open(target)).await {
                Ok(result) => result,
                Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "i/o timeout")),
            }
        })
    }
}

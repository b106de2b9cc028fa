//! The cluster's own certificate authority: a directory of CAs, keys and certificates, made on first start.
//!
//! In: a directory, the names the API server answers to, a clock. Out: [`Pki`], which hands out credentials and the
//! API server's TLS configuration.
//!
//! Invariants: a private key never leaves its 0600 file except in a [`Credential`] a caller asked for; a file is
//! replaced as a whole or not at all; a leaf that is missing, unreadable, due, or of a foreign CA is issued anew; a CA
//! is never replaced by another one silently, because every certificate and kubeconfig out there rests on it.
//!
//! Not here: the CertificateSigningRequest API (it would call [`Pki::issue`]), revocation (short lives instead).
//!
//! Reading order: this file, [`spec`], [`authority`], [`files`], [`serving`], [`kubeconfig`].

pub mod authority;
pub mod files;
pub mod kubeconfig;
pub mod serving;
pub mod spec;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use jiff::Timestamp;

pub use authority::Authority;
pub use serving::{ClientCertificates, ServerTls};
pub use spec::{CertificateSpec, Credential, Usage};

/// How often [`Pki::keep_renewed`] looks at what is due. Leaves are renewed a third of their life early, so a missed
/// look costs nothing.
const RENEWAL_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// What went wrong with a key or certificate. Every message names the file, so that an administrator can act on it.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} holds no usable {what}: {detail}; restore it from a backup, or remove the whole directory to start a new cluster", path.display())]
    Unreadable { path: PathBuf, what: &'static str, detail: String },
    #[error("{} does not belong to the key {}; restore the pair from a backup", certificate.display(), key.display())]
    KeyMismatch { certificate: PathBuf, key: PathBuf },
    #[error("{} exists but its key {} does not; restore it from a backup", certificate.display(), key.display())]
    HalfPair { certificate: PathBuf, key: PathBuf },
    #[error("cannot make the certificate of {subject}")]
    Issue { subject: String, source: rcgen::Error },
    #[error("not a certificate name: {name:?}")]
    Name { name: String, source: rcgen::Error },
    #[error("cannot set up TLS with the certificate of {subject}")]
    Tls { subject: String, source: rustls::Error },
    #[error("cannot verify clients against the cluster CA")]
    Verifier { source: rustls::server::VerifierBuilderError },
}

/// Where the PKI lives and which names the API server answers to.
#[derive(Debug, Clone)]
pub struct PkiConfig {
    pub directory: PathBuf,
    /// DNS names beyond the fixed ones ([`SERVING_NAMES`]), for example the hostname.
    pub names: Vec<String>,
    /// Addresses beyond 127.0.0.1: the first address of the Service CIDR and the advertised addresses.
    pub addresses: Vec<IpAddr>,
}

/// Names under which clients inside the cluster reach the API server.
pub const SERVING_NAMES: [&str; 5] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"];

/// User name under which the API server calls kubelets.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// The open PKI. Cheap to share; all methods take `&self`.
pub struct Pki {
    config: PkiConfig,
    clock: Arc<dyn Clock>,
    cluster_ca: Authority,
    front_proxy_ca: Authority,
    member_ca: Authority,
    etcd_ca: Authority,
    service_account_key_pem: String,
}

impl Pki {
    /// Opens the directory, making whatever is missing: both CAs and the service-account key.
    ///
    /// Errors: unreadable or mismatched CA material is an error, never a reason to make a new CA.
    pub fn open(config: PkiConfig, clock: Arc<dyn Clock>) -> Result<Self, PkiError> {
        files::create_directory(&config.directory)?;
        let now = clock.now();
        let cluster_ca = Authority::open(&config.directory, "ca", "holdfast-cluster-ca", now)?;
        let front_proxy_ca = Authority::open(&config.directory, "front-proxy-ca", "holdfast-front-proxy-ca", now)?;
        let member_ca = Authority::open(&config.directory, "member-ca", "holdfast-member-ca", now)?;
        let etcd_ca = Authority::open(&config.directory, "etcd-ca", "holdfast-etcd-ca", now)?;
        let service_account_key_pem = authority::open_key(&config.directory.join("sa.key"))?;
        Ok(Self { config, clock, cluster_ca, front_proxy_ca, member_ca, etcd_ca, service_account_key_pem })
    }

    /// The CA that signs serving and client certificates; what goes into kubeconfigs and `kube-root-ca.crt`.
    pub fn cluster_ca(&self) -> &Authority {
        &self.cluster_ca
    }

    /// The CA of the aggregation layer's proxy certificates (`extension-apiserver-authentication`).
    pub fn front_proxy_ca(&self) -> &Authority {
        &self.front_proxy_ca
    }

    /// The CA of the members of the store; it signs nothing else, so no other certificate opens the way between them.
    pub fn member_ca(&self) -> &Authority {
        &self.member_ca
    }

    /// This server as a member of the store, for both directions, under a name that all members share.
    pub fn member(&self, name: &str) -> Result<Credential, PkiError> {
        let spec = CertificateSpec {
            usage: Usage::Both,
            ..CertificateSpec::serving("holdfast-member", None, &[name.to_owned()], &[])
        };
        self.member_ca.ensure(&self.config.directory, "member", &spec, self.clock.now())
    }

    /// The server of the store's etcd API, at the configured names and addresses. Its CA signs this and [`Self::etcd_client`] alone.
    pub fn etcd_serving(&self) -> Result<Credential, PkiError> {
        let names: Vec<String> = self.config.names.iter().cloned().chain(["localhost".to_owned()]).collect();
        let addresses: Vec<IpAddr> =
            self.config.addresses.iter().copied().chain([IpAddr::from([127, 0, 0, 1])]).collect();
        let spec = CertificateSpec::serving("holdfast-etcd", None, &names, &addresses);
        self.etcd_ca.ensure(&self.config.directory, "etcd-server", &spec, self.clock.now())
    }

    /// The administrator as client of the store's etcd API: etcd's user root.
    pub fn etcd_client(&self) -> Result<Credential, PkiError> {
        let spec = CertificateSpec::client("root", None);
        self.etcd_ca.ensure(&self.config.directory, "etcd-client", &spec, self.clock.now())
    }

    /// TLS for the store's etcd API: nobody without a certificate of its CA gets in.
    pub fn etcd_tls(&self) -> Result<Arc<ServerTls>, PkiError> {
        ServerTls::mutual(&self.etcd_serving()?, &self.etcd_ca)
    }

    /// PEM of the key that signs service-account tokens: our own are ECDSA P-256, one of another cluster's may be RSA.
    pub fn service_account_key_pem(&self) -> &str {
        &self.service_account_key_pem
    }

    /// A new key and certificate from the cluster CA, kept nowhere.
    pub fn issue(&self, spec: &CertificateSpec) -> Result<Credential, PkiError> {
        self.cluster_ca.issue(spec, self.clock.now())
    }

    /// The credential in `NAME.crt` and `NAME.key`, issued anew when [`authority::decide_renewal`] says so.
    ///
    /// `file` may hold a path below the directory (`nodes/a`). Idempotent: a second call returns the same pair.
    pub fn ensure(&self, file: &str, spec: &CertificateSpec) -> Result<Credential, PkiError> {
        self.cluster_ca.ensure(&self.config.directory, file, spec, self.clock.now())
    }

    /// The administrator: user `kubernetes-admin`, group `system:masters`, which passes every authorization.
    pub fn admin(&self) -> Result<Credential, PkiError> {
        self.ensure("admin", &CertificateSpec::client("kubernetes-admin", Some("system:masters")))
    }

    /// The API server as client of kubelets (logs, exec): user [`KUBELET_CLIENT`], which the default bindings give
    /// `system:kubelet-api-admin` and nothing else.
    pub fn kubelet_client(&self) -> Result<Credential, PkiError> {
        let spec = CertificateSpec::client(KUBELET_CLIENT, None);
        self.ensure("apiserver-kubelet-client", &spec)
    }

    /// Serving credential of a node's kubelet (port 10250).
    pub fn node_serving(&self, node: &str, addresses: &[IpAddr]) -> Result<Credential, PkiError> {
        let spec = CertificateSpec::serving(
            &format!("system:node:{node}"),
            Some("system:nodes"),
            &[node.to_owned(), "localhost".to_owned()],
            addresses,
        );
        self.ensure(&format!("nodes/{node}-serving"), &spec)
    }

    /// The API server's serving credential, for [`SERVING_NAMES`] and the configured names and addresses.
    pub fn api_serving(&self) -> Result<Credential, PkiError> {
        let mut names: Vec<String> = SERVING_NAMES.iter().map(|name| (*name).to_owned()).collect();
        names.extend(self.config.names.iter().cloned());
        let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
        addresses.extend(&self.config.addresses);
        self.ensure("apiserver", &CertificateSpec::serving("kube-apiserver", None, &names, &addresses))
    }

    /// TLS for the API server's listener: its certificate, and client certificates asked for but not required.
    /// The certificate is replaced in place by [`ServerTls::replace`].
    pub fn server_tls(&self) -> Result<Arc<ServerTls>, PkiError> {
        ServerTls::new(&self.api_serving()?)
    }

    /// TLS for the kubelet's server of `node`: its certificate, and client certificates of the cluster CA by choice. Whom it
    /// lets in is the kubelet's business; the API server comes as [`KUBELET_CLIENT`].
    pub fn kubelet_tls(&self, node: &str, addresses: &[IpAddr]) -> Result<Arc<ServerTls>, PkiError> {
        ServerTls::verified(&self.node_serving(node, addresses)?, &self.cluster_ca)
    }

    /// Verifies client certificates against the cluster CA.
    pub fn client_certificates(&self) -> Result<ClientCertificates, PkiError> {
        ClientCertificates::new(&self.cluster_ca, Arc::clone(&self.clock))
    }

    /// A kubeconfig for the administrator with everything embedded. `server` is a URL such as `https://127.0.0.1:6443`.
    pub fn admin_kubeconfig(&self, server: &str) -> Result<String, PkiError> {
        let admin = self.admin()?;
        Ok(kubeconfig::render(&kubeconfig::Access {
            context: "holdfast",
            user: "holdfast-admin",
            server,
            ca_pem: self.cluster_ca.certificate_pem(),
            credential: &admin,
        }))
    }

    /// Lets `renew` take a certificate anew now and then, for as long as the task lives: those that are due are issued again, and
    /// the others stay. A failure is logged as one of `what` and tried again at the next look; the old certificate serves on.
    pub async fn keep_renewed<E: std::error::Error + 'static>(
        self: Arc<Self>,
        what: &'static str,
        renew: impl Fn(&Self) -> Result<(), E>,
    ) {
        loop {
            tokio::time::sleep(RENEWAL_PERIOD).await;
            if let Err(problem) = renew(&self) {
                tracing::error!(
                    error = &problem as &dyn std::error::Error,
                    "the certificate of {what} was not renewed"
                );
            }
        }
    }

    /// The clock that judges validity.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

#[cfg(test)]
mod tests;

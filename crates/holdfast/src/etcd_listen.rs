//! What `holdfast etcd` listens on: URLs and certificate files in, bound and serving sockets out.
//!
//! Nothing here touches data. Certificates are read once, at the start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Clock;
use clap::Args;
use etcd::EtcdServer;
use peers::PeerTls;
use peers::tls::Material;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tls::pem::{parse_chain, parse_key};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::etcd_self_made::{SelfMade, SelfMadeError};

/// Flags that can't be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EtcdFlagsError {
    #[error(
        "--initial-cluster says {said} for {name}, but --initial-advertise-peer-urls says {own}; make them the same"
    )]
    OwnUrls { name: String, said: String, own: String },
    #[error("--initial-cluster-state existing needs another member in --initial-cluster, whom to ask for the others")]
    NobodyToJoin,
    #[error("the members in --initial-cluster can't be asked for the others: {0}")]
    NotAsked(String),
    #[error("the cluster knows no member at {urls}; add it first: etcdctl member add NAME --peer-urls {urls}")]
    NotAdded { urls: String },
    #[error("--peer-cert-file and --peer-key-file need --peer-trusted-ca-file, to know whose members to accept")]
    NoPeerCa,
    #[error("--peer-client-cert-auth needs --peer-cert-file, --peer-key-file and --peer-trusted-ca-file")]
    NoPeerFiles,
    #[error("{url} needs --peer-cert-file, --peer-key-file and --peer-trusted-ca-file, or --peer-auto-tls")]
    NoPeerCertificate { url: String },
    #[error("--initial-cluster {given} does not name this member, whose --name is {name}")]
    NotInCluster { given: String, name: String },
    #[error("{flag} {value}: {reason}")]
    Value { flag: &'static str, value: String, reason: &'static str },
    #[error("{file}: {error}")]
    File { file: String, error: String },
    #[error("--auth-token: {0}")]
    Tokens(String),
    #[error("--client-cert-auth needs --trusted-ca-file, to know whose certificates to accept")]
    NoClientCa,
    #[error(
        "--auto-tls lets every client in; with --client-cert-auth or --trusted-ca-file, give --cert-file and --key-file"
    )]
    AutoTlsChecksNobody,
    #[error("{url} needs --cert-file and --key-file, or --auto-tls")]
    NoCertificate { url: String },
}

/// gRPC and plain HTTP.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Certificate files of the listeners.
#[derive(Debug, Clone, Args)]
pub struct TlsFiles {
    /// The server's certificate, PEM.
    #[arg(long, requires = "key_file", env = "ETCD_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "cert_file", env = "ETCD_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Clients must have a certificate of one of these authorities.
    #[arg(long, env = "ETCD_TRUSTED_CA_FILE")]
    trusted_ca_file: Option<PathBuf>,
    /// Clients must have a certificate of --trusted-ca-file.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, env = "ETCD_CLIENT_CERT_AUTH")]
    pub client_cert_auth: bool,
    /// Encrypt with a certificate of its own making, which nobody can check.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, env = "ETCD_AUTO_TLS")]
    auto_tls: bool,
    /// Years that certificates of its own making are valid for.
    #[arg(long, default_value_t = 1, env = "ETCD_SELF_SIGNED_CERT_VALIDITY")]
    self_signed_cert_validity: u32,
}

/// Makes certificates for those who gave none.
pub struct Maker<'a> {
    /// etcd's directory for them, in the data directory.
    fixtures: PathBuf,
    years: u32,
    clock: &'a dyn Clock,
}

impl<'a> Maker<'a> {
    pub fn new(data_dir: &Path, args: &TlsFiles, clock: &'a dyn Clock) -> Self {
        // As in etcd, none is one.
        Self { fixtures: data_dir.join("fixtures"), years: args.self_signed_cert_validity.max(1), clock }
    }

    fn make(&self, name: &str, listeners: &[Listen]) -> Result<SelfMade, SelfMadeError> {
        let host = |listen: &Listen| {
            let host = listen.address.rsplit_once(':').map_or(listen.address.as_str(), |(host, _)| host);
            host.trim_start_matches('[').trim_end_matches(']').to_owned()
        };
        let hosts: Vec<String> = listeners.iter().map(host).collect();
        SelfMade::ensure(&self.fixtures.join(name), &hosts, self.years, self.clock)
    }
}

/// Certificate files for other members.
#[derive(Debug, Clone, Args)]
pub struct PeerTlsFiles {
    /// This member's certificate, PEM; it must serve for both directions.
    #[arg(long, requires = "peer_key_file", env = "ETCD_PEER_CERT_FILE")]
    peer_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "peer_cert_file", env = "ETCD_PEER_KEY_FILE")]
    peer_key_file: Option<PathBuf>,
    /// Other members must have a certificate of one of these authorities.
    #[arg(long, env = "ETCD_PEER_TRUSTED_CA_FILE")]
    peer_trusted_ca_file: Option<PathBuf>,
    /// Taken for etcd's sake: with certificates, other members must always show one.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, env = "ETCD_PEER_CLIENT_CERT_AUTH")]
    peer_client_cert_auth: bool,
    /// Encrypt with a certificate of its own making, which nobody checks.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, env = "ETCD_PEER_AUTO_TLS")]
    peer_auto_tls: bool,
}

/// TLS towards other members; `None` without any of the flags.
pub fn load_peer_tls(
    args: &PeerTlsFiles,
    listeners: &[Listen],
    maker: &Maker<'_>,
) -> Result<Option<PeerTls>, Box<dyn std::error::Error>> {
    let (Some(chain), Some(key)) = (&args.peer_cert_file, &args.peer_key_file) else {
        if args.peer_client_cert_auth && !args.peer_auto_tls {
            return Err(EtcdFlagsError::NoPeerFiles.into());
        }
        if !args.peer_auto_tls {
            return Ok(None);
        }
        let made = maker.make("peer", listeners)?;
        return Ok(Some(PeerTls::unchecked(&made.chain_pem, &made.key_pem)?));
    };
    if args.peer_auto_tls {
        warn!("--peer-auto-tls is of no use beside --peer-cert-file");
    }
    let authority = args.peer_trusted_ca_file.as_ref().ok_or(EtcdFlagsError::NoPeerCa)?;
    let read = |file: &Path| std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()));
    let (chain_pem, key_pem, authority_pem) = (&read(chain)?, &read(key)?, &read(authority)?);
    Ok(Some(PeerTls::mutual(&Material { chain_pem, key_pem, authority_pem }, None)?))
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub secure: bool,
    /// `host:port`.
    pub address: String,
}

/// Parses one URL of `flag`.
pub fn parse_url(flag: &'static str, url: &str) -> Result<Listen, EtcdFlagsError> {
    let bad = |reason| EtcdFlagsError::Value { flag, value: url.to_owned(), reason };
    let (scheme, address) =
        url.split_once("://").ok_or_else(|| bad("expected http://HOST:PORT or https://HOST:PORT"))?;
    let secure = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(bad("only http and https are served")),
    };
    let address = address.trim_end_matches('/');
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() || address.contains('/') {
        return Err(bad("expected http://HOST:PORT or https://HOST:PORT"));
    }
    Ok(Listen { secure, address: address.to_owned() })
}

/// A bound listener, and whether it speaks TLS.
pub type Bound = (TcpListener, bool);

/// Takes all ports.
pub async fn bind_all(urls: &[Listen]) -> Result<Vec<Bound>, String> {
    let mut bound = Vec::new();
    for url in urls {
        let listener = TcpListener::bind(&url.address)
            .await
            .map_err(|error| format!("{} cannot be used: {error}; see what holds it with `ss -ltnp`", url.address))?;
        if !url.secure && listener.local_addr().is_ok_and(|address| !address.ip().is_loopback()) {
            warn!("{} is served without TLS and can be reached from other machines", url.address);
        }
        bound.push((listener, url.secure));
    }
    Ok(bound)
}

/// Serves on all listeners until `stop`.
pub fn serve_all(
    server: &EtcdServer,
    clients: Vec<Bound>,
    metrics: Vec<Bound>,
    tls: Option<&Arc<rustls::ServerConfig>>,
    stop: &CancellationToken,
) {
    for (listener, secure) in clients {
        let (server, tls, stop) = (server.clone(), tls.filter(|_| secure).cloned(), stop.clone());
        tokio::spawn(async move { server.serve(listener, tls, stop).await });
    }
    for (listener, secure) in metrics {
        let (server, tls, stop) = (server.clone(), tls.filter(|_| secure).cloned(), stop.clone());
        tokio::spawn(async move { server.serve_metrics(listener, tls, stop).await });
    }
}

/// The TLS side of the listeners; as in etcd, an authority for clients means that they must show a certificate.
pub fn load_tls(
    args: &TlsFiles,
    listeners: &[Listen],
    maker: &Maker<'_>,
) -> Result<Option<Arc<rustls::ServerConfig>>, Box<dyn std::error::Error>> {
    if args.client_cert_auth && args.trusted_ca_file.is_none() {
        return Err(EtcdFlagsError::NoClientCa.into());
    }
    let (Some(cert_file), Some(key_file)) = (&args.cert_file, &args.key_file) else {
        return if args.auto_tls { Ok(Some(self_made_tls(args, listeners, maker)?)) } else { Ok(None) };
    };
    if args.auto_tls {
        warn!("--auto-tls is of no use beside --cert-file");
    }
    let chain = read_certificates(cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| format!("{}: {error}", key_file.display()))?;
    let provider = tls::provider();
    let builder =
        rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &args.trusted_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in read_certificates(file)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
            }
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| format!("{}: {error}", cert_file.display()))?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    Ok(Some(Arc::new(config)))
}

fn self_made_tls(
    args: &TlsFiles,
    listeners: &[Listen],
    maker: &Maker<'_>,
) -> Result<Arc<rustls::ServerConfig>, Box<dyn std::error::Error>> {
    if args.client_cert_auth || args.trusted_ca_file.is_some() {
        return Err(EtcdFlagsError::AutoTlsChecksNobody.into());
    }
    let made = maker.make("client", listeners)?;
    let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(parse_chain(&made.chain_pem)?, parse_key(&made.key_pem)?)?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    Ok(Arc::new(config))
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let read = CertificateDer::pem_file_iter(file).map_err(|error| named(&error))?;
    let read = read.collect::<Result<Vec<_>, _>>().map_err(|error| named(&error))?;
    if read.is_empty() { Err(named(&"no certificate in it")) } else { Ok(read) }
}

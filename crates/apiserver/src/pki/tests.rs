//! The PKI on a real directory with a clock that the test moves.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::ManualClock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::authority::CertificateFacts;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Lab {
    directory: tempdir::TempDir,
    clock: Arc<ManualClock>,
}

mod tempdir {
    //! A directory that goes away with the test.
    pub(super) struct TempDir(pub(super) std::path::PathBuf);
    impl TempDir {
        pub(super) fn new() -> Self {
            let name = base::id::uid(&mut base::OsRng);
            Self(std::env::temp_dir().join(format!("holdfast-pki-{name}")))
        }
    }
    impl Drop for TempDir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }
}

impl Lab {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-25T00:00:00Z".parse().unwrap()));
        Self { directory: tempdir::TempDir::new(), clock }
    }

    fn path(&self) -> &Path {
        &self.directory.0
    }

    fn open(&self) -> Result<Pki, PkiError> {
        let config = PkiConfig {
            directory: self.path().to_owned(),
            names: vec!["a-host".to_owned()],
            addresses: vec!["10.43.0.1".parse().unwrap()],
        };
        Pki::open(config, self.clock.clone())
    }
}

#[test]
fn first_start_makes_everything_private_and_the_second_keeps_it() {
    let lab = Lab::new();
    let first = lab.open().unwrap();
    let (ca, serving) = (first.cluster_ca().certificate_pem().to_owned(), first.api_serving().unwrap());
    let second = lab.open().unwrap();
    assert_eq!(second.cluster_ca().certificate_pem(), ca);
    assert_eq!(second.api_serving().unwrap(), serving);
    assert_eq!(second.service_account_key_pem(), first.service_account_key_pem());
    for entry in std::fs::read_dir(lab.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn serving_certificate_names() {
    let lab = Lab::new();
    let facts = CertificateFacts::parse(&lab.open().unwrap().api_serving().unwrap().certificate_pem).unwrap();
    assert_eq!(
        facts.names,
        [
            "a-host",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost"
        ]
    );
    assert_eq!(facts.addresses, ["10.43.0.1", "127.0.0.1"]);
}

#[test]
fn a_leaf_is_renewed_when_due_and_the_ca_keeps_its_key() {
    let lab = Lab::new();
    let before = lab.open().unwrap().admin().unwrap();
    lab.clock.advance(DAY * 240);
    assert_eq!(lab.open().unwrap().admin().unwrap(), before);
    lab.clock.advance(DAY * 10);
    assert_ne!(lab.open().unwrap().admin().unwrap(), before);

    let ca = CertificateFacts::parse(lab.open().unwrap().cluster_ca().certificate_pem()).unwrap();
    lab.clock.advance(DAY * 365 * 11);
    let renewed = CertificateFacts::parse(lab.open().unwrap().cluster_ca().certificate_pem()).unwrap();
    assert_eq!(renewed.public_key, ca.public_key);
    assert!(renewed.not_after > ca.not_after);
}

#[test]
fn damaged_leaves_are_replaced_and_damaged_authorities_are_errors() {
    let lab = Lab::new();
    let pki = lab.open().unwrap();
    let before = pki.admin().unwrap();
    for damage in ["", "not a certificate", pki.cluster_ca().certificate_pem()] {
        std::fs::write(lab.path().join("admin.crt"), damage).unwrap();
        let after = pki.admin().unwrap();
        assert_ne!(after, before);
        assert!(pki.client_certificates().unwrap().verify(&chain(&after)).is_ok());
    }

    let check = |file: &str, content: Option<&str>, expect: &str| {
        let path = lab.path().join(file);
        let saved = std::fs::read_to_string(&path).unwrap();
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let message = lab.open().err().expect("must fail").to_string().replace(&*lab.path().to_string_lossy(), "DIR");
        assert!(message.starts_with(expect), "{message}");
        std::fs::write(&path, saved).unwrap();
    };
    let front_proxy = std::fs::read_to_string(lab.path().join("front-proxy-ca.crt")).unwrap();
    check("ca.crt", Some("rubbish"), "DIR/ca.crt holds no usable CA certificate");
    check("ca.key", Some("rubbish"), "DIR/ca.key holds no usable private key");
    check("ca.key", None, "DIR/ca.crt exists but its key DIR/ca.key does not");
    check("ca.crt", Some(&front_proxy), "DIR/ca.crt does not belong to the key DIR/ca.key");
    check("sa.key", Some("rubbish"), "DIR/sa.key holds no usable private key");
}

#[test]
fn a_certificate_of_a_foreign_ca_is_replaced_and_never_verified() {
    let (lab, other) = (Lab::new(), Lab::new());
    let (ours, foreign) = (lab.open().unwrap(), other.open().unwrap());
    let stranger = foreign.admin().unwrap();
    assert!(ours.client_certificates().unwrap().verify(&chain(&stranger)).is_err());
    for end in ["crt", "key"] {
        std::fs::copy(other.path().join(format!("admin.{end}")), lab.path().join(format!("admin.{end}"))).unwrap();
    }
    assert_ne!(ours.admin().unwrap(), stranger);
}

#[test]
fn client_certificates_must_be_valid_now_and_for_clients() {
    let lab = Lab::new();
    let pki = lab.open().unwrap();
    let judge = pki.client_certificates().unwrap();
    assert!(judge.verify(&chain(&pki.admin().unwrap())).is_ok());
    assert!(judge.verify(&chain(&pki.api_serving().unwrap())).is_err());
    assert!(judge.verify(&[]).is_err());
    let admin = pki.admin().unwrap();
    lab.clock.advance(DAY * 366);
    assert!(judge.verify(&chain(&admin)).is_err());
}

/// One round trip over an in-memory pipe; returns the certificate that the client saw.
async fn handshake(pki: &Pki, tls: &ServerTls, client: Option<&Credential>) -> CertificateDer<'static> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.cluster_ca().certificate_der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match client.map(|credential| credential.to_der().unwrap()) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let (near, far) = tokio::io::duplex(64 * 1024);
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
    let server = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len)
    });
    let name = ServerName::try_from("kubernetes.default.svc").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, near).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    assert_eq!(server.await.unwrap(), usize::from(client.is_some()));
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn the_serving_certificate_is_replaced_without_a_new_listener() {
    let lab = Lab::new();
    // The client's verifier uses the machine's clock.
    lab.clock.jump(base::SystemClock::new().now());
    let pki = lab.open().unwrap();
    let tls = pki.server_tls().unwrap();
    let before = handshake(&pki, &tls, None).await;
    assert_eq!(handshake(&pki, &tls, Some(&pki.admin().unwrap())).await, before);
    std::fs::remove_file(lab.path().join("apiserver.crt")).unwrap();
    tls.replace(&pki.api_serving().unwrap()).unwrap();
    assert_ne!(handshake(&pki, &tls, None).await, before);
}

#[tokio::test]
async fn a_foreign_client_certificate_passes_the_handshake_but_not_the_judge() {
    let (lab, other) = (Lab::new(), Lab::new());
    lab.clock.jump(base::SystemClock::new().now());
    let pki = lab.open().unwrap();
    let stranger = other.open().unwrap().admin().unwrap();
    handshake(&pki, &pki.server_tls().unwrap(), Some(&stranger)).await;
    assert!(pki.client_certificates().unwrap().verify(&chain(&stranger)).is_err());
}

#[test]
fn kubeconfig_is_yaml_with_everything_embedded() {
    let lab = Lab::new();
    let text = lab.open().unwrap().admin_kubeconfig("https://127.0.0.1:6443").unwrap();
    let config: kube::config::Kubeconfig = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(config.current_context.as_deref(), Some("holdfast"));
    let cluster = config.clusters[0].cluster.as_ref().unwrap();
    assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
    assert!(cluster.certificate_authority_data.is_some());
}

fn chain(credential: &Credential) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(credential.certificate_pem.as_bytes()).map(Result::unwrap).collect()
}

#[tokio::test]
async fn the_kubelets_server_knows_its_cluster() {
    let lab = Lab::new();
    lab.clock.jump(base::SystemClock::new().now());
    let pki = lab.open().unwrap();
    let tls = pki.kubelet_tls("kubernetes.default.svc", &[]).unwrap();
    handshake(&pki, &tls, None).await;
    handshake(&pki, &tls, Some(&pki.kubelet_client().unwrap())).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_in_use_is_renewed_when_it_is_due_and_not_before() {
    let lab = Lab::new();
    let pki = Arc::new(lab.open().unwrap());
    let (sender, mut looks) = tokio::sync::mpsc::unbounded_channel();
    let look = move |pki: &Pki| {
        sender.send(pki.api_serving()?.certificate_pem).unwrap();
        Ok::<_, PkiError>(())
    };
    let renewal = tokio::spawn(pki.keep_renewed("a test", look));
    let first = looks.recv().await.unwrap();
    assert_eq!(looks.recv().await.unwrap(), first);
    lab.clock.advance(300 * DAY);
    assert_ne!(looks.recv().await.unwrap(), first);
    renewal.abort();
}

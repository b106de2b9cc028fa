//! All of the security side put together: what the binary calls once.
//!
//! In: an open [`Pki`], a data directory, a clock. Out: [`Security`], whose parts go into an [`ApiServerConfig`].
//!
//! Order at start: [`Security::open`], [`Security::configure`], make the server, [`Security::attach`] its reader, then
//! [`Security::write_defaults`] with an in-process client of `system:masters`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Clock;

use crate::admission::default_plugins;
use crate::audit::{AuditConfig, AuditLog};
use crate::authn::oidc::OpenIdDiscovery;
use crate::authn::reviews::IdentityReviews;
use crate::authn::{Authentication, CertificateAuthenticator, ServiceAccountTokens, jwt};
use crate::authz::node::NodeAuthorizer;
use crate::authz::reviews::AccessReviews;
use crate::authz::{AuthorizerChain, LateReader};
use crate::chain::Authorizer;
use crate::config::ApiServerConfig;
use crate::encryption::{AesGcm, AtRest, EncryptionError};
use crate::pki::{Pki, PkiError};
use crate::rbac::{Rbac, defaults};
use crate::reader::Reader;

/// Why the security side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error("cannot use the certificates")]
    Pki(#[from] PkiError),
    #[error("cannot use the service-account key")]
    ServiceAccountKey(#[from] jwt::JwtError),
    #[error("cannot use the encryption keys")]
    Encryption(#[from] EncryptionError),
    #[error("the built-in default roles are unreadable: {0}")]
    Defaults(String),
    #[error("cannot open the audit log {}", path.display())]
    Audit { path: PathBuf, source: std::io::Error },
}

/// The parts, made once.
pub struct Security {
    reader: Arc<LateReader>,
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
    authentication: Arc<Authentication>,
    tokens: Arc<ServiceAccountTokens>,
    encryption: Option<Arc<AesGcm>>,
    audit: Arc<AuditLog>,
}

impl Security {
    /// `directory` gets `audit.log`.
    pub fn open(pki: &Pki, directory: &Path, at_rest: &AtRest, clock: Arc<dyn Clock>) -> Result<Self, SecurityError> {
        let reader = Arc::new(LateReader::default());
        let view: Arc<dyn Reader> = Arc::clone(&reader) as Arc<dyn Reader>;
        let rbac = Arc::new(Rbac::new(Arc::clone(&view)));
        let node = NodeAuthorizer::new(Arc::clone(&view)).map_err(SecurityError::Defaults)?;
        let authorizer: Arc<dyn Authorizer> =
            Arc::new(AuthorizerChain::new(vec![("node", Arc::new(node)), ("rbac", Arc::clone(&rbac) as _)]));
        let tokens = Arc::new(ServiceAccountTokens::new(pki.service_account_key_pem(), view, Arc::clone(&clock))?);
        let certificates = CertificateAuthenticator::new(pki.client_certificates()?, clock);
        let authentication = Arc::new(Authentication::new(certificates, Arc::clone(&tokens), Arc::clone(&authorizer)));
        let encryption = at_rest.open()?.map(Arc::new);
        let path = directory.join("audit.log");
        let audit =
            AuditLog::open(AuditConfig::new(path.clone())).map_err(|source| SecurityError::Audit { path, source })?;
        Ok(Self { reader, rbac, authorizer, authentication, tokens, encryption, audit: Arc::new(audit) })
    }

    /// Puts every part into `config`; admission steps and paths are added behind what is there.
    pub fn configure(&self, config: &mut ApiServerConfig) {
        config.authenticator = Arc::clone(&self.authentication) as _;
        config.authorizer = Arc::clone(&self.authorizer);
        config.admission.extend(default_plugins(Arc::clone(&self.rbac), Arc::clone(&self.authorizer)));
        config.audit = Some(Arc::clone(&self.audit) as _);
        config.reviews.push(Arc::new(AccessReviews::new(Arc::clone(&self.authorizer), Arc::clone(&self.rbac))));
        config.reviews.push(Arc::new(IdentityReviews::new(Arc::clone(&self.tokens))));
        config.token_issuer = Some(Arc::clone(&self.tokens) as _);
        config.transformer = self.encryption.clone().map(|keys| keys as _);
        config.paths.push(Arc::new(OpenIdDiscovery::new(Arc::clone(&self.tokens))));
    }

    /// Gives all parts their view of the cluster. Before it only `system:masters` gets in.
    pub fn attach(&self, reader: Arc<dyn Reader>) {
        self.reader.fill(reader);
    }

    /// Writes the default roles and bindings that are missing; returns how many. Needs `kube-system` and `kube-public`.
    pub async fn write_defaults(&self, client: &kube::Client) -> Result<usize, defaults::ApplyError> {
        defaults::apply(client, Arc::clone(&self.reader) as Arc<dyn Reader>).await
    }

    /// The cluster as all parts see it.
    pub fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader) as _
    }

    /// The authorizer, for parts that ask questions of their own.
    pub fn authorizer(&self) -> Arc<dyn Authorizer> {
        Arc::clone(&self.authorizer)
    }
}

//! One certificate authority: its key, its certificate, and the leaves it keeps in files.
//!
//! In: a directory, a name, the time. Out: [`Authority`], which signs; [`decide_renewal`], the pure rule for leaves.
//!
//! Invariants: the CA's key is made once and never replaced. Its certificate is signed anew with the same key and
//! subject a year before it ends, so leaves issued before stay valid.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::spec::{CA_LIFETIME, CertificateSpec, Credential, set_validity};
use super::{PkiError, files};

/// A CA certificate with less than this left is signed anew.
const CA_RENEW_BEFORE_SECONDS: i64 = 365 * 24 * 3600;

/// A CA that can sign. Holds its private key.
pub struct Authority {
    certificate_pem: String,
    certificate_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens `NAME.crt` and `NAME.key` in `directory`, or makes both when neither exists.
    ///
    /// Errors: one of the two alone, either unreadable, or a certificate of another key.
    pub(super) fn open(directory: &Path, name: &str, subject: &str, now: Timestamp) -> Result<Self, PkiError> {
        let certificate_path = directory.join(format!("{name}.crt"));
        let key_path = directory.join(format!("{name}.key"));
        let Some(stored) = files::read_optional(&certificate_path)? else {
            // A key alone is what a crash between the two writes of a first start leaves; it is taken up again.
            let key = parse_key(&key_path, &open_key(&key_path)?)?;
            return Self::sign_own(&certificate_path, key, subject, now);
        };
        let Some(key_pem) = files::read_optional(&key_path)? else {
            return Err(PkiError::HalfPair { certificate: certificate_path, key: key_path });
        };
        let key = parse_key(&key_path, &key_pem)?;
        let facts = CertificateFacts::parse(&stored).map_err(|detail| PkiError::Unreadable {
            path: certificate_path.clone(),
            what: "CA certificate",
            detail,
        })?;
        if facts.public_key != key.subject_public_key_info() {
            return Err(PkiError::KeyMismatch { certificate: certificate_path, key: key_path });
        }
        if facts.not_after.as_second() - now.as_second() < CA_RENEW_BEFORE_SECONDS {
            tracing::warn!(file = %certificate_path.display(), not_after = %facts.not_after, "the CA certificate ends soon; signing it anew with the same key");
            return Self::sign_own(&certificate_path, key, subject, now);
        }
        let issue_error = |source| PkiError::Issue { subject: subject.to_owned(), source };
        let issuer = Issuer::from_ca_cert_der(&facts.der, key).map_err(issue_error)?;
        Ok(Self { certificate_pem: stored, certificate_der: facts.der, issuer })
    }

    fn sign_own(path: &Path, key: KeyPair, subject: &str, now: Timestamp) -> Result<Self, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_LIFETIME);
        let certificate =
            params.self_signed(&key).map_err(|source| PkiError::Issue { subject: subject.to_owned(), source })?;
        let certificate_pem = certificate.pem();
        files::write_private(path, certificate_pem.as_bytes())?;
        let certificate_der = certificate.der().clone();
        Ok(Self { certificate_pem, certificate_der, issuer: Issuer::new(params, key) })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate_der
    }

    /// A new P-256 key and its certificate.
    pub(super) fn issue(&self, spec: &CertificateSpec, now: Timestamp) -> Result<Credential, PkiError> {
        let issue_error = |source| PkiError::Issue { subject: spec.common_name.clone(), source };
        let key = KeyPair::generate().map_err(issue_error)?;
        let certificate = spec.params(now)?.signed_by(&key, &self.issuer).map_err(issue_error)?;
        let not_after = now.checked_add(spec.lifetime).unwrap_or(Timestamp::MAX);
        Ok(Credential { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), not_after })
    }

    /// See [`super::Pki::ensure`]. The key is written before the certificate: a crash between the two leaves a
    /// certificate of another key, which the next call replaces.
    pub(super) fn ensure(
        &self,
        directory: &Path,
        file: &str,
        spec: &CertificateSpec,
        now: Timestamp,
    ) -> Result<Credential, PkiError> {
        let certificate_path = directory.join(format!("{file}.crt"));
        let key_path = directory.join(format!("{file}.key"));
        match self.observe_leaf(&certificate_path, &key_path, spec, now)? {
            Ok(kept) => Ok(kept),
            Err(reason) => {
                if reason != Renewal::Missing {
                    tracing::warn!(file = %certificate_path.display(), %reason, "issuing the certificate anew");
                }
                let issued = self.issue(spec, now)?;
                if let Some(parent) = certificate_path.parent() {
                    files::create_directory(parent)?;
                }
                files::write_private(&key_path, issued.key_pem.as_bytes())?;
                files::write_private(&certificate_path, issued.certificate_pem.as_bytes())?;
                Ok(issued)
            }
        }
    }

    /// The stored pair, or why it does not do.
    fn observe_leaf(
        &self,
        certificate_path: &Path,
        key_path: &Path,
        spec: &CertificateSpec,
        now: Timestamp,
    ) -> Result<Result<Credential, Renewal>, PkiError> {
        let readable = |path: &Path| match files::read_optional(path) {
            Err(PkiError::Unreadable { detail, .. }) => Ok(Err(Renewal::Unreadable(detail))),
            Err(error) => Err(error),
            Ok(text) => Ok(text.ok_or(Renewal::Missing)),
        };
        let certificate_pem = match readable(certificate_path)? {
            Ok(text) => text,
            Err(reason) => return Ok(Err(reason)),
        };
        let key_pem = match readable(key_path)? {
            Ok(text) => text,
            Err(reason) => return Ok(Err(reason)),
        };
        let (facts, key) = match (CertificateFacts::parse(&certificate_pem), KeyPair::from_pem(&key_pem)) {
            (Ok(facts), Ok(key)) => (facts, key),
            (Err(detail), _) => return Ok(Err(Renewal::Unreadable(detail))),
            (_, Err(error)) => return Ok(Err(Renewal::Unreadable(error.to_string()))),
        };
        let signed_by_us = facts.is_signed_by(&self.certificate_der);
        let own_key = facts.public_key == key.subject_public_key_info();
        Ok(match decide_renewal(&facts, spec, signed_by_us, own_key, now) {
            Some(reason) => Err(reason),
            None => Ok(Credential { certificate_pem, key_pem, not_after: facts.not_after }),
        })
    }
}

/// Why a leaf is issued anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Renewal {
    #[error("it does not exist")]
    Missing,
    #[error("it is unreadable: {0}")]
    Unreadable(String),
    #[error("it belongs to another CA")]
    ForeignCa,
    #[error("it belongs to another key")]
    ForeignKey,
    #[error("less than a third of its life is left (it ends {0})")]
    Due(Timestamp),
    #[error("it is not valid before {0}")]
    NotYetValid(Timestamp),
    #[error("its names are not the wanted ones")]
    Names,
}

/// Whether the leaf in `facts` must be replaced; `None` keeps it.
pub fn decide_renewal(
    facts: &CertificateFacts,
    spec: &CertificateSpec,
    signed_by_us: bool,
    own_key: bool,
    now: Timestamp,
) -> Option<Renewal> {
    let remaining = facts.not_after.as_second() - now.as_second();
    let third = i64::try_from(spec.lifetime.as_secs()).unwrap_or(i64::MAX) / 3;
    let subject = (Some(&spec.common_name), spec.organization.iter().collect::<Vec<_>>());
    let wanted = (spec.names.clone(), spec.addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    if !signed_by_us {
        Some(Renewal::ForeignCa)
    } else if !own_key {
        Some(Renewal::ForeignKey)
    } else if remaining < third {
        Some(Renewal::Due(facts.not_after))
    } else if facts.not_before > now {
        Some(Renewal::NotYetValid(facts.not_before))
    } else if subject != (facts.common_name.as_ref(), facts.organizations.iter().collect())
        || wanted != (facts.names.clone(), facts.addresses.clone())
    {
        Some(Renewal::Names)
    } else {
        None
    }
}

/// What a certificate says, as far as the rules here care.
#[derive(Debug, Clone)]
pub struct CertificateFacts {
    pub der: CertificateDer<'static>,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
    pub common_name: Option<String>,
    pub organizations: Vec<String>,
    /// DNS names, in the certificate's order.
    pub names: Vec<String>,
    pub addresses: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Big-endian bytes in hexadecimal.
    pub serial: String,
}

impl CertificateFacts {
    /// Parses the first certificate of a PEM text.
    pub fn parse(pem: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        Self::parse_der(der)
    }

    /// Parses one DER certificate. The error is text for a message.
    pub fn parse_der(der: CertificateDer<'static>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let text =
            |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
        let time =
            |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|e| e.to_string());
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        if let Ok(Some(extension)) = parsed.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => addresses.extend(parse_address(bytes)),
                    _ => {}
                }
            }
        }
        let facts = Self {
            public_key: parsed.public_key().raw.to_vec(),
            common_name: parsed.subject().iter_common_name().next().and_then(text),
            organizations: parsed.subject().iter_organization().filter_map(text).collect(),
            names,
            addresses,
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            der: CertificateDer::from(Vec::new()),
        };
        Ok(Self { der, ..facts })
    }

    fn is_signed_by(&self, ca: &CertificateDer<'_>) -> bool {
        let Ok((_, ca)) = X509Certificate::from_der(ca) else { return false };
        let Ok((_, leaf)) = X509Certificate::from_der(&self.der) else { return false };
        leaf.issuer() == ca.subject() && leaf.verify_signature(Some(ca.public_key())).is_ok()
    }
}

fn parse_address(bytes: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(octets).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string())
}

/// The key in `path` as PEM, a P-256 key made when the file is not there. Content that is no private key is an error; which
/// kinds of keys will do is for those who use it.
pub(super) fn open_key(path: &Path) -> Result<String, PkiError> {
    if let Some(stored) = files::read_optional(path)? {
        PrivateKeyDer::from_pem_slice(stored.as_bytes()).map_err(|error| unusable_key(path, &error))?;
        return Ok(stored);
    }
    let key = KeyPair::generate()
        .map_err(|source| PkiError::Issue { subject: path.display().to_string(), source })?
        .serialize_pem();
    files::write_private(path, key.as_bytes())?;
    Ok(key)
}

fn parse_key(path: &Path, pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem).map_err(|error| unusable_key(path, &error))
}

fn unusable_key(path: &Path, error: &dyn std::error::Error) -> PkiError {
    PkiError::Unreadable { path: PathBuf::from(path), what: "private key", detail: error.to_string() }
}

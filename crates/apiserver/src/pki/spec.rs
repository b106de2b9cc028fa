//! What a certificate shall say, and what was issued: values only.
//!
//! In: names and lifetimes from callers. Out: the rcgen parameters that [`super::authority`] signs.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::PkiError;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// One year, as upstream's kubeadm and kubelet signer do.
pub const LEAF_LIFETIME: Duration = DAY.saturating_mul(365);
/// Ten years; the CA is signed anew with the same key a year before.
pub const CA_LIFETIME: Duration = DAY.saturating_mul(3650);
/// Validity starts this much in the past, for peers whose clocks run behind.
const BACKDATE: Duration = Duration::from_secs(3600);

/// What the holder may do with the certificate (extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Prove who a client is.
    Client,
    /// Prove who a server is.
    Serving,
    /// Both, for peers that dial each other.
    Both,
}

/// The subject, names, usage and lifetime of one leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSpec {
    /// CN: the user name, for a client.
    pub common_name: String,
    /// O: the group, for a client. One, since the issuing library keeps one attribute of a kind.
    pub organization: Option<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usage: Usage,
    pub lifetime: Duration,
}

impl CertificateSpec {
    /// A client `user` in `group`.
    pub fn client(user: &str, group: Option<&str>) -> Self {
        Self {
            common_name: user.to_owned(),
            organization: group.map(str::to_owned),
            names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
            lifetime: LEAF_LIFETIME,
        }
    }

    /// A server reachable under `names` and `addresses`; duplicates are dropped.
    pub fn serving(common_name: &str, organization: Option<&str>, names: &[String], addresses: &[IpAddr]) -> Self {
        let mut names = names.to_vec();
        let mut addresses = addresses.to_vec();
        names.sort();
        names.dedup();
        addresses.sort();
        addresses.dedup();
        Self { names, addresses, usage: Usage::Serving, ..Self::client(common_name, organization) }
    }

    /// The parameters to sign at `now`.
    pub(super) fn params(&self, now: Timestamp) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        params.subject_alt_names = self.alternative_names()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Serving => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, self.lifetime);
        Ok(params)
    }

    fn alternative_names(&self) -> Result<Vec<SanType>, PkiError> {
        let mut out = Vec::with_capacity(self.names.len() + self.addresses.len());
        for name in &self.names {
            let parsed = name.as_str().try_into().map_err(|source| PkiError::Name { name: name.clone(), source })?;
            out.push(SanType::DnsName(parsed));
        }
        out.extend(self.addresses.iter().map(|address| SanType::IpAddress(*address)));
        Ok(out)
    }
}

/// Sets `not_before` a little before `now` and `not_after` at `now + lifetime`.
pub(super) fn set_validity(params: &mut CertificateParams, now: Timestamp, lifetime: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATE);
    params.not_after = epoch + since_epoch.saturating_add(lifetime);
}

/// A certificate with its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub certificate_pem: String,
    /// PKCS#8.
    pub key_pem: String,
    pub not_after: Timestamp,
}

impl Credential {
    /// The chain (leaf first) and the key, as TLS libraries take them.
    pub(crate) fn to_der(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), pem::Error> {
        let chain = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
        Ok((chain, PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?))
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

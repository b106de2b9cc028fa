//! Certificates of `--auto-tls` and `--peer-auto-tls`: made once, by nobody's authority, and kept where etcd keeps its own.
//!
//! A directory of the data directory in, PEM texts out: `cert.pem` and `key.pem` are taken as they are if both are there.

use std::path::Path;
use std::time::Duration;

use apiserver::pki::PkiError;
use apiserver::pki::files::{create_directory, read_optional, write_private};
use base::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A year as etcd counts the validity of such certificates.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// So that the end has a year of four digits.
const YEARS_MAX: u32 = 7_000;

/// A certificate and its key, PEM.
pub struct SelfMade {
    pub chain_pem: String,
    pub key_pem: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SelfMadeError {
    #[error(transparent)]
    File(#[from] PkiError),
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
}

impl SelfMade {
    /// Reads the files of `directory`, or makes them for `hosts` (names or addresses), valid for so many years from now on.
    pub fn ensure(directory: &Path, hosts: &[String], years: u32, clock: &dyn Clock) -> Result<Self, SelfMadeError> {
        let (chain, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        if let (Some(chain_pem), Some(key_pem)) = (read_optional(&chain)?, read_optional(&key)?) {
            return Ok(Self { chain_pem, key_pem });
        }
        let made = Self::make(hosts, years, clock)?;
        create_directory(directory)?;
        write_private(&key, made.key_pem.as_bytes())?;
        write_private(&chain, made.chain_pem.as_bytes())?;
        tracing::warn!(directory = %directory.display(), years, "made a certificate that nobody can check");
        Ok(made)
    }

    fn make(hosts: &[String], years: u32, clock: &dyn Clock) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(hosts.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "etcd");
        // Its own authority, so that a client may be given it as the one to believe.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let since_epoch = Duration::from_secs(u64::try_from(clock.now().as_second()).unwrap_or(0));
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
        params.not_after = params.not_before + YEAR.saturating_mul(years.min(YEARS_MAX));
        let key = KeyPair::generate()?;
        let chain_pem = params.self_signed(&key)?.pem();
        Ok(Self { chain_pem, key_pem: key.serialize_pem() })
    }
}

#[cfg(test)]
mod tests {
    use base::SystemClock;

    use super::*;

    #[test]
    fn it_is_made_once_and_kept() {
        let place = std::env::temp_dir().join(format!("holdfast-self-made-{}", std::process::id()));
        let directory = place.join("fixtures/client");
        let ensure = |hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
            SelfMade::ensure(&directory, &hosts, 2, &SystemClock::new()).unwrap()
        };
        let (made, kept) = (ensure(&["127.0.0.1", "localhost"]), ensure(&["other"]));
        assert_eq!((&made.chain_pem, &made.key_pem), (&kept.chain_pem, &kept.key_pem));
        let facts = apiserver::pki::authority::CertificateFacts::parse(&made.chain_pem).unwrap();
        let left = facts.not_after.as_second() - SystemClock::new().now().as_second();
        assert_eq!((left + 3600) / (24 * 3600), 2 * 365);
        // Of a half, nothing is kept.
        std::fs::remove_file(directory.join("cert.pem")).unwrap();
        assert_ne!(ensure(&["127.0.0.1"]).key_pem, made.key_pem);
        std::fs::remove_dir_all(place).unwrap();
    }
}

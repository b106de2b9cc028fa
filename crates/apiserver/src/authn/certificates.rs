//! Client certificates: CN is the user, each O a group.
//!
//! In: the chain a peer showed. Out: an identity when the chain leads to the cluster CA and is valid now.
//!
//! Invariant: a remembered certificate is used only between its own start and end. What is remembered saves the signature
//! checks on a connection's later requests; nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base::Clock;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::CREDENTIAL_ID;
use crate::chain::Identity;
use crate::pki::ClientCertificates;
use crate::pki::authority::CertificateFacts;

/// Certificates remembered at once; when full, all are forgotten.
const REMEMBERED_MAX: usize = 1024;

/// See the module.
pub struct CertificateAuthenticator {
    judge: ClientCertificates,
    clock: Arc<dyn Clock>,
    verified: Mutex<HashMap<Vec<u8>, Verified>>,
}

#[derive(Clone)]
struct Verified {
    identity: Identity,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl CertificateAuthenticator {
    pub fn new(judge: ClientCertificates, clock: Arc<dyn Clock>) -> Self {
        Self { judge, clock, verified: Mutex::new(HashMap::new()) }
    }

    /// `None` for an empty chain, a chain that does not verify, or a certificate without a common name.
    pub fn identify(&self, chain: &[CertificateDer<'static>]) -> Option<Identity> {
        let leaf = chain.first()?;
        let fingerprint = digest(&SHA256, leaf).as_ref().to_vec();
        let now = self.clock.now();
        if let Some(known) = self.lock().get(&fingerprint)
            && known.not_before <= now
            && now <= known.not_after
        {
            return Some(known.identity.clone());
        }
        if let Err(error) = self.judge.verify(chain) {
            tracing::debug!(error = &error as &dyn std::error::Error, "client certificate refused");
            return None;
        }
        let facts = CertificateFacts::parse_der(leaf.clone()).ok()?;
        let verified = Verified {
            identity: identity_of(&facts, &fingerprint)?,
            not_before: facts.not_before,
            not_after: facts.not_after,
        };
        let mut known = self.lock();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(fingerprint, verified.clone());
        Some(verified.identity)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Verified>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity_of(facts: &CertificateFacts, fingerprint: &[u8]) -> Option<Identity> {
    let user = facts.common_name.clone().filter(|name| !name.is_empty())?;
    let hex: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Identity {
        user,
        uid: String::new(),
        groups: facts.organizations.clone(),
        extra: [(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hex}")])].into(),
    })
}

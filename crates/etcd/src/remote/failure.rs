//! What a failed request says about itself: whether it happened, and what the store's callers are told.

use std::error::Error;

use store::{KvError, Op, Txn};
use tonic::{Code, Status};

use super::dial::Ended;
use crate::Settings;
use crate::refusals::{
    DUPLICATE_KEY, EMPTY_KEY, INVALID_TOKEN, KEY_NOT_FOUND, LEASE_EXISTS, LEASE_NOT_FOUND, LEASE_TTL_TOO_LARGE,
    NO_LEADER, NO_SPACE, NOT_FOR_LEARNERS, OLD_AUTH_REVISION, PERMISSION_DENIED, TOO_LARGE, TOO_MANY_OPS,
    TOO_MANY_REQUESTS, USER_EMPTY,
};

/// A request that was not answered as it should be.
#[derive(Debug)]
pub(super) enum Failure {
    /// etcd has looked at it and said no. Nothing happened, and another server would say the same.
    Refused(Status),
    /// It was not taken up, for sure: another server may be asked, for a write too.
    NotTaken(String),
    /// It may have happened.
    Unknown(String),
}

impl Failure {
    pub(super) fn of(status: Status) -> Self {
        let text = status.message();
        let not_taken = [NO_LEADER, NOT_FOR_LEARNERS, TOO_MANY_REQUESTS, OLD_AUTH_REVISION];
        if not_taken.iter().any(|known| known.1 == text) || is_unsent(&status) {
            return Self::NotTaken(describe(&status));
        }
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Refused(status),
            _ => Self::Unknown(describe(&status)),
        }
    }
}

/// What a refused request was about: etcd's texts don't repeat it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About {
    pub(super) lease: i64,
    pub(super) ttl_seconds: i64,
    pub(super) bytes: usize,
}

impl About {
    pub(super) fn lease(lease: i64) -> Self {
        Self { lease, ..Self::default() }
    }

    pub(super) fn txn(txn: &Txn, bytes: usize) -> Self {
        Self { lease: lease_of(txn).unwrap_or_default(), bytes, ..Self::default() }
    }
}

/// The first lease that a transaction attaches to.
fn lease_of(txn: &Txn) -> Option<i64> {
    txn.success.iter().chain(&txn.failure).find_map(|op| match op {
        Op::Put(put) => Some(put.lease).filter(|lease| *lease != 0),
        Op::Txn(nested) => lease_of(nested),
        Op::Delete(_) | Op::Range(_) => None,
    })
}

/// The store's error for a refusal that needs no further look at etcd. Limits are etcd's defaults: it does not tell its own.
pub(super) fn error_of(status: &Status, about: About) -> KvError {
    let defaults = Settings::default();
    let is = |known: crate::refusals::Refusal| known.1 == status.message();
    if is(EMPTY_KEY) {
        KvError::EmptyKey
    } else if is(DUPLICATE_KEY) {
        KvError::DuplicateKey
    } else if is(KEY_NOT_FOUND) {
        KvError::KeyNotFound
    } else if is(LEASE_NOT_FOUND) {
        KvError::LeaseNotFound { id: about.lease }
    } else if is(LEASE_EXISTS) {
        KvError::LeaseExists { id: about.lease }
    } else if is(LEASE_TTL_TOO_LARGE) {
        KvError::LeaseTtl { ttl_seconds: about.ttl_seconds }
    } else if is(TOO_MANY_OPS) {
        KvError::TooManyOperations { operations_max: defaults.txn_operations_max }
    } else if is(NO_SPACE) {
        let detail = "etcd's quota is exceeded: compact and defragment it, then `etcdctl alarm disarm`".into();
        KvError::NoSpace { detail }
    } else if is(TOO_LARGE) || is_message_bound(status) {
        KvError::TooLarge { bytes: about.bytes, bytes_max: defaults.request_bytes_max }
    } else {
        KvError::Unavailable { reason: with_remedy(&describe(status)).into() }
    }
}

/// gRPC's own bound on messages, before etcd looks at them.
fn is_message_bound(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("message larger than max")
}

/// A reason, and what a person can do about it where that is known.
pub(super) fn with_remedy(reason: &str) -> String {
    let has = |text: &str| reason.contains(text);
    let remedy = if has(PERMISSION_DENIED.1) || has(INVALID_TOKEN.1) {
        "the certificate's user lacks a permission: grant its role readwrite on the prefix /registry/ and on the key compact_rev_key"
    } else if has(USER_EMPTY.1) {
        "etcd's access control is on: give the certificate of a user with --datastore-certfile and --datastore-keyfile"
    } else if has("UnknownIssuer") || has("BadSignature") {
        "its certificate is of another authority than --datastore-cafile names"
    } else if has("CertificateRequired") || has("BadCertificate") || has("UnknownCA") || has("HandshakeFailure") {
        "it wants a client certificate of its own authority: give --datastore-certfile and --datastore-keyfile"
    } else if has("NotValidForName") {
        "its certificate is for other names: write the server as the certificate does"
    } else if has("InvalidContentType") {
        "it speaks no TLS: write etcd:// instead of etcds://"
    } else if has("frame with invalid size") || has("HTTP/2") || has("connection has ended") || has("broken pipe") {
        "if it speaks TLS, write etcds:// instead of etcd://; if it is no etcd, give the right port"
    } else {
        return reason.to_owned();
    };
    format!("{reason} ({remedy})")
}

/// The status in words: etcd's, or the causes of a broken connection.
pub(super) fn describe(status: &Status) -> String {
    match status.source() {
        Some(source) => chain(source),
        None => status.message().to_owned(),
    }
}

/// An error and its causes in one line, without the frame that tonic puts around them.
pub(super) fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(inner) if error.to_string() == "transport error" => chain(inner),
        _ => base::with_causes(error),
    }
}

fn is_unsent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<Ended>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_goes_elsewhere_only_if_it_was_not_taken_up() {
        let of = |code, text: &str| match Failure::of(Status::new(code, text)) {
            Failure::Refused(_) => "refused",
            Failure::NotTaken(_) => "not taken",
            Failure::Unknown(_) => "unknown",
        };
        assert_eq!(of(Code::Unavailable, "etcdserver: no leader"), "not taken");
        assert_eq!(of(Code::ResourceExhausted, "etcdserver: too many requests"), "not taken");
        assert_eq!(of(Code::InvalidArgument, "etcdserver: revision of auth store is old"), "not taken");
        assert_eq!(of(Code::Unavailable, "etcdserver: request timed out"), "unknown");
        assert_eq!(of(Code::Unavailable, "etcdserver: leader changed"), "unknown");
        assert_eq!(of(Code::Unknown, "transport error"), "unknown");
        assert_eq!(of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"), "refused");
    }
}

//! etcd's refusals: gRPC codes and texts to the letter, because clients recognise errors by them.

use store::{KvError, MemberChangeError};
use tonic::{Code, Status};

/// One refusal: a code and a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub Code, pub &'static str);

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::new(refusal.0, refusal.1)
    }
}

pub const EMPTY_KEY: Refusal = Refusal(Code::InvalidArgument, "etcdserver: key is not provided");
pub const KEY_NOT_FOUND: Refusal = Refusal(Code::InvalidArgument, "etcdserver: key not found");
pub const VALUE_PROVIDED: Refusal = Refusal(Code::InvalidArgument, "etcdserver: value is provided");
pub const LEASE_PROVIDED: Refusal = Refusal(Code::InvalidArgument, "etcdserver: lease is provided");
pub const TOO_MANY_OPS: Refusal = Refusal(Code::InvalidArgument, "etcdserver: too many operations in txn request");
pub const DUPLICATE_KEY: Refusal = Refusal(Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
pub const INVALID_SORT: Refusal = Refusal(Code::InvalidArgument, "etcdserver: invalid sort option");
pub const TOO_LARGE: Refusal = Refusal(Code::InvalidArgument, "etcdserver: request is too large");
pub const COMPACTED: Refusal = Refusal(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
pub const FUTURE_REVISION: Refusal =
    Refusal(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
pub const NO_SPACE: Refusal = Refusal(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
pub const TOO_MANY_REQUESTS: Refusal = Refusal(Code::ResourceExhausted, "etcdserver: too many requests");
pub const LEASE_NOT_FOUND: Refusal = Refusal(Code::NotFound, "etcdserver: requested lease not found");
pub const LEASE_EXISTS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: lease already exists");
pub const LEASE_TTL_TOO_LARGE: Refusal = Refusal(Code::OutOfRange, "etcdserver: too large lease TTL");
pub const MEMBER_NOT_FOUND: Refusal = Refusal(Code::NotFound, "etcdserver: member not found");
pub const MEMBER_BAD_URLS: Refusal = Refusal(Code::InvalidArgument, "etcdserver: given member URLs are invalid");
pub const MEMBER_NOT_LEARNER: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: can only promote a learner member");
pub const MEMBER_EXISTS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: member ID already exist");
pub const LEARNER_NOT_READY: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader");
pub const TOO_MANY_LEARNERS: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: too many learner members in cluster");
pub const NO_LEADER: Refusal = Refusal(Code::Unavailable, "etcdserver: no leader");
pub const LEADER_CHANGED: Refusal = Refusal(Code::Unavailable, "etcdserver: leader changed");
pub const NOT_LEADER: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: not leader");
pub const NOT_FOR_LEARNERS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: rpc not supported for learner");
pub const PEER_URL_EXISTS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
pub const NOT_ENOUGH_STARTED: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members");
pub const BAD_LEADER_TRANSFEREE: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: bad leader transferee");
pub const BAD_DOWNGRADE_FORMAT: Refusal =
    Refusal(Code::InvalidArgument, "etcdserver: wrong downgrade target version format");
pub const BAD_DOWNGRADE_TARGET: Refusal =
    Refusal(Code::InvalidArgument, "etcdserver: invalid downgrade target version");
/// Not of etcd.
pub const NOT_DOWNGRADABLE: Refusal = Refusal(
    Code::FailedPrecondition,
    "holdfast: there is no downgrade, because these files are no etcd's; `etcdctl make-mirror` copies the keys to an etcd",
);
pub const ROOT_USER_MISSING: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: root user does not exist");
pub const ROOT_ROLE_MISSING: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: root user does not have root role");
pub const AUTH_NOT_ENABLED: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: authentication is not enabled");
pub const USER_EMPTY: Refusal = Refusal(Code::InvalidArgument, "etcdserver: user name is empty");
pub const USER_NOT_FOUND: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: user name not found");
pub const USER_EXISTS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: user name already exists");
pub const ROLE_EXISTS: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: role name already exists");
pub const ROLE_NOT_GRANTED: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: role is not granted to the user");
pub const PERMISSION_NOT_GRANTED: Refusal =
    Refusal(Code::FailedPrecondition, "etcdserver: permission is not granted to the role");
pub const PERMISSION_NOT_GIVEN: Refusal = Refusal(Code::InvalidArgument, "etcdserver: permission not given");
pub const INVALID_MANAGEMENT: Refusal = Refusal(Code::InvalidArgument, "etcdserver: invalid auth management");
pub const AUTH_FAILED: Refusal =
    Refusal(Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password");
/// etcd has no code for these three.
pub const NO_PASSWORD_USER: Refusal =
    Refusal(Code::Unknown, "auth: authentication failed, password was given for no password user");
pub const VERIFY_ONLY: Refusal = Refusal(Code::Unknown, "auth: token signing attempted with verify-only key");
pub const PASSWORD_TOO_LONG: Refusal = Refusal(Code::Unknown, "bcrypt: password length exceeds 72 bytes");
pub const OLD_AUTH_REVISION: Refusal = Refusal(Code::InvalidArgument, "etcdserver: revision of auth store is old");
pub const ROLE_EMPTY: Refusal = Refusal(Code::InvalidArgument, "etcdserver: role name is empty");
pub const ROLE_NOT_FOUND: Refusal = Refusal(Code::FailedPrecondition, "etcdserver: role name not found");
/// What etcd answers to callers without a certificate or name that it knows, while access control is on.
pub const PERMISSION_DENIED: Refusal = Refusal(Code::PermissionDenied, "etcdserver: permission denied");
pub const INVALID_TOKEN: Refusal = Refusal(Code::Unauthenticated, "etcdserver: invalid auth token");
pub const STOPPED: Refusal = Refusal(Code::Unavailable, "etcdserver: server stopped");
pub const TIMEOUT: Refusal = Refusal(Code::Unavailable, "etcdserver: request timed out");

/// What a client is told about an error of the store.
pub fn refusal_of(error: &KvError) -> Refusal {
    match error {
        KvError::Compacted { .. } => COMPACTED,
        KvError::FutureRevision { .. } => FUTURE_REVISION,
        KvError::NoSpace { .. } => NO_SPACE,
        KvError::TooLarge { .. } => TOO_LARGE,
        KvError::TooManyOperations { .. } => TOO_MANY_OPS,
        KvError::EmptyKey => EMPTY_KEY,
        KvError::DuplicateKey => DUPLICATE_KEY,
        KvError::KeyNotFound => KEY_NOT_FOUND,
        KvError::LeaseNotFound { .. } => LEASE_NOT_FOUND,
        KvError::LeaseExists { .. } => LEASE_EXISTS,
        KvError::LeaseTtl { .. } => LEASE_TTL_TOO_LARGE,
        KvError::PolicyChanged => OLD_AUTH_REVISION,
        KvError::Stopped { .. } => STOPPED,
        KvError::Unavailable { .. } => TIMEOUT,
    }
}

/// What a client is told about a change of the membership that was not made.
pub fn refusal_of_change(error: &MemberChangeError) -> Refusal {
    match error {
        MemberChangeError::NotFound { .. } => MEMBER_NOT_FOUND,
        MemberChangeError::IdUsed { .. } => MEMBER_EXISTS,
        MemberChangeError::PeerUrlUsed { .. } => PEER_URL_EXISTS,
        MemberChangeError::NotLearner { .. } => MEMBER_NOT_LEARNER,
        MemberChangeError::LearnerNotReady { .. } => LEARNER_NOT_READY,
        MemberChangeError::TooManyLearners { .. } => TOO_MANY_LEARNERS,
        MemberChangeError::NotEnoughStarted => NOT_ENOUGH_STARTED,
        MemberChangeError::Kv(error) => refusal_of(error),
    }
}

/// [`refusal_of`] as a gRPC status.
pub fn status_of(error: &KvError) -> Status {
    refusal_of(error).into()
}

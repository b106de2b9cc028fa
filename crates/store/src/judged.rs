//! Requests that somebody has judged by the policy, and that count only while it is that policy.
//!
//! Reads are answered from one state, whose policy must be the one; writes carry its revision into the log and are executed, on
//! every member alike, only if the policy is still that one there. [`KvError::PolicyChanged`]: nothing has happened; judge again.

use crate::command::Command;
use crate::error::KvError;
use crate::kv::{RangeRequest, RangeResponse, Txn, TxnResponse};
use crate::machine::{Outcome, is_read_only, read_txn};
use crate::mvcc::State;
use crate::policy::{PolicyChange, changes_bytes};
use crate::store::Store;

/// A store as the policy of one revision shows it; see [`Store::judged`].
#[derive(Clone, Copy)]
pub struct Judged<'s> {
    pub(crate) store: &'s Store,
    pub(crate) by: u64,
}

impl Judged<'_> {
    /// As [`crate::Kv::range`].
    pub async fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        if !request.serializable {
            self.store.catch_up().await?;
        }
        self.read(|state| state.range(request))
    }

    /// As [`crate::Kv::txn`].
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        self.store.check_txn(&txn)?;
        if is_read_only(&txn) {
            self.store.catch_up().await?;
            return self.read(|state| read_txn(state, &txn));
        }
        self.propose(Command::Txn(txn)).await?.of_txn()
    }

    /// As [`crate::Kv::lease_revoke`].
    pub async fn lease_revoke(&self, id: i64) -> Result<i64, KvError> {
        self.propose(Command::LeaseRevoke { id }).await?.of_revocation()
    }

    /// Changes the policy itself, all or nothing. Returns its new revision.
    pub async fn change_policy(&self, changes: Vec<PolicyChange>) -> Result<u64, KvError> {
        self.store.check_size(changes_bytes(&changes))?;
        self.propose(Command::Policy(changes)).await?.of_policy()
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> Result<T, KvError>) -> Result<T, KvError> {
        let state = self.store.published.state.load();
        if state.policy.revision == self.by { read(&state) } else { Err(KvError::PolicyChanged) }
    }

    async fn propose(&self, command: Command) -> Result<Outcome, KvError> {
        self.store.propose(Command::Judged { by: self.by, command: Box::new(command) }).await
    }
}

//! The embedded store: opens a data directory and answers [`Kv`].

use std::sync::{Arc, Mutex, PoisonError};

use base::Clock;
use futures::future::{BoxFuture, FutureExt, ready};

use crate::command::Command;
use crate::config::Config;
use crate::disk::Disk;
use crate::error::{KvError, OpenError};
use crate::kv::{Kv, LeaseGranted, LeaseStatus, RangeRequest, RangeResponse, Txn, TxnResponse};
use crate::machine::{Machine, Outcome};
use crate::mvcc::State;
use crate::status::Status;
use crate::txn::check_request;
use crate::watch::{Watch, WatchRequest};
use crate::watchers::Published;

pub struct Store {
    config: Config,
    published: Arc<Published>,
    machine: Mutex<(u64, Machine)>,
}

impl Store {
    pub fn open(config: Config, _disk: Arc<dyn Disk>, _clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let state = State::new();
        let published = Published::new(state.clone());
        Ok(Self { config, published, machine: Mutex::new((0, Machine::new(state))) })
    }

    fn apply(&self, command: &Command) -> Result<Outcome, KvError> {
        let mut guard = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0 += 1;
        let index = guard.0;
        let outcome = guard.1.apply(index, 1, command);
        self.published.publish(guard.1.state().clone());
        guard.1.clean_up(1000);
        outcome
    }
}

impl Kv for Store {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, KvError>> {
        ready(self.published.state.load().range(&request)).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, KvError>> {
        let answer = check_request(&txn, &self.config).and_then(|_| match self.apply(&Command::Txn(txn))? {
            Outcome::Txn(response) => Ok(response),
            _ => Ok(TxnResponse::default()),
        });
        ready(answer).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, KvError>> {
        ready(self.published.watch(request)).boxed()
    }

    fn compact(&self, revision: i64) -> BoxFuture<'_, Result<(), KvError>> {
        ready(self.apply(&Command::Compact { revision }).map(|_| ())).boxed()
    }

    fn lease_grant(&self, id: i64, ttl_seconds: i64) -> BoxFuture<'_, Result<LeaseGranted, KvError>> {
        let answer = self.apply(&Command::LeaseGrant { id, ttl_seconds }).map(|outcome| match outcome {
            Outcome::Granted(granted) => granted,
            _ => LeaseGranted { id, ttl_seconds },
        });
        ready(answer).boxed()
    }

    fn lease_revoke(&self, id: i64) -> BoxFuture<'_, Result<(), KvError>> {
        ready(self.apply(&Command::LeaseRevoke { id }).map(|_| ())).boxed()
    }

    fn lease_keep_alive(&self, id: i64) -> BoxFuture<'_, Result<i64, KvError>> {
        ready(self.published.state.load().leases.get(&id).copied().ok_or(KvError::LeaseNotFound { id })).boxed()
    }

    fn lease_time_to_live(&self, id: i64) -> BoxFuture<'_, Result<LeaseStatus, KvError>> {
        let guard = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match guard.1.state().leases.get(&id) {
            None => Err(KvError::LeaseNotFound { id }),
            Some(ttl) => {
                let keys = guard.1.attached_keys(id);
                Ok(LeaseStatus { id, granted_ttl_seconds: *ttl, remaining_seconds: *ttl, keys })
            }
        };
        ready(answer).boxed()
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<i64>, KvError>> {
        ready(Ok(self.published.state.load().leases.keys().copied().collect())).boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, KvError>> {
        let state = self.published.state.load();
        let status = Status {
            revision: state.revision,
            compact_revision: state.compact_revision,
            applied_index: state.index,
            keys: state.live_keys,
            live_bytes: state.live_bytes,
            db_bytes: state.total_bytes,
            watchers: self.published.watchers.count(),
            ..Status::default()
        };
        ready(Ok(status)).boxed()
    }
}

//! The embedded store: opens a data directory and answers [`Kv`].
//!
//! Reads and watches are answered from the published state, on the caller's own thread. Writes go to the driver and are
//! answered when they are durable and applied. What is bounded: the bytes of writes under way ([`Config`]); more writers wait.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use base::{Clock, OsRng, Rng};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, TryFutureExt as _, ready};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::cluster::Peers;
use crate::command::Command;
use crate::config::Config;
use crate::content::Content;
use crate::disk::Disk;
use crate::driver::{Driver, Message, Reply};
use crate::error::{KvError, OpenError};
use crate::frame::Identity;
use crate::judged::Judged;
use crate::kv::{Kv, LeaseGranted, LeaseStatus, RangeRequest, RangeResponse, Txn, TxnResponse};
use crate::log_worker::LogWorker;
use crate::machine::{Outcome, is_read_only, read_txn};
use crate::peer::{LeaderView, Transport};
use crate::policy::Policy;
use crate::record::encode_command;
use crate::recovery::recover;
use crate::status::Status;
use crate::threads::{Parts, spawn_threads};
use crate::txn::check_request;
use crate::wal::Wal;
use crate::watch::{Watch, WatchRequest};
use crate::watchers::Published;

/// A write counts for so many bytes at least towards the bound on writes under way.
const PROPOSAL_BYTES_MIN: usize = 1024;
/// etcd's bound: leases longer than 285 years make no sense and would overflow.
const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// A store on one data directory; share it as `Arc<Store>`.
///
/// [`Store::close`] or dropping it waits until the writes under way are durable and the directory is free for another
/// instance.
pub struct Store {
    config: Config,
    pub(crate) identity: Identity,
    pub(crate) published: Arc<Published>,
    pub(crate) inbox: Sender<Message>,
    /// Bytes of writes that may still be begun.
    room: Arc<Semaphore>,
    stopped: watch::Receiver<Option<Arc<str>>>,
    pub(crate) leader: watch::Receiver<LeaderView>,
    pub(crate) peers: Peers,
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Takes the directory and recovers what it holds. Blocks on the disk: call it before serving.
    pub fn open(
        config: Config,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, OpenError> {
        let lock = disk.lock().map_err(|error| OpenError::of_lock(&*disk, error))?;
        let mut rng = OsRng;
        let fresh = Identity { cluster: rng.next_u64() | 1, member: rng.next_u64() | 1 };
        let mut recovered = recover(&disk, &config, fresh)?;
        let identity = recovered.identity;
        let log_end = std::mem::take(&mut recovered.log_end);
        let wal = Wal::new(Arc::clone(&disk), identity, config.segment_bytes, log_end);
        let log = LogWorker::new(wal, Arc::clone(&disk), Arc::clone(&clock), config.reserve_bytes);
        let published = Published::new(recovered.state.clone());
        let driver =
            Driver::new(config.clone(), Arc::clone(&clock), recovered, Arc::clone(&published), rng.next_u64())?;
        let (stopped, leader) = (driver.stopped(), driver.leader());
        let room = Arc::new(Semaphore::new(config.in_flight_bytes()));
        let parts = Parts { driver, log, disk: Arc::clone(&disk), lock, identity, clock, transport };
        let (inbox, thread) = spawn_threads(parts)?;
        let (driver, peers) = (Mutex::new(Some(thread)), Peers::new(disk));
        Ok(Self { config, identity, published, inbox, room, stopped, leader, driver, peers })
    }

    /// Ends the store: waits until the writes under way are durable and all threads have ended. Later requests fail with
    /// `Stopped`, and so do open watches once they have delivered everything. Blocks; on a stuck disk for ever.
    pub fn close(&self) {
        // A driver that is gone needs no telling.
        self.inbox.send(Message::Stop).ok();
        let thread = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the driver of the store has panicked");
        }
        self.published.watchers.stop(&"the store is closed".into());
    }

    /// Resolves, with the reason, when the store can't write any more because its disk has failed. The process should
    /// end then and be started anew: recovery knows what is durable. Also resolves once the store is closed.
    pub async fn failed(&self) -> Arc<str> {
        let mut stopped = self.stopped.clone();
        let reason = stopped.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "the store has ended".into())
    }

    /// Makes the store look at its clock now, and waits until it has. For tests and simulations with a clock of their own.
    pub async fn tick(&self) {
        let (reply, done) = oneshot::channel();
        if self.inbox.send(Message::Tick { reply: Some(reply) }).is_ok() {
            // A store that has ended has nothing to do at this time.
            done.await.ok();
        }
    }

    /// [`Kv::range`] of what this member has applied (as with `serializable`), without the future: it never waits.
    pub fn range_now(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.published.state.load().range(request)
    }

    /// The policy as far as it is applied here.
    pub fn policy(&self) -> Policy {
        self.published.state.load().policy.clone()
    }

    /// Asks for what the policy of revision `by` ([`Policy::revision`]) allows.
    pub fn judged(&self, by: u64) -> Judged<'_> {
        Judged { store: self, by }
    }

    /// Everything that is applied here now. Shares the values with the running store.
    pub fn content(&self) -> Content {
        Content::of(&self.published.state.load_full())
    }

    /// Fills an empty directory, so that [`Store::open`] finds `content` there, with the same revisions. It is a cluster of its
    /// own with this member alone: members of another one never talk to it. A directory that holds a store is refused.
    pub fn fill(disk: &dyn Disk, content: Content) -> Result<(), OpenError> {
        let mut rng = OsRng;
        content.fill(disk, Identity { cluster: rng.next_u64() | 1, member: rng.next_u64() | 1 })
    }

    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, KvError> {
        let body = Bytes::from(encode_command(&command));
        let weight = body.len().clamp(PROPOSAL_BYTES_MIN, self.config.in_flight_bytes().max(PROPOSAL_BYTES_MIN));
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(weight).await.ok();
        self.ask(|reply| Message::Propose { command, body, permit, reply }).await
    }

    /// Waits until everything is visible here that was committed anywhere when this was called. A member that is the only
    /// voter needs not wait.
    pub(crate) async fn catch_up(&self) -> Result<(), KvError> {
        if self.published.reads_locally.load(Ordering::Acquire) {
            return Ok(());
        }
        self.ask(|reply| Message::Read { reply }).await
    }

    pub(crate) async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, KvError> {
        let (reply, answer) = oneshot::channel();
        let closed = || KvError::Stopped { reason: "the store is closed".into() };
        self.inbox.send(message(reply)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), KvError> {
        let bytes_max = self.config.request_bytes_max;
        if bytes > bytes_max { Err(KvError::TooLarge { bytes, bytes_max }) } else { Ok(()) }
    }

    pub(crate) fn check_txn(&self, txn: &Txn) -> Result<(), KvError> {
        check_request(txn, &self.config).map(|_bytes| ())
    }

    async fn write_txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        self.check_txn(&txn)?;
        if is_read_only(&txn) {
            self.catch_up().await?;
            return read_txn(&self.published.state.load(), &txn);
        }
        self.propose(Command::Txn(txn)).await?.of_txn()
    }

    async fn grant(&self, id: i64, ttl_seconds: i64) -> Result<LeaseGranted, KvError> {
        if !(1..=TTL_SECONDS_MAX).contains(&ttl_seconds) || id < 0 {
            return Err(KvError::LeaseTtl { ttl_seconds });
        }
        match self.propose(Command::LeaseGrant { id, ttl_seconds }).await? {
            Outcome::Granted(granted) => Ok(granted),
            _ => Err(mismatch()),
        }
    }

    async fn revoke(&self, id: i64) -> Result<i64, KvError> {
        self.propose(Command::LeaseRevoke { id }).await?.of_revocation()
    }
}

impl Outcome {
    pub(crate) fn of_txn(self) -> Result<TxnResponse, KvError> {
        if let Self::Txn(response) = self { Ok(response) } else { Err(mismatch()) }
    }

    pub(crate) fn of_revocation(self) -> Result<i64, KvError> {
        if let Self::Revoked(revision) = self { Ok(revision) } else { Err(mismatch()) }
    }

    pub(crate) fn of_policy(self) -> Result<u64, KvError> {
        if let Self::Policy(revision) = self { Ok(revision) } else { Err(mismatch()) }
    }
}

/// The state machine answers every command in kind; this is for the compiler.
fn mismatch() -> KvError {
    KvError::Stopped { reason: "internal error: an answer of the wrong kind".into() }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Kv for Store {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, KvError>> {
        if request.serializable || self.published.reads_locally.load(Ordering::Acquire) {
            return ready(self.range_now(&request)).boxed();
        }
        async move { self.catch_up().await.and_then(|()| self.range_now(&request)) }.boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, KvError>> {
        self.write_txn(txn).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, KvError>> {
        ready(self.published.watch(request)).boxed()
    }

    fn compact(&self, revision: i64) -> BoxFuture<'_, Result<(), KvError>> {
        self.propose(Command::Compact { revision }).map_ok(|_| ()).boxed()
    }

    fn lease_grant(&self, id: i64, ttl_seconds: i64) -> BoxFuture<'_, Result<LeaseGranted, KvError>> {
        self.grant(id, ttl_seconds).boxed()
    }

    fn lease_revoke(&self, id: i64) -> BoxFuture<'_, Result<i64, KvError>> {
        self.revoke(id).boxed()
    }

    fn lease_keep_alive(&self, id: i64) -> BoxFuture<'_, Result<i64, KvError>> {
        self.ask(move |reply| Message::KeepAlive { id, reply }).boxed()
    }

    fn lease_time_to_live(&self, id: i64) -> BoxFuture<'_, Result<LeaseStatus, KvError>> {
        self.ask(move |reply| Message::TimeToLive { id, reply }).boxed()
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<i64>, KvError>> {
        let list = || self.published.state.load().leases.keys().copied().collect();
        async move { self.catch_up().await.map(|()| list()) }.boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, KvError>> {
        self.ask(|reply| Message::Status { reply }).boxed()
    }
}

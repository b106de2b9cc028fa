//! The service `Watch`: any number of watches on one stream, each a [`WatchTask`] that sends through the stream's queue.
//!
//! Invariant: a watch's `created` response goes before all else of that watch, its `canceled` response after all else.
//! When the client is gone or done sending, all its watches end.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use store::{Kv as _, LeaderView};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use crate::access::Caller;
use crate::listener::LEADER_WANTED;
use crate::member::Member;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::watch_server::Watch;
use crate::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::range_options::end_of;
use crate::refusals::{
    COMPACTED, INVALID_TOKEN, NO_LEADER, OLD_AUTH_REVISION, PERMISSION_DENIED, Refusal, TOO_MANY_REQUESTS, USER_EMPTY,
    refusal_of,
};
use crate::watch_task::{NO_WATCH, Outbox, ProgressRound, WatchSpec, WatchTask};

/// Responses that wait for a slow connection.
const OUTBOX: usize = 16;
/// Progress requests that a watch has not come to yet; more are dropped, clients ask again.
const ROUNDS: usize = 4;
/// etcd's figure: three election timeouts.
const ORPHANED_AFTER: Duration = Duration::from_secs(3);
/// Watches on one stream.
const WATCHES_MAX: usize = 65_536;

pub(crate) struct WatchService {
    pub(crate) member: Arc<Member>,
}

#[async_trait::async_trait]
impl Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (outbox, mut inbox) = mpsc::channel(OUTBOX);
        let wants_leader = request.metadata().get(LEADER_WANTED).is_some_and(|value| value == "true");
        let (member, caller, watches) = (Arc::clone(&self.member), Caller::from(&request), HashMap::new());
        let mut stream = WatchStream { member, caller, outbox, watches, next_id: 0, wants_leader };
        tokio::spawn(async move { stream.run(request.into_inner()).await });
        let responses = futures::stream::poll_fn(move |context| inbox.poll_recv(context));
        Ok(Response::new(Box::pin(responses)))
    }
}

/// The server's side of one stream.
struct WatchStream {
    member: Arc<Member>,
    caller: Caller,
    outbox: Outbox,
    watches: HashMap<i64, Running>,
    next_id: i64,
    /// The client asked to be told when there is no leader.
    wants_leader: bool,
}

/// Resolves when there has been no leader for [`ORPHANED_AFTER`].
async fn orphaned(mut leader: watch::Receiver<LeaderView>) {
    loop {
        if leader.wait_for(|view| view.leader == 0).await.is_err() {
            // The store has ended; watches end by themselves.
            return std::future::pending().await;
        }
        let back = tokio::time::timeout(ORPHANED_AFTER, leader.wait_for(|view| view.leader != 0)).await;
        if back.is_err() {
            return;
        }
    }
}

/// A running watch; dropping it ends it.
struct Running {
    task: AbortOnDropHandle<()>,
    rounds: mpsc::Sender<Arc<ProgressRound>>,
}

/// The client is gone.
struct Gone;

impl WatchStream {
    async fn run(&mut self, mut requests: Streaming<WatchRequest>) {
        self.member.counters.watch_streams.fetch_add(1, Ordering::Relaxed);
        let mut orphaned = std::pin::pin!(orphaned(self.member.subscribe_leader()));
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                () = self.outbox.closed() => break,
                () = &mut orphaned, if self.wants_leader => {
                    // The end of the stream says it, if anybody still listens.
                    self.outbox.send(Err(NO_LEADER.into())).await.ok();
                    break;
                }
            };
            // The end of the requests, orderly or not, ends the stream.
            let Ok(Some(request)) = request else { break };
            if self.handle(request).await.is_err() {
                break;
            }
        }
        self.member.counters.watch_streams.fetch_sub(1, Ordering::Relaxed);
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                self.ask_progress();
                Ok(())
            }
            // etcd ignores what it does not know.
            None => Ok(()),
        }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Gone> {
        self.outbox.send(Ok(response)).await.map_err(|_| Gone)
    }

    fn response(&self, watch_id: i64, revision: i64) -> WatchResponse {
        WatchResponse { header: Some(self.member.header(revision)), watch_id, ..WatchResponse::default() }
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Gone> {
        // Before the watch begins: the client resumes from the revision of this header.
        let revision = self.member.revision();
        let opened = match self.check_rights(&create).await {
            Ok(()) => self.open(&create, revision),
            Err(refusal) => Err(Refused::Access(refusal)),
        };
        let refused = match opened {
            Ok(open) => return self.start(open, revision).await,
            Err(refused) => refused,
        };
        match refused {
            // As in etcd, with the code.
            Refused::Access(refusal) => {
                let cancel_reason = format!("rpc error: code = {:?} desc = {}", refusal.0, refusal.1);
                let response = self.response(NO_WATCH, revision);
                self.send(WatchResponse { created: true, canceled: true, cancel_reason, ..response }).await
            }
            Refused::With(reason) => {
                let cancel_reason = reason.to_owned();
                let response = self.response(NO_WATCH, revision);
                self.send(WatchResponse { created: true, canceled: true, cancel_reason, ..response }).await
            }
            // As in etcd, a watch of the compacted past is created and ends at once.
            Refused::Compacted { id, compact_revision } => {
                self.send(WatchResponse { created: true, ..self.response(id, revision) }).await?;
                let response = self.response(id, revision);
                self.send(WatchResponse { canceled: true, compact_revision, ..response }).await
            }
        }
    }

    /// Opens the watch in the store.
    fn open(&mut self, create: &WatchCreateRequest, revision: i64) -> Result<Open, Refused> {
        if create.start_revision < 0 {
            return Err(Refused::With(COMPACTED.1));
        }
        let key = first_key(create);
        let end = end_of(&create.range_end);
        if end.as_ref().is_some_and(|end| end.as_ref() != b"\0" && *end <= key) {
            return Err(Refused::With("mvcc: watcher range is empty"));
        }
        self.watches.retain(|_, running| !running.task.is_finished());
        if self.watches.len() >= WATCHES_MAX {
            return Err(Refused::With(TOO_MANY_REQUESTS.1));
        }
        let id = self.choose_id(create.watch_id)?;
        let start_revision = if create.start_revision == 0 { revision + 1 } else { create.start_revision };
        let request = store::WatchRequest { key, end, start_revision, prev_kv: create.prev_kv };
        let watch = futures::FutureExt::now_or_never(self.member.store.watch(request));
        match watch {
            Some(Ok(watch)) => Ok(Open { watch, spec: spec_of(create, id) }),
            Some(Err(store::KvError::Compacted { compact_revision })) => {
                Err(Refused::Compacted { id, compact_revision })
            }
            Some(Err(error)) => Err(Refused::With(refusal_of(&error).1)),
            // The embedded store opens watches at once.
            None => Err(Refused::With(TOO_MANY_REQUESTS.1)),
        }
    }

    /// As in etcd, once, when the watch begins.
    async fn check_rights(&self, create: &WatchCreateRequest) -> Result<(), Refusal> {
        // etcd refuses the revision first.
        if create.start_revision < 0 {
            return Ok(());
        }
        let rights = self.member.rights(&self.caller).await.map_err(|_| INVALID_TOKEN)?;
        let key = first_key(create);
        match rights.check_read(&key, end_of(&create.range_end).as_ref()) {
            Err(refusal) if refusal != OLD_AUTH_REVISION && refusal != USER_EMPTY => Err(PERMISSION_DENIED),
            checked => checked,
        }
    }

    fn choose_id(&mut self, wanted: i64) -> Result<i64, Refused> {
        if wanted != 0 {
            let taken = self.watches.contains_key(&wanted);
            let duplicate = Refused::With("mvcc: duplicate watch ID provided on the WatchStream");
            return if taken { Err(duplicate) } else { Ok(wanted) };
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    async fn start(&mut self, open: Open, revision: i64) -> Result<(), Gone> {
        let id = open.spec.id;
        self.send(WatchResponse { created: true, ..self.response(id, revision) }).await?;
        let (rounds, receiver) = mpsc::channel(ROUNDS);
        let (member, outbox) = (Arc::clone(&self.member), self.outbox.clone());
        let task = WatchTask { member, spec: open.spec, outbox, rounds: receiver };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run(open.watch)));
        self.watches.insert(id, Running { task, rounds });
        Ok(())
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Gone> {
        // One that is not there (any more) is not answered.
        let Some(running) = self.watches.remove(&id) else { return Ok(()) };
        running.task.abort();
        if running.task.await.is_ok() {
            // It had ended by itself, and said so.
            return Ok(());
        }
        self.send(WatchResponse { canceled: true, ..self.response(id, self.member.revision()) }).await
    }

    /// Asks all watches; the slowest decides what is reported.
    fn ask_progress(&mut self) {
        self.watches.retain(|_, running| !running.task.is_finished());
        let round = ProgressRound::new(self.watches.len());
        for running in self.watches.values() {
            // A watch that is far behind has no room for the question: then nobody answers, as in etcd.
            if running.rounds.try_send(Arc::clone(&round)).is_err() {
                return;
            }
        }
    }
}

struct Open {
    watch: store::Watch,
    spec: WatchSpec,
}

enum Refused {
    Access(Refusal),
    With(&'static str),
    Compacted { id: i64, compact_revision: i64 },
}

fn first_key(create: &WatchCreateRequest) -> Bytes {
    if create.key.is_empty() { Bytes::from_static(b"\0") } else { create.key.clone() }
}

fn spec_of(create: &WatchCreateRequest, id: i64) -> WatchSpec {
    WatchSpec {
        id,
        start_revision: create.start_revision,
        no_put: create.filters.contains(&(FilterType::Noput as i32)),
        no_delete: create.filters.contains(&(FilterType::Nodelete as i32)),
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}

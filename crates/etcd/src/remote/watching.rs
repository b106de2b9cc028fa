//! Watches of an outside etcd: one gRPC stream each, opened anew on another server where the last one broke.
//!
//! Invariants: a watch goes on at the revision after the last one it delivered, so nothing is missed and nothing repeated; a
//! batch holds whole revisions; a reader that is slow holds the stream back, a bounded number of batches apart. It ends by
//! itself only when the history that it needs is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use store::{Event, EventKind, KeyValue, KvError, RangeRequest, Watch, WatchBatch, WatchRequest, WatchSource};
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use super::failure::describe;
use super::links::Link;
use super::{MESSAGE_BYTES_MAX, REQUEST_WITHIN, Shared, silent, wanting_leader};
use crate::proto::etcdserverpb::watch_client::WatchClient;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{self as pb, WatchCreateRequest, WatchProgressRequest, WatchResponse};
use crate::proto::mvccpb;
use crate::proto::mvccpb::event::EventType;
use crate::range_options::{parse_kv, wire_end};

/// Batches that wait for the reader.
const BATCHES: usize = 16;
/// Requests that wait for the stream: one watch and its questions for progress.
const REQUESTS: usize = 4;
/// etcd leaves the question for progress unanswered while the watch is behind: it is put again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A quiet watch asks by itself how far it is complete, so that what it would go on from is not compacted meanwhile.
const QUIET: Duration = Duration::from_secs(60);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Opens a watch.
pub(super) async fn open(shared: Arc<Shared>, mut request: WatchRequest) -> Result<Watch, KvError> {
    if request.key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    if request.start_revision > 0 {
        check_history(&shared, request.start_revision).await?;
    }
    let (stream, revision) = open_stream(&shared, &request).await.map_err(|reason| KvError::Unavailable { reason })?;
    if request.start_revision <= 0 {
        request.start_revision = revision + 1;
    }
    let (batches, inbox) = mpsc::channel(BATCHES);
    let progress = Arc::new(Notify::new());
    let guard = Counted::new(&shared);
    let task = Task { shared, request, batches, progress: Arc::clone(&progress) };
    let task = AbortOnDropHandle::new(tokio::spawn(task.run(stream)));
    Ok(Watch::new(Box::new(RemoteWatch { inbox, progress, _task: task, _guard: guard })))
}

/// etcd tells of a start that is too old only after the watch is open: a read tells it before.
async fn check_history(shared: &Shared, revision: i64) -> Result<(), KvError> {
    match shared.range(RangeRequest { revision, ..shared.root.any_key() }).await {
        // A watch may begin in the future.
        Ok(_) | Err(KvError::FutureRevision { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Shared {
    /// The oldest revision that is kept, 0 if nothing was ever compacted: what a watch from the very beginning is told.
    pub(super) async fn compact_revision(&self) -> Result<i64, KvError> {
        let key = self.root.any_key().key;
        let request = WatchRequest { key, start_revision: 1, ..WatchRequest::default() };
        let (mut stream, _) = open_stream(self, &request).await.map_err(|reason| KvError::Unavailable { reason })?;
        let mut again = interval(ASK_AGAIN);
        let answer = async {
            loop {
                tokio::select! {
                    message = stream.next() => {
                        let message = message?;
                        if message.canceled || message.events.is_empty() {
                            return Ok::<i64, Arc<str>>(message.compact_revision);
                        }
                    }
                    _ = again.tick() => stream.ask_progress(),
                }
            }
        };
        let answer = timeout(REQUEST_WITHIN, answer).await.unwrap_or_else(|_| Err(silent().into()));
        answer.map_err(|reason| KvError::Unavailable { reason })
    }
}

/// Counts an open watch.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.watches.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

struct RemoteWatch {
    inbox: mpsc::Receiver<Result<WatchBatch, KvError>>,
    progress: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
    _guard: Counted,
}

impl WatchSource for RemoteWatch {
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchBatch, KvError>> {
        let ended = || Err(KvError::Stopped { reason: "the watch has ended".into() });
        Poll::Ready(ready!(self.inbox.poll_recv(context)).unwrap_or_else(ended))
    }

    fn request_progress(&mut self) {
        self.progress.notify_one();
    }
}

/// An open stream with one watch on it.
struct WatchStream {
    link: Link,
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl WatchStream {
    async fn next(&mut self) -> Result<WatchResponse, Arc<str>> {
        match self.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err("the stream has ended".into()),
            Err(status) => Err(describe(&status).into()),
        }
    }

    /// A question that is still on its way will do.
    fn ask_progress(&self) {
        let request_union = Some(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        if self.requests.try_send(pb::WatchRequest { request_union }).is_err() {
            tracing::trace!("a question for progress is under way already");
        }
    }
}

/// A stream whose watch is open, and the newest revision at that time.
async fn open_stream(shared: &Shared, request: &WatchRequest) -> Result<(WatchStream, i64), Arc<str>> {
    let link = shared.links.link().await?;
    let opened = timeout(REQUEST_WITHIN, create(link.clone(), request)).await;
    match opened.unwrap_or_else(|_| Err(silent().into())) {
        Ok(opened) => Ok(opened),
        Err(reason) => {
            shared.links.give_up(&link).await;
            Err(format!("{}: {reason}", link.server).into())
        }
    }
}

async fn create(link: Link, request: &WatchRequest) -> Result<(WatchStream, i64), Arc<str>> {
    let (requests, mut outbox) = mpsc::channel(REQUESTS);
    let create = WatchCreateRequest {
        key: request.key.clone(),
        range_end: wire_end(request.end.as_ref()),
        start_revision: request.start_revision,
        prev_kv: request.prev_kv,
        fragment: true,
        ..WatchCreateRequest::default()
    };
    let request_union = Some(RequestUnion::CreateRequest(create));
    // Before the stream is opened: etcd answers nothing, not even headers, to an empty one.
    requests.send(pb::WatchRequest { request_union }).await.map_err(|error| Arc::from(error.to_string()))?;
    let asks = futures::stream::poll_fn(move |context| outbox.poll_recv(context));
    let mut client = WatchClient::new(link.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let responses = client.watch(wanting_leader(asks)).await.map_err(|status| Arc::from(describe(&status)))?;
    let mut stream = WatchStream { link, requests, responses: responses.into_inner() };
    let created = stream.next().await?;
    if created.canceled {
        return Err(created.cancel_reason.into());
    }
    Ok((stream, created.header.map_or(0, |header| header.revision)))
}

/// What feeds one watch.
struct Task {
    shared: Arc<Shared>,
    /// `start_revision` is the next one to deliver.
    request: WatchRequest,
    batches: mpsc::Sender<Result<WatchBatch, KvError>>,
    progress: Arc<Notify>,
}

/// Why a stream is not read any further.
enum End {
    /// Nobody listens any more.
    Unwanted,
    Compacted(i64),
    Broken(Arc<str>),
}

impl Task {
    async fn run(mut self, mut stream: WatchStream) {
        loop {
            match self.follow(&mut stream).await {
                End::Unwanted => return,
                End::Compacted(compact_revision) => {
                    // A reader that has gone needs no reason.
                    self.batches.send(Err(KvError::Compacted { compact_revision })).await.ok();
                    return;
                }
                End::Broken(reason) => {
                    let (server, next) = (&stream.link.server, self.request.start_revision);
                    tracing::warn!(%server, %reason, next, "a watch of the datastore broke; it is opened anew");
                    self.shared.links.give_up(&stream.link).await;
                }
            }
            let Some(opened) = self.reopen().await else { return };
            stream = opened;
        }
    }

    /// Tries until the datastore answers or nobody listens any more.
    async fn reopen(&self) -> Option<WatchStream> {
        let mut pause = RETRY_MIN;
        loop {
            match open_stream(&self.shared, &self.request).await {
                Ok((stream, _)) => {
                    tracing::info!(server = %stream.link.server, next = self.request.start_revision, "the watch goes on");
                    return Some(stream);
                }
                Err(reason) => tracing::debug!(%reason, "the watch of the datastore can't go on yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                () = self.batches.closed() => return None,
            }
        }
    }

    async fn follow(&mut self, stream: &mut WatchStream) -> End {
        let mut again = interval(ASK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wanted = false;
        let mut fragments: Vec<mvccpb::Event> = Vec::new();
        loop {
            tokio::select! {
                response = stream.next() => match response {
                    Err(reason) => return End::Broken(reason),
                    Ok(response) if response.canceled && response.compact_revision > 0 => {
                        return End::Compacted(response.compact_revision);
                    }
                    Ok(response) if response.canceled => return End::Broken(response.cancel_reason.into()),
                    Ok(mut response) => {
                        fragments.append(&mut response.events);
                        if response.fragment {
                            continue;
                        }
                        let batch = parse_batch(response, std::mem::take(&mut fragments));
                        wanted &= !batch.events.is_empty();
                        self.request.start_revision = self.request.start_revision.max(batch.revision + 1);
                        if self.batches.send(Ok(batch)).await.is_err() {
                            return End::Unwanted;
                        }
                    }
                },
                () = self.progress.notified() => {
                    wanted = true;
                    again.reset_immediately();
                }
                _ = again.tick(), if wanted => stream.ask_progress(),
                () = tokio::time::sleep(QUIET), if !wanted => wanted = true,
                () = self.batches.closed() => return End::Unwanted,
            }
        }
    }
}

/// Events are complete up to the last of them: the header tells the newest revision, which may lie behind what is still to
/// come. Without events it is a progress notification, and holds.
fn parse_batch(response: WatchResponse, events: Vec<mvccpb::Event>) -> WatchBatch {
    let header = response.header.map_or(0, |header| header.revision);
    let events: Vec<Event> = events.iter().filter_map(parse_event).collect();
    WatchBatch { revision: events.last().map_or(header, |event| event.kv.mod_revision), events }
}

fn parse_event(event: &mvccpb::Event) -> Option<Event> {
    let kv = parse_kv(event.kv.as_ref()?);
    let (kind, kv) = match event.r#type() {
        EventType::Put => (EventKind::Put, kv),
        EventType::Delete => {
            let (key, mod_revision) = (kv.key.clone(), kv.mod_revision);
            (EventKind::Delete, Arc::new(KeyValue { key, mod_revision, ..KeyValue::default() }))
        }
    };
    Some(Event { kind, kv, prev_kv: event.prev_kv.as_ref().map(parse_kv) })
}

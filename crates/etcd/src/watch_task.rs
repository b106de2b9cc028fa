//! One watch of a watch stream: batches of the store in, responses out, until it is cancelled or its history is gone.
//!
//! Invariant: everything up to the revision of a progress notification has been sent before it. Responses go through the
//! stream's one bounded queue; while that is full the cursor waits and holds nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use bytes::Bytes;
use prost::Message;
use store::{EventKind, KvError, Watch, WatchBatch};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::Status;

use crate::member::Member;
use crate::proto::etcdserverpb::WatchResponse;
use crate::proto::mvccpb::event::EventType;
use crate::proto::mvccpb::{self, Event};
use crate::range_options::wire_kv;
use crate::refusals::STOPPED;

/// The watch id that etcd uses for "all watches of the stream" and for "none".
pub(crate) const NO_WATCH: i64 = -1;
/// A response is closed after so many bytes, at the end of a revision.
const RESPONSE_BYTES: usize = 1 << 20;

pub(crate) type Outbox = mpsc::Sender<Result<WatchResponse, Status>>;

/// What the client asked for.
#[derive(Debug, Clone)]
pub(crate) struct WatchSpec {
    pub(crate) id: i64,
    /// First revision that is wanted; 0: whatever comes next.
    pub(crate) start_revision: i64,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
    pub(crate) progress_notify: bool,
    pub(crate) fragment: bool,
}

/// A progress request to all watches of a stream. Whoever answers last sends the response.
#[derive(Debug)]
pub(crate) struct ProgressRound {
    revision: AtomicI64,
    /// Watches that have not answered.
    waiting: AtomicUsize,
}

impl ProgressRound {
    pub(crate) fn new(watches: usize) -> Arc<Self> {
        Arc::new(Self { revision: AtomicI64::new(i64::MAX), waiting: AtomicUsize::new(watches) })
    }

    /// One watch is complete up to `revision`. For the last one: the revision up to which all are.
    fn answer(&self, revision: i64) -> Option<i64> {
        self.revision.fetch_min(revision, Ordering::AcqRel);
        (self.waiting.fetch_sub(1, Ordering::AcqRel) == 1).then(|| self.revision.load(Ordering::Acquire))
    }
}

pub(crate) struct WatchTask {
    pub(crate) member: Arc<Member>,
    pub(crate) spec: WatchSpec,
    pub(crate) outbox: Outbox,
    pub(crate) rounds: mpsc::Receiver<Arc<ProgressRound>>,
}

/// The stream has ended.
struct Closed;

impl WatchTask {
    /// Runs until the watch or its stream ends.
    pub(crate) async fn run(mut self, mut watch: Watch) {
        let mut ticks = self.progress_ticks();
        let mut quiet = true;
        let mut notify = false;
        let mut waiting: Vec<Arc<ProgressRound>> = Vec::new();
        loop {
            let sent = tokio::select! {
                batch = watch.next_batch() => match batch {
                    Ok(batch) if batch.events.is_empty() => {
                        let own = std::mem::take(&mut notify);
                        self.answer_progress(batch.revision, own, std::mem::take(&mut waiting)).await
                    }
                    Ok(batch) => {
                        quiet = false;
                        self.send_batch(&batch).await
                    }
                    Err(error) => return self.send_end(&error).await,
                },
                Some(round) = self.rounds.recv() => {
                    waiting.push(round);
                    watch.request_progress();
                    Ok(())
                }
                _ = ticks.tick(), if self.spec.progress_notify => {
                    if std::mem::replace(&mut quiet, true) {
                        notify = true;
                        watch.request_progress();
                    }
                    Ok(())
                }
                () = self.outbox.closed() => Err(Closed),
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn progress_ticks(&self) -> Interval {
        let period = self.member.settings.progress_interval;
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Closed> {
        self.outbox.send(Ok(response)).await.map_err(|_| Closed)
    }

    fn response(&self, watch_id: i64, revision: i64) -> WatchResponse {
        WatchResponse { header: Some(self.member.header(revision)), watch_id, ..WatchResponse::default() }
    }

    /// Says how far the watch is complete. One that begins in the future says nothing, as in etcd: clients take up a broken
    /// watch behind the last revision they heard, and that would lie before its begin.
    async fn answer_progress(&self, revision: i64, own: bool, rounds: Vec<Arc<ProgressRound>>) -> Result<(), Closed> {
        if revision + 1 < self.spec.start_revision {
            return Ok(());
        }
        if own {
            self.send(self.response(self.spec.id, revision)).await?;
        }
        for round in rounds {
            if let Some(of_all) = round.answer(revision) {
                self.send(self.response(NO_WATCH, of_all)).await?;
            }
        }
        Ok(())
    }

    async fn send_batch(&self, batch: &WatchBatch) -> Result<(), Closed> {
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut last = 0;
        for event in &batch.events {
            if bytes >= RESPONSE_BYTES && event.kv.mod_revision != last {
                self.send_events(last, std::mem::take(&mut events)).await?;
                bytes = 0;
            }
            last = event.kv.mod_revision;
            if self.passes(event.kind) {
                bytes += event.kv.key.len() + event.kv.value.len() + 64;
                bytes += event.prev_kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len() + 64);
                events.push(wire_event(event));
            }
        }
        self.send_events(batch.revision, events).await
    }

    fn passes(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.spec.no_put,
            EventKind::Delete => !self.spec.no_delete,
        }
    }

    /// Sends events of whole revisions, in fragments if the client can put them together.
    async fn send_events(&self, revision: i64, events: Vec<Event>) -> Result<(), Closed> {
        if events.is_empty() {
            return Ok(());
        }
        self.member.counters.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        if !self.spec.fragment {
            return self.send(WatchResponse { events, ..self.response(self.spec.id, revision) }).await;
        }
        let bytes_max = self.member.settings.request_bytes_max;
        let mut part = Vec::new();
        let mut bytes = 0;
        for event in events {
            let size = event.encoded_len() + 8;
            if !part.is_empty() && bytes + size >= bytes_max {
                let events = std::mem::take(&mut part);
                self.send(WatchResponse { events, fragment: true, ..self.response(self.spec.id, revision) }).await?;
                bytes = 0;
            }
            bytes += size;
            part.push(event);
        }
        self.send(WatchResponse { events: part, ..self.response(self.spec.id, revision) }).await
    }

    /// Says why there is nothing more to come. A closed stream needs no telling.
    async fn send_end(&self, error: &KvError) {
        match error {
            KvError::Compacted { compact_revision } => {
                let response = self.response(self.spec.id, self.member.revision());
                let response = WatchResponse { canceled: true, compact_revision: *compact_revision, ..response };
                self.send(response).await.ok();
            }
            _ => {
                self.outbox.send(Err(STOPPED.into())).await.ok();
            }
        }
    }
}

fn wire_event(event: &store::Event) -> Event {
    let (r#type, kv) = match event.kind {
        EventKind::Put => (EventType::Put, wire_kv(&event.kv)),
        EventKind::Delete => (
            EventType::Delete,
            mvccpb::KeyValue {
                key: event.kv.key.clone(),
                mod_revision: event.kv.mod_revision,
                value: Bytes::new(),
                ..mvccpb::KeyValue::default()
            },
        ),
    };
    Event { r#type: r#type as i32, kv: Some(kv), prev_kv: event.prev_kv.as_ref().map(|kv| wire_kv(kv)) }
}

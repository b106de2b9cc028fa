//! Watches: the ordered stream of changes of a key range.
//!
//! A [`Watch`] is a cursor, not a queue: it holds no events, so a slow reader costs no memory and simply reads older history
//! when it comes back, or gets `Compacted` if it comes back too late. Batches come in revision order, a revision is never
//! split, none is skipped and none repeated. Events and values are shared with the store.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use tokio::task::coop::poll_proceed;

use crate::error::KvError;
use crate::kv::KeyValue;

/// Which changes, from when on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchRequest {
    pub key: Bytes,
    /// As in [`crate::RangeRequest::end`].
    pub end: Option<Bytes>,
    /// First revision to deliver; 0 = whatever comes next. May lie in the future.
    pub start_revision: i64,
    /// Deliver [`Event::prev_kv`].
    pub prev_kv: bool,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// The new state. For a delete: the key and, as `mod_revision`, the revision of the delete; all else is empty.
    pub kv: Arc<KeyValue>,
    /// The state before, if there was one and it is still in the history.
    pub prev_kv: Option<Arc<KeyValue>>,
}

/// Events of one or more whole revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// Everything in the range up to this revision has been delivered, with this batch.
    pub revision: i64,
    /// In revision order; empty in a progress notification.
    pub events: Vec<Event>,
}

/// An open watch; dropping it closes it. Also a [`Stream`], which ends after the first error.
pub struct Watch {
    source: Option<Box<dyn WatchSource>>,
}

/// What feeds a [`Watch`]: the embedded store, or a remote one.
pub trait WatchSource: Send {
    /// The next batch. After an error it is not called again.
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchBatch, KvError>>;
    /// The next batch, once everything known now is delivered, is to come even if it is empty.
    fn request_progress(&mut self);
}

impl Watch {
    pub fn new(source: Box<dyn WatchSource>) -> Self {
        Self { source: Some(source) }
    }

    /// Waits for the next batch. Cancel safe. Errors: `Compacted` (the reader was too slow, or the start too old) and
    /// `Stopped` are final: every later call repeats `Stopped`.
    pub async fn next_batch(&mut self) -> Result<WatchBatch, KvError> {
        poll_fn(|context| self.poll_batch(context)).await
    }

    /// Asks for a progress notification: a batch, possibly empty, whose `revision` tells how far the watch is complete.
    /// It arrives without any write having to happen. Use it for bookmarks.
    pub fn request_progress(&mut self) {
        if let Some(source) = &mut self.source {
            source.request_progress();
        }
    }

    /// Poll form of [`Self::next_batch`].
    pub fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchBatch, KvError>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(Err(KvError::Stopped { reason: "the watch has ended".into() }));
        };
        // A reader that is far behind always finds a batch: it must let other tasks run now and then.
        let budget = ready!(poll_proceed(context));
        let polled = source.poll_batch(context);
        if polled.is_ready() {
            budget.made_progress();
        }
        if matches!(polled, Poll::Ready(Err(_))) {
            self.source = None;
        }
        polled
    }
}

impl Stream for Watch {
    type Item = Result<WatchBatch, KvError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.source.is_none() {
            return Poll::Ready(None);
        }
        self.poll_batch(context).map(Some)
    }
}

//! Watch: the changes of a collection as a stream of events.
//!
//! ```text
//! start (list first | after a revision) -> Initial events -> Live events, bookmarks -> end (timeout, too slow, server stops)
//! ```
//!
//! Invariants: events come in revision order, none is skipped; an object that begins or ceases to match is ADDED or DELETED; a
//! deleted object is shown in its last state with the revision of its deletion; one encoding of an event serves all
//! watchers with the same representation. A watcher holds no buffer of its own: if it is too slow for the history, it gets a
//! 410 ERROR event and ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use tokio::time::{Instant, sleep_until};

use super::Call;
use super::list::{encoder, fresh_enough};
use super::select::Selection;
use crate::body::{self, Body, BoxError};
use crate::cache::history::FrameKey;
use crate::cache::{Change, Cursor, CursorError, Entry, ResourceCache};
use crate::encode::{Encoder, EventType};
use crate::error::ApiError;
use crate::negotiate::{Media, Shape};
use crate::request::{ListOptions, parse_list_options};
use crate::server::stopped;

/// Watches end by themselves after 30 to 60 minutes.
const LIFE_SECONDS_MIN: u64 = 1_800;
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A last bookmark comes this long before the end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Changes read at once.
const BATCH: usize = 128;

pub async fn watch(call: Call) -> Result<Response<Body>, ApiError> {
    let encoder = encoder(&call, true)?;
    let options = parse_list_options(&call.query, true)?;
    let selection = Selection::parse(&call, &options)?;
    let media = encoder.representation.media;
    let watcher = match start(&call, &options, selection, encoder.clone()).await {
        Ok(watcher) => watcher,
        // Once the parameters are understood, a watch fails with an event, as upstream's do.
        Err(error) if matches!(error.code, 410 | 504) => {
            let event = encoder.error_event(&error);
            return Ok(head(media, body::stream(futures::stream::iter([Ok(event)]))));
        }
        Err(error) => return Err(error),
    };
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<Bytes, BoxError>(chunk), watcher))
    });
    Ok(head(media, body::stream(stream)))
}

/// The response's head.
fn head(media: Media, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let content_type = match media {
        Media::Proto => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// One open watch.
struct Watcher {
    core: Arc<crate::server::Core>,
    cache: Arc<ResourceCache>,
    cursor: Cursor,
    selection: Selection,
    encoder: Encoder,
    prefix: Vec<u8>,
    /// Nothing at or below it is sent.
    after: i64,
    initial: VecDeque<Arc<Entry>>,
    /// Revision of the bookmark that ends the initial events of a streaming list.
    initial_end: Option<i64>,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    /// Table watches send the column definitions once.
    columns_sent: bool,
    finished: bool,
}

async fn start(
    call: &Call,
    options: &ListOptions,
    selection: Selection,
    encoder: Encoder,
) -> Result<Watcher, ApiError> {
    let version = options.resource_version;
    let lists = options.send_initial_events.unwrap_or(matches!(version, None | Some(0)));
    if let Some(version) = version.filter(|version| *version > 0 && lists) {
        fresh_enough(call, version).await?;
    }
    let cache = call.resource.cache.clone();
    let applied = call.registry().feed.applied();
    let snapshot = cache.snapshot();
    let revision = applied.max(snapshot.revision);
    let prefix = call.resource.source.namespace_prefix(call.namespace());
    let (cursor, after, initial) = match version {
        // Of the future: begins when that has come.
        Some(version) if version > revision && !lists => (cache.watch_after(&snapshot), version, VecDeque::new()),
        Some(version) if version > 0 && !lists => {
            let cursor = cache
                .watch_from(version)
                .map_err(|CursorError::TooOld { oldest }| ApiError::too_old_resource_version(version, oldest))?;
            (cursor, version, VecDeque::new())
        }
        _ => {
            let initial = if lists {
                snapshot.range(&prefix, None).filter(|entry| selection.matches(entry)).cloned().collect()
            } else {
                VecDeque::new()
            };
            (cache.watch_after(&snapshot), 0, initial)
        }
    };
    let now = Instant::now();
    let life = options.timeout_seconds.unwrap_or_else(|| LIFE_SECONDS_MIN + call.registry().draw(LIFE_SECONDS_MIN));
    let jitter = Duration::from_millis(call.registry().draw(5_000));
    Ok(Watcher {
        core: call.core.clone(),
        cache,
        cursor,
        selection,
        encoder,
        prefix,
        after,
        initial,
        initial_end: (options.send_initial_events == Some(true) && options.bookmarks).then_some(revision),
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_EVERY.saturating_sub(jitter),
        ends: now + Duration::from_secs(life.min(86_400)),
        columns_sent: false,
        finished: false,
    })
}

impl Watcher {
    /// The next bytes to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.finished {
                return None;
            }
            if let Some(entry) = self.initial.pop_front() {
                return Some(self.initial_frame(&entry));
            }
            if let Some(revision) = self.initial_end.take() {
                return Some(self.or_error(self.encoder.bookmark(revision, true)));
            }
            match self.cache.read(&mut self.cursor, BATCH) {
                Ok(changes) if changes.is_empty() => {
                    if let Some(frame) = self.wait().await {
                        return Some(frame);
                    }
                }
                Ok(changes) => {
                    let out = self.frames(&changes);
                    if !out.is_empty() {
                        return Some(out);
                    }
                }
                Err(CursorError::TooOld { oldest }) => {
                    self.finished = true;
                    return Some(self.encoder.error_event(&ApiError::too_old_resource_version(self.after, oldest)));
                }
            }
        }
    }

    /// Waits for a change, the next bookmark or the end.
    async fn wait(&mut self) -> Option<Bytes> {
        let mut stop = self.core.stopping.subscribe();
        let last_bookmark = self.ends - BOOKMARK_BEFORE_END;
        let bookmark_at = if Instant::now() < last_bookmark {
            self.next_bookmark.min(last_bookmark)
        } else {
            self.ends + BOOKMARK_EVERY
        };
        tokio::select! {
            () = self.cursor.wait() => None,
            () = sleep_until(bookmark_at), if self.bookmarks => {
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                self.live_bookmark()
            }
            () = sleep_until(self.ends) => {
                self.finished = true;
                None
            }
            () = stopped(&mut stop) => {
                self.finished = true;
                None
            }
        }
    }

    /// A bookmark at the newest revision, unless a change came first.
    fn live_bookmark(&mut self) -> Option<Bytes> {
        let applied = self.core.registry.feed.applied();
        // Whatever was applied by then is in the history by now: an empty read means that it has been sent.
        if !self.cache.is_at_end(&self.cursor) {
            return None;
        }
        self.after = self.after.max(applied);
        Some(self.or_error(self.encoder.bookmark(applied, false)))
    }

    fn initial_frame(&mut self, entry: &Arc<Entry>) -> Bytes {
        let columns = self.take_columns();
        self.or_error(self.encoder.event(EventType::Added, entry, entry.revision, columns))
    }

    fn take_columns(&mut self) -> bool {
        self.encoder.representation.shape == Shape::Table && !std::mem::replace(&mut self.columns_sent, true)
    }

    /// The events of some changes, one after the other.
    fn frames(&mut self, changes: &[Arc<Change>]) -> Bytes {
        let mut frames: Vec<Bytes> = Vec::new();
        for change in changes {
            if change.revision <= self.after {
                continue;
            }
            if let Some(frame) = self.change_frame(change) {
                frames.push(frame);
            }
            self.after = change.revision;
            if self.finished {
                break;
            }
        }
        match frames.as_slice() {
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }

    fn change_frame(&mut self, change: &Change) -> Option<Bytes> {
        let chosen = |entry: &&Arc<Entry>| entry.key.starts_with(&self.prefix) && self.selection.matches(entry);
        let entry = change.entry.as_ref().filter(chosen);
        let previous = change.previous.as_ref().filter(chosen);
        let (event, entry) = match (entry, previous) {
            (Some(entry), None) => (EventType::Added, entry),
            (Some(entry), Some(_)) => (EventType::Modified, entry),
            (None, Some(previous)) => (EventType::Deleted, previous),
            (None, None) => return None,
        };
        let shared = self.encoder.representation.shape != Shape::Table;
        if !shared {
            let columns = self.take_columns();
            return Some(self.or_error(self.encoder.event(event, entry, change.revision, columns)));
        }
        let key = FrameKey { event: event as u8, representation: self.encoder.number() };
        let mut failed = None;
        let frame = change.frame(key, || match self.encoder.event(event, entry, change.revision, false) {
            Ok(frame) => frame,
            Err(error) => {
                failed = Some(error.clone());
                self.encoder.error_event(&error)
            }
        });
        self.finished |= failed.is_some();
        Some(frame)
    }

    /// An event, or the ERROR event that ends the watch.
    fn or_error(&self, result: Result<Bytes, ApiError>) -> Bytes {
        result.unwrap_or_else(|error| self.encoder.error_event(&error))
    }
}

//! containerLogs: the runtime's log file as plain text.
//!
//! In: a request with options. Out: the lines, filtered and cut; with `follow` until the container has ended.
//!
//! Invariants: following waits for inotify and for the pod's changes, never for a clock. A rotated file is read to its end before the
//! new one. At most a few chunks are in memory, however fast the log and slow the client.
//!
//! Reading order: this file, [`line`], [`reader`], [`watch`].

pub mod line;
pub mod reader;
pub mod watch;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Refusal, Target, query_flag, query_value};
use crate::access::{PodAccess, ResponseBody};
use reader::LogReader;
use watch::LogWatch;

/// Chunks between the file and the client.
const QUEUE: usize = 4;

/// What of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    /// Lines of the file from its end.
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    /// One of the two streams alone.
    pub stream: Option<LogStream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// Answers with the log; the body is produced as the client takes it.
pub async fn serve(
    request: &Request<Incoming>,
    target: &Target,
    access: Arc<dyn PodAccess>,
    now: Timestamp,
) -> Result<Response<ResponseBody>, Refusal> {
    let options = parse_options(request.uri().query(), now)?;
    let (namespace, pod, container) = (&target.namespace, &target.pod, &target.container);
    let found = if options.previous {
        access.previous_container(namespace, pod, container).await?
    } else {
        access.container(namespace, pod, container).await?
    };
    let reader = LogReader::open(&found.log_path, &options).map_err(Refusal::internal)?;
    let (sender, mut chunks) = mpsc::channel(QUEUE);
    let mut task =
        LogTask { path: found.log_path, id: found.container_id, reader, target: target.clone(), access, sender };
    let follow = options.follow && !options.previous;
    tokio::spawn(async move {
        if let Err(error) = task.run(follow).await {
            tracing::warn!(file = %task.path.display(), error = &error as &dyn std::error::Error, "cannot read a log");
            // The client has gone, or sees its connection break.
            let _gone = task.sender.send(Err(error)).await.is_err();
        }
    });
    let body = stream::poll_fn(move |context| chunks.poll_recv(context).map(|chunk| chunk.map(|c| c.map(Frame::data))));
    let mut response = Response::new(ResponseBody::new(StreamBody::new(body)));
    let plain = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    Ok(response)
}

fn parse_options(query: Option<&str>, now: Timestamp) -> Result<LogOptions, Refusal> {
    let number = |name: &str, min: u64| match query_value(query, name) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(value) if value >= min => Ok(Some(value)),
            _ => Err(Refusal::bad_request(format!("invalid {name} {text:?}"))),
        },
    };
    let since_time = match query_value(query, "sinceTime") {
        None => None,
        Some(text) => {
            let time = text.parse::<Timestamp>();
            Some(time.map_err(|error| Refusal::bad_request(format!("invalid sinceTime {text:?}: {error}")))?)
        }
    };
    let since_seconds = number("sinceSeconds", 1)?;
    if since_time.is_some() && since_seconds.is_some() {
        return Err(Refusal::bad_request("at most one of sinceTime or sinceSeconds may be specified"));
    }
    let ago = since_seconds.map(|seconds| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        Timestamp::from_second(now.as_second().saturating_sub(seconds)).unwrap_or(Timestamp::MIN)
    });
    let stream = match query_value(query, "stream").as_deref() {
        None | Some("All") => None,
        Some("Stdout") => Some(LogStream::Stdout),
        Some("Stderr") => Some(LogStream::Stderr),
        Some(other) => return Err(Refusal::bad_request(format!("invalid stream {other:?}"))),
    };
    Ok(LogOptions {
        stream,
        follow: query_flag(query, &["follow"]),
        previous: query_flag(query, &["previous"]),
        timestamps: query_flag(query, &["timestamps"]),
        tail_lines: number("tailLines", 0)?,
        since: since_time.or(ago),
        limit_bytes: number("limitBytes", 1)?,
    })
}

struct LogTask {
    path: std::path::PathBuf,
    /// The instance followed; a successor has another file.
    id: String,
    reader: LogReader,
    target: Target,
    access: Arc<dyn PodAccess>,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
}

impl LogTask {
    async fn run(&mut self, follow: bool) -> std::io::Result<()> {
        if !follow {
            self.drain().await?;
            return Ok(());
        }
        // Before the first read: what happens from now on is either read or seen.
        let mut watch = LogWatch::new(&self.path)?;
        let access = Arc::clone(&self.access);
        let target = self.target.clone();
        loop {
            let mut changed = pin!(access.changed(&target.namespace, &target.pod));
            // Registers the wait before the state is looked at, so that no change falls between.
            let early = std::future::poll_fn(|context| Poll::Ready(changed.as_mut().poll(context).is_ready())).await;
            let running = self.is_running().await;
            if !self.drain().await? || self.sender.is_closed() {
                return Ok(());
            }
            if self.reader.reopen_if_rotated(&self.path)? {
                continue;
            }
            if !running {
                return Ok(());
            }
            if early {
                continue;
            }
            tokio::select! {
                () = changed => {}
                seen = watch.changed() => seen?,
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    async fn is_running(&self) -> bool {
        let Target { namespace, pod, container, .. } = &self.target;
        let found = self.access.container(namespace, pod, container).await;
        found.is_ok_and(|found| found.running && found.container_id == self.id)
    }

    /// Sends what is in the file. False when no more is wanted.
    async fn drain(&mut self) -> std::io::Result<bool> {
        while let Some(chunk) = self.reader.next_chunk()? {
            if self.sender.send(Ok(chunk)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(!self.reader.is_done())
    }
}

/// Whether two paths or files are the same file.
pub(super) fn inode(path: &Path) -> std::io::Result<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;

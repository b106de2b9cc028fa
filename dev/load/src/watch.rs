//! Fan-out: writes under many watches of the same collection; from a write's begin to the event's arrival at the last watcher.
//!
//! All watches start at one resource version that is older than every write, so that none can miss one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::Run;
use crate::connection::{CallError, Lines};
use crate::drive::{Outcome, run_spread};
use crate::figures;
use crate::objects::{NAMESPACE, create_config_map};

/// How long deliveries may go on after the last write.
const DRAIN_SECONDS: u64 = 60;
/// What marks a write in its event's bytes.
const MARK: &[u8] = b"\"index\":\"";

pub struct FanOut {
    /// One latency a write, to its last delivery.
    pub writes: Outcome,
    /// Events over all watchers: `n= total= rate=`.
    pub deliveries: String,
}

/// What has arrived; times are nanoseconds since `began`.
struct Deliveries {
    began: Instant,
    watchers: u32,
    counts: Vec<AtomicU32>,
    complete_at: Vec<AtomicU64>,
    all: AtomicU64,
    /// Watches that ended before all writes had come.
    broken: AtomicU32,
}

impl Deliveries {
    fn new(writes: usize, watchers: u32) -> Self {
        Self {
            began: Instant::now(),
            watchers,
            counts: (0..writes).map(|_| AtomicU32::new(0)).collect(),
            complete_at: (0..writes).map(|_| AtomicU64::new(0)).collect(),
            all: AtomicU64::new(0),
            broken: AtomicU32::new(0),
        }
    }

    /// One watcher has got write `i`.
    fn add(&self, i: usize) {
        let Some(count) = self.counts.get(i) else { return };
        self.all.fetch_add(1, Ordering::Relaxed);
        if count.fetch_add(1, Ordering::AcqRel) + 1 == self.watchers {
            self.complete_at[i].store(self.began.elapsed().as_nanos() as u64, Ordering::Release);
        }
    }

    /// When the last watcher got write `i`.
    fn complete(&self, i: usize) -> Result<Duration, CallError> {
        match self.complete_at[i].load(Ordering::Acquire) {
            0 => Err(CallError::TooLong("the delivery to all watchers")),
            at => Ok(Duration::from_nanos(at)),
        }
    }
}

pub async fn fan_out(run: &Run, n: u32, clients: u32, watchers: u32, bytes: u32) -> Result<FanOut, CallError> {
    let streams = open_watches(run, watchers).await?;
    let deliveries = Arc::new(Deliveries::new(n as usize, watchers));
    let mut readers = JoinSet::new();
    for lines in streams {
        readers.spawn(read_all(lines, deliveries.clone(), n as usize));
    }
    let (at, clock, data) = (run.clone(), deliveries.clone(), "d".repeat(bytes as usize));
    let (sent, _) = run_spread(run.bounds(n, clients), move |i| {
        let (run, clock, data) = (at.clone(), clock.clone(), data.clone());
        async move {
            let sent = clock.began.elapsed();
            let data = json!({"index": i.to_string(), "k": data});
            (i, create_config_map(&run, i, json!({"watch": run.name}), data).await.map(|()| sent))
        }
    })
    .await;
    let unsent = n as usize - sent.len();
    let written = sent.iter().filter(|(_, result)| result.is_ok()).count();
    // Readers end by themselves only if every write was made.
    let drain = if written == n as usize { DRAIN_SECONDS } else { 5 };
    let drained = timeout(Duration::from_secs(drain), async { while readers.join_next().await.is_some() {} }).await;
    let total = deliveries.began.elapsed();
    let broken = deliveries.broken.load(Ordering::Relaxed);
    if broken > 0 {
        eprintln!("load: {broken} of {watchers} watches ended early");
    }
    if drained.is_err() {
        readers.abort_all();
    }
    let mut writes = Outcome { total, not_begun: unsent, ..Outcome::default() };
    for (i, result) in sent {
        writes.add(result.and_then(|sent| Ok(deliveries.complete(i)?.saturating_sub(sent))));
    }
    let all = deliveries.all.load(Ordering::Relaxed) as usize;
    let rate = figures::rate(all, total);
    let deliveries = format!("n={all} total={:.2}s rate={rate:.1}/s", total.as_secs_f64());
    Ok(FanOut { writes, deliveries })
}

/// All watches, open and not yet read.
async fn open_watches(run: &Run, watchers: u32) -> Result<Vec<Lines>, CallError> {
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let list = run.pool.call(0, Method::GET, &format!("{collection}?limit=1"), String::new()).await?;
    let list: Value = serde_json::from_slice(&list.expect(StatusCode::OK)?).unwrap_or_default();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let path = format!("{collection}?watch=1&labelSelector=watch%3D{}&resourceVersion={version}", run.name);
    let mut opening = JoinSet::new();
    for w in 0..watchers as usize {
        let (pool, path) = (run.pool.clone(), path.clone());
        opening.spawn(async move { pool.open_lines(w, &path).await });
    }
    opening.join_all().await.into_iter().collect()
}

/// Reads until every write has come, or the stream ends.
async fn read_all(mut lines: Lines, deliveries: Arc<Deliveries>, n: usize) {
    for _ in 0..n {
        match lines.next("all events").await {
            Ok(line) => {
                if let Some(i) = parse_index(&line) {
                    deliveries.add(i);
                }
            }
            Err(_) => {
                deliveries.broken.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// The number of the write in an event, found without parsing it: this program's own cost must stay small.
fn parse_index(line: &[u8]) -> Option<usize> {
    let at = line.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    let digits = line[at..].split(|b| *b == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_found_in_an_event() {
        assert_eq!(parse_index(br#"{"type":"ADDED","object":{"data":{"index":"17","k":"ddd"}}}"#), Some(17));
        assert_eq!(parse_index(br#"{"type":"BOOKMARK","object":{}}"#), None);
        assert_eq!(parse_index(br#"{"index":"x"}"#), None);
        assert_eq!(parse_index(br#"{"index":""#), None);
    }

    #[test]
    fn a_write_is_complete_when_the_last_watcher_has_it() {
        let deliveries = Deliveries::new(2, 2);
        deliveries.add(1);
        assert!(deliveries.complete(1).is_err());
        deliveries.add(1);
        assert!(deliveries.complete(1).is_ok());
        assert!(deliveries.complete(0).is_err());
        deliveries.add(7);
        assert_eq!(deliveries.all.load(Ordering::Relaxed), 2);
    }
}

//! `n` pieces of work over a number of clients, each of which begins the next when its last has ended; bounded by a deadline.
//!
//! After the deadline nothing begins; what has begun ends by its own bounds. The numbers 0..n are given out once each.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::connection::CallError;
use crate::figures::{Summary, derive_summary};

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub n: usize,
    pub clients: usize,
    pub deadline: Instant,
}

/// What became of all pieces: `latencies` of those that succeeded.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    pub latencies: Vec<Duration>,
    pub total: Duration,
    pub failed: u64,
    pub not_begun: usize,
    pub first_failure: Option<String>,
}

impl Outcome {
    pub fn summary(&self) -> Summary {
        derive_summary(&self.latencies, self.total, self.failed)
    }

    /// Counts one piece.
    pub fn add(&mut self, result: Result<Duration, CallError>) {
        match result {
            Ok(latency) => self.latencies.push(latency),
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Runs `work(0..n)`; each piece's latency is the time of its future.
pub async fn run_timed<F, W>(bounds: Bounds, work: F) -> Outcome
where
    F: Fn(usize) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), CallError>> + Send + 'static,
{
    let work = Arc::new(work);
    let timed = move |i| {
        let work = work.clone();
        async move {
            let began = Instant::now();
            work(i).await.map(|()| began.elapsed())
        }
    };
    let (results, total) = run_spread(bounds, timed).await;
    collect_outcome(bounds.n, results, total)
}

/// One result a piece; pieces that are missing were not begun.
pub fn collect_outcome(n: usize, results: Vec<Result<Duration, CallError>>, total: Duration) -> Outcome {
    let mut outcome = Outcome { total, not_begun: n - results.len().min(n), ..Outcome::default() };
    results.into_iter().for_each(|result| outcome.add(result));
    outcome
}

/// Runs `work(0..n)` and returns the results in no order, with the time from the first begin to the last end.
pub async fn run_spread<F, W, T>(bounds: Bounds, work: F) -> (Vec<T>, Duration)
where
    F: Fn(usize) -> W + Send + Sync + 'static,
    W: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let (work, next) = (Arc::new(work), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..bounds.clients.min(bounds.n) {
        let (work, next) = (work.clone(), next.clone());
        clients.spawn(async move {
            let mut mine = Vec::new();
            while Instant::now() < bounds.deadline {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= bounds.n {
                    break;
                }
                mine.push(work(i).await);
            }
            mine
        });
    }
    let results = clients.join_all().await.into_iter().flatten().collect();
    (results, began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn bounds(n: usize, clients: usize, seconds: u64) -> Bounds {
        Bounds { n, clients, deadline: Instant::now() + Duration::from_secs(seconds) }
    }

    #[tokio::test]
    async fn every_number_once_and_failures_counted() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let outcome = run_timed(bounds(100, 7, 60), {
            let seen = seen.clone();
            move |i| {
                seen.lock().unwrap().push(i);
                async move { if i % 10 == 3 { Err(CallError::LongLine) } else { Ok(()) } }
            }
        })
        .await;
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!((outcome.latencies.len(), outcome.failed, outcome.not_begun), (90, 10, 0));
        assert!(outcome.first_failure.unwrap().contains("line"));
    }

    #[tokio::test]
    async fn never_more_at_once_than_clients() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        run_timed(bounds(50, 4, 60), {
            let (now, most) = (now.clone(), most.clone());
            move |_| {
                let (now, most) = (now.clone(), most.clone());
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                }
            }
        })
        .await;
        assert_eq!(most.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn nothing_begins_after_the_deadline() {
        let outcome = run_timed(bounds(10, 2, 0), |_| async { Ok(()) }).await;
        assert_eq!((outcome.latencies.len(), outcome.not_begun), (0, 10));
    }
}

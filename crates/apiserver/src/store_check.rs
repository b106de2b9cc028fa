//! Whether the store answers, for the health paths: a linearizable read of one key, as upstream does it, and that it can still
//! write.
//!
//! Invariants: one read at a time, whatever many clients ask; an answer within [`ANSWER_WITHIN`] of the read's begin. Such a read
//! waits for a majority of the members, never for a disk.

use std::time::Duration;

use base::Clock;
use bytes::Bytes;
use store::{Kv, KvError, RangeRequest};
use tokio::sync::Mutex;

/// Upstream's limit for this check (`--etcd-healthcheck-timeout`).
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// So long an answer is given to others as well.
const SHARED_FOR: Duration = Duration::from_secs(1);
/// Never written.
const KEY: &[u8] = b"/registry/health";

/// The last answer.
#[derive(Debug, Default)]
pub struct StoreCheck(Mutex<Option<Answer>>);

#[derive(Debug, Clone, Copy)]
struct Answer {
    /// On the monotonic clock.
    at: Duration,
    ok: bool,
}

impl StoreCheck {
    /// Whether the store has answered just now.
    pub async fn answers(&self, kv: &dyn Kv, clock: &dyn Clock) -> bool {
        let request = RangeRequest { key: Bytes::from_static(KEY), limit: 1, ..RangeRequest::default() };
        self.shared(clock, async { kv.range(request).await.is_ok() && !has_stopped(kv).await }).await
    }

    /// Who comes while another reads waits for that answer, which is fresh then; its own `read` is not begun.
    async fn shared(&self, clock: &dyn Clock, read: impl Future<Output = bool>) -> bool {
        let mut last = self.0.lock().await;
        if let Some(answer) = *last
            && clock.monotonic().saturating_sub(answer.at) < SHARED_FOR
        {
            return answer.ok;
        }
        let ok = tokio::time::timeout(ANSWER_WITHIN, read).await.unwrap_or(false);
        *last = Some(Answer { at: clock.monotonic(), ok });
        ok
    }
}

/// A store that has lost its log goes on reading.
async fn has_stopped(kv: &dyn Kv) -> bool {
    match kv.status().await {
        Ok(status) => status.stopped.is_some(),
        Err(error) => matches!(error, KvError::Stopped { .. }),
    }
}

#[cfg(test)]
mod tests;

//! Housekeeping decisions: when to compact, and what to accept when space runs out. Pure; time comes in.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::error::KvError;
use crate::mvcc::State;
use crate::txn::Growth;

/// A full disk is tried again this often.
const RETRY: Duration = Duration::from_secs(1);
/// Near the quota, only so many revisions of history are kept.
const HISTORY_MIN: i64 = 100;

/// Decides on automatic compaction.
#[derive(Debug)]
pub(crate) struct Compactor {
    /// Newest revision when the current interval began.
    mark: i64,
    interval_end: Duration,
    /// Proposed already.
    proposed: i64,
}

impl Compactor {
    pub(crate) fn new(config: &Config, revision: i64, now: Duration) -> Self {
        Self { mark: revision, interval_end: now + config.compaction_interval, proposed: 0 }
    }

    /// The revision to compact to, if it is time.
    pub(crate) fn tick(&mut self, now: Duration, state: &State, config: &Config) -> Option<i64> {
        let mut wanted = 0;
        if !config.compaction_interval.is_zero() && now >= self.interval_end {
            wanted = self.mark;
            self.mark = state.revision;
            self.interval_end = now + config.compaction_interval;
        }
        wanted = wanted.max(state.revision - config.history_revisions_max);
        // History is what can be given up when memory is short.
        if state.total_bytes >= config.quota_bytes / 100 * 95 && state.total_bytes > state.live_bytes {
            wanted = wanted.max(state.revision - HISTORY_MIN);
        }
        if wanted <= state.compact_revision.max(self.proposed) {
            return None;
        }
        self.proposed = wanted;
        Some(wanted)
    }
}

/// Whether there is room for writes.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// The disk was full at the last attempt.
    full: Option<Arc<str>>,
    retry_at: Duration,
    /// The reserve of disk space is in our hands.
    held: bool,
}

impl Space {
    /// Nothing is short: every command may be proposed.
    pub(crate) fn is_ample(&self, state: &State, config: &Config) -> bool {
        self.full.is_none() && state.total_bytes < config.quota_bytes
    }

    /// Whether a command with this growth may be proposed.
    pub(crate) fn admit(&self, growth: Growth, state: &State, config: &Config) -> Result<(), KvError> {
        if self.full.is_some() && growth.puts {
            return Err(self.error());
        }
        // Replacing values needs room for history until the next compaction; the tenth above the quota is for that.
        let bound = if growth.live_bytes > 0 { config.quota_bytes } else { config.quota_bytes / 10 * 11 };
        if growth.puts && state.total_bytes >= bound {
            let (used, quota) = (state.total_bytes, config.quota_bytes);
            let detail =
                format!("the store holds {used} bytes and its quota is {quota}; delete objects or raise the quota");
            return Err(KvError::NoSpace { detail: detail.into() });
        }
        Ok(())
    }

    /// The log has found the disk full. Returns whether there may be a reserve to give back.
    pub(crate) fn disk_is_full(&mut self, detail: Arc<str>, now: Duration) -> bool {
        let is_news = self.full.replace(detail).is_none();
        let may_hold = std::mem::take(&mut self.held) || is_news;
        self.retry_at = now + RETRY;
        may_hold
    }

    /// The outcome of an attempt to take the reserve.
    pub(crate) fn reserved(&mut self, held: bool, now: Duration) {
        self.held = held;
        self.retry_at = now + RETRY;
        if held {
            if self.full.take().is_some() {
                tracing::info!("the disk has space again: all writes are accepted");
            }
        } else if self.full.is_none() {
            tracing::error!("the disk is full: only deletes and compaction are accepted");
            self.full = Some("the disk is full".into());
        }
    }

    /// Whether to try for the reserve now.
    pub(crate) fn wants_reserve(&mut self, now: Duration) -> bool {
        let due = !self.held && now >= self.retry_at;
        if due {
            self.retry_at = now + RETRY;
        }
        due
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        self.full.is_some()
    }

    /// What a refused write is told.
    pub(crate) fn error(&self) -> KvError {
        KvError::NoSpace { detail: self.full.clone().unwrap_or_else(|| "the disk is full".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_reaches_the_revision_of_one_interval_ago() {
        let config = Config { compaction_interval: Duration::from_secs(300), ..Config::default() };
        let mut state = State { revision: 10, ..State::new() };
        let mut compactor = Compactor::new(&config, 1, Duration::ZERO);
        let mut check = |seconds, revision, expect| {
            state.revision = revision;
            assert_eq!(compactor.tick(Duration::from_secs(seconds), &state, &config), expect);
        };
        check(299, 50, None);
        check(300, 60, Some(1));
        check(301, 70, None);
        check(600, 80, Some(60));
        check(900, 80, Some(80));
        check(1200, 80, None);
    }

    #[test]
    fn history_is_bounded_in_revisions_too() {
        let config = Config { history_revisions_max: 100, ..Config::default() };
        let mut compactor = Compactor::new(&config, 1, Duration::ZERO);
        let state = State { revision: 500, compact_revision: 7, ..State::new() };
        assert_eq!(compactor.tick(Duration::from_secs(1), &state, &config), Some(400));
        assert_eq!(compactor.tick(Duration::from_secs(2), &state, &config), None);
    }

    #[test]
    fn at_the_quota_growth_is_refused_first() {
        let config = Config { quota_bytes: 1000, ..Config::default() };
        let at = |total_bytes| State { total_bytes, ..State::new() };
        let check =
            |growth, total, expect| assert_eq!(Space::default().admit(growth, &at(total), &config).is_ok(), expect);
        let grow = Growth { puts: true, live_bytes: 5 };
        let replace = Growth { puts: true, live_bytes: 0 };
        let delete = Growth { puts: false, live_bytes: 0 };
        check(grow, 999, true);
        check(grow, 1000, false);
        check(replace, 1000, true);
        check(replace, 1100, false);
        check(delete, 5000, true);
    }
}

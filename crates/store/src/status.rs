//! Figures of a running store as plain values, for metrics, conditions and `holdfast doctor`.

use std::sync::Arc;
use std::time::Duration;

/// The store as it stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    pub cluster_id: u64,
    pub member_id: u64,
    /// Newest applied revision; exported as `etcd_debugging_mvcc_current_revision`.
    pub revision: i64,
    /// Exported as `etcd_debugging_mvcc_compact_revision`.
    pub compact_revision: i64,
    /// Raft's positions: last entry proposed, made durable here, committed, applied.
    pub term: u64,
    pub last_index: u64,
    pub persisted_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    /// Who leads, as far as this member knows; 0 = nobody. Exported as `etcd_server_has_leader`, `etcd_server_is_leader`.
    pub leader: u64,
    pub is_learner: bool,
    /// Leaders seen since the start; exported as `etcd_server_leader_changes_seen_total`.
    pub leader_changes: u64,
    pub last_leader_move: Option<LeaderMove>,
    /// The other members. Positions are known to the leader alone.
    pub peers: Vec<PeerStatus>,
    /// What a write to this member's log takes, or how long the one under way has taken.
    pub disk_latency: Duration,
    /// Keys that exist now; exported as `etcd_debugging_mvcc_keys_total`.
    pub keys: u64,
    /// Memory of keys, values and history; exported as `etcd_mvcc_db_total_size_in_bytes`.
    pub db_bytes: u64,
    /// Of that, the newest state alone; exported as `etcd_mvcc_db_total_size_in_use_in_bytes`.
    pub live_bytes: u64,
    /// Exported as `etcd_server_quota_backend_bytes`.
    pub quota_bytes: u64,
    pub leases: u64,
    /// Open watches; exported as `etcd_debugging_mvcc_watcher_total`.
    pub watchers: u64,
    /// Writes that are not answered yet; exported as `etcd_server_proposals_pending`.
    pub pending_proposals: u64,
    /// Exported as `etcd_disk_wal_fsync_duration_seconds`.
    pub wal_fsync_seconds: Histogram,
    /// Entries made durable by one fsync.
    pub wal_batch_entries: Histogram,
    /// Exported as `etcd_disk_backend_snapshot_duration_seconds`.
    pub checkpoint_seconds: Histogram,
    pub checkpoint_index: u64,
    pub checkpoint_bytes: u64,
    /// Log bytes since the last checkpoint.
    pub log_bytes: u64,
    /// The disk is full: only writes that do not grow are accepted.
    pub disk_full: bool,
    /// A WAL write has been under way for so long; zero if none is.
    pub wal_write_pending: Duration,
    /// Why the store does not write any more.
    pub stopped: Option<Arc<str>>,
}

/// When and why leadership moved last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderMove {
    /// By the monotonic clock.
    pub at: Duration,
    /// 0 = nobody that this member knew of.
    pub from: u64,
    pub to: u64,
    pub reason: Arc<str>,
}

/// Another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerStatus {
    pub id: u64,
    /// What it is known to have on disk; 0 unless this member leads.
    pub matched_index: u64,
    /// It has been heard of lately; false unless this member leads.
    pub is_active: bool,
    pub is_learner: bool,
    /// A snapshot is on its way to it.
    pub gets_snapshot: bool,
    /// As it reports it; `None` before the first report.
    pub disk_latency: Option<Duration>,
    pub disk_full: bool,
}

/// A cumulative histogram in Prometheus' sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bounds, ascending; one more bucket without a bound follows.
    pub bounds: &'static [f64],
    /// Observations per bucket (not cumulated); one longer than `bounds`.
    pub counts: Vec<u64>,
    pub sum: f64,
    pub count: u64,
}

/// etcd's buckets for `etcd_disk_wal_fsync_duration_seconds`: 1 ms doubling to 8.192 s.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];

const ENTRIES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

impl Histogram {
    /// For latencies in seconds.
    pub fn seconds() -> Self {
        Self::new(SECONDS)
    }

    /// For batch sizes.
    pub fn entries() -> Self {
        Self::new(ENTRIES)
    }

    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0, count: 0 }
    }

    /// The upper bound of the bucket that holds the given part (0 to 1) of all observations; of the last bucket, which has none,
    /// its lower one. 0 without observations.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = (self.count as f64 * part).ceil();
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen as f64 >= wanted
        });
        match bucket.filter(|_| self.count > 0) {
            Some(bucket) => self.bounds.get(bucket).or(self.bounds.last()).copied().unwrap_or(0.0),
            None => 0.0,
        }
    }

    pub fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
        self.count += 1;
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::seconds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_land_in_the_bucket_whose_bound_holds_them() {
        let mut h = Histogram::seconds();
        for value in [0.001, 0.0011, 0.8, 100.0] {
            h.observe(value);
        }
        assert_eq!((h.counts[0], h.counts[1], h.counts[10], h.counts[14], h.count), (1, 1, 1, 1, 4));
        assert_eq!([0.0, 0.5, 0.75, 0.76].map(|part| h.quantile(part)), [0.001, 0.002, 1.024, 8.192]);
        assert_eq!(Histogram::seconds().quantile(0.5), 0.0);
    }
}

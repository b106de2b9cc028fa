//! Settings of a store, already parsed; only the binary reads flags and files [I7].

use std::time::Duration;

use crate::peer::MemberInfo;

/// How a store behaves. `Config::default()` is what production uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Identity that the files must carry. `None`: that of the directory, or a new random one for an empty directory.
    pub cluster_id: Option<u64>,
    pub member_id: Option<u64>,
    /// The members of a new cluster, the same list on each of them, this one included. Empty: one member alone. Counts for
    /// an empty directory only; afterwards the cluster itself knows its members.
    pub initial_members: Vec<MemberInfo>,
    /// An empty directory waits for what the leader of an existing cluster sends, instead of founding a cluster. Needs both
    /// ids.
    pub joining: bool,
    /// Keys, values and history together may take so much memory (payload and bookkeeping).
    pub quota_bytes: u64,
    /// A transaction may be so large, keys, values and compares together.
    pub request_bytes_max: usize,
    /// Operations in one transaction, nested ones included.
    pub operations_max: usize,
    /// Writes of this member's clients that are not answered yet may be so large together, and as a quarter of the reserve;
    /// further writers wait.
    pub in_flight_bytes_max: usize,
    /// Every interval the history is compacted to the revision that was newest one interval ago, so history reaches back
    /// between one and two intervals. `Duration::ZERO` turns automatic compaction off.
    pub compaction_interval: Duration,
    /// History is compacted earlier if it holds more revisions than this.
    pub history_revisions_max: i64,
    /// A new log segment is begun when the last one reaches this size.
    pub segment_bytes: u64,
    /// A checkpoint is written once the log has grown by this much and by the size of the last checkpoint.
    pub checkpoint_log_bytes: u64,
    /// So many applied entries are kept in memory for members that were away for a moment; others are sent a snapshot.
    pub log_entries_kept: usize,
    /// So many entries may wait for this disk in memory, up to 128 MiB. From half of that on, what others have made durable is
    /// not written any more: the log begins anew, behind a checkpoint, when the disk is back.
    pub log_entries_waiting_max: u64,
    /// What a log goes on with after its disk was stuck is written in pieces of so many bytes: a disk that is nearly full may have
    /// room for one.
    pub piece_bytes: usize,
    /// Disk space held back, so that deletes can be logged when the disk is full.
    pub reserve_bytes: u64,
    /// How often the store looks at its clock (leases, compaction, space).
    pub tick_interval: Duration,
}

impl Config {
    /// Bytes of writes under way that are really allowed: what is under way when the disk turns out to be full must fit into
    /// the reserve, that of other members too.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        let reserve = usize::try_from(self.reserve_bytes / 4).unwrap_or(usize::MAX);
        if self.reserve_bytes == 0 { self.in_flight_bytes_max } else { self.in_flight_bytes_max.min(reserve) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_id: None,
            member_id: None,
            initial_members: Vec::new(),
            joining: false,
            quota_bytes: 8 << 30,
            // The API server accepts bodies of 3 MiB; the stored form may be a little larger.
            request_bytes_max: 4 << 20,
            operations_max: 1024,
            in_flight_bytes_max: 16 << 20,
            // The API server of Kubernetes compacts every 5 minutes; clients and the conformance suite count on it.
            compaction_interval: Duration::from_secs(300),
            history_revisions_max: 1_000_000,
            segment_bytes: 64 << 20,
            checkpoint_log_bytes: 32 << 20,
            log_entries_kept: 20_000,
            log_entries_waiting_max: 400_000,
            piece_bytes: 1 << 20,
            reserve_bytes: 64 << 20,
            tick_interval: Duration::from_millis(100),
        }
    }
}

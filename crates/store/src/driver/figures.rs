//! The driver's figures, as plain values.

use super::Driver;
use crate::peer_frame::Health;
use crate::status::{PeerStatus, Status};

impl Driver {
    pub(super) fn status(&self) -> Status {
        let state = self.machine.state();
        let positions = self.member.positions();
        let now = self.clock.monotonic();
        let pending = self.write_since.front().map_or_else(Default::default, |(_, since)| now.saturating_sub(*since));
        Status {
            cluster_id: self.identity.cluster,
            member_id: self.identity.member,
            revision: state.revision,
            compact_revision: state.compact_revision,
            term: positions.term,
            last_index: positions.last,
            persisted_index: positions.persisted,
            committed_index: positions.committed,
            applied_index: state.index,
            leader: self.leader.borrow().leader,
            is_learner: state.cluster.contains(self.identity.member)
                && !state.cluster.voters().contains(&self.identity.member),
            leader_changes: self.leader_changes,
            last_leader_move: self.last_move.clone(),
            peers: self.peers(),
            disk_latency: self.disk_latency(now),
            keys: state.live_keys,
            db_bytes: state.total_bytes,
            live_bytes: state.live_bytes,
            quota_bytes: self.config.quota_bytes,
            leases: state.leases.len() as u64,
            watchers: self.published.watchers.count(),
            pending_proposals: self.proposals.len() as u64,
            wal_fsync_seconds: self.fsync_seconds.clone(),
            wal_batch_entries: self.batch_entries.clone(),
            checkpoint_seconds: self.checkpoint.seconds.clone(),
            checkpoint_index: self.checkpoint.index,
            checkpoint_bytes: self.checkpoint.bytes,
            log_bytes: self.checkpoint.log_bytes,
            disk_full: self.space.is_disk_full(),
            wal_write_pending: pending,
            stopped: self.stopped_reason(),
        }
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let progress = self.member.progress();
        let others = self.machine.state().cluster.list().into_iter().filter(|info| info.id != self.identity.member);
        others
            .map(|info| {
                let seen = progress.iter().find(|peer| peer.id == info.id);
                let health = self.reports.get(&info.id).map(|r| Health { latency: r.latency, is_full: r.is_full });
                PeerStatus {
                    id: info.id,
                    matched_index: seen.map_or(0, |peer| peer.matched),
                    is_active: seen.is_some_and(|peer| peer.is_active),
                    is_learner: info.is_learner,
                    gets_snapshot: seen.is_some_and(|peer| peer.gets_snapshot),
                    disk_latency: health.map(|health| health.latency),
                    disk_full: health.is_some_and(|health| health.is_full),
                }
            })
            .collect()
    }
}

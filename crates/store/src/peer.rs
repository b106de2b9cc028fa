//! Members of a cluster, and the words between the store and the network that connects them.
//!
//! The store hands opaque frames to a [`Transport`] and is given those of other members by [`crate::Store::receive`]; who
//! connects to whom, by which protocol and with which certificates is the network's affair. Frames may be lost, repeated,
//! delayed and reordered: the store repeats what matters. A frame is at most [`FRAME_BYTES_MAX`] long.
//!
//! Invariant: nothing here blocks the store; [`OutgoingSnapshot::write_to`] blocks its caller alone.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::write_state_to;
use crate::error::KvError;
use crate::frame::Identity;
use crate::mvcc::State;

/// No frame that the store sends is longer, and none that is longer is accepted.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A member as the cluster knows it; replicated with the state, so every member has the same list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberInfo {
    pub id: u64,
    /// Human-readable; empty until the member has published itself.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until the member has published itself.
    pub client_urls: Vec<String>,
    /// Receives the log and does not vote.
    pub is_learner: bool,
}

/// How frames reach other members. Implemented by the network and by simulations.
pub trait Transport: Send + Sync {
    /// Hands one frame over; never blocks; may drop it (queue full, no connection): the store repeats what matters.
    fn send(&self, to: u64, frame: Bytes);

    /// The membership, at start and whenever it changes.
    fn members_changed(&self, members: &[MemberInfo]);

    /// Streams a snapshot on a way of its own, so that heartbeats are not behind it; returns at once and tells the outcome
    /// by [`crate::Store::snapshot_sent`], exactly once. The receiving end calls [`crate::Store::receive_snapshot`].
    fn send_snapshot(&self, to: u64, snapshot: OutgoingSnapshot);
}

/// The network of a member that is alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&self, _to: u64, _frame: Bytes) {}

    fn members_changed(&self, _members: &[MemberInfo]) {}

    fn send_snapshot(&self, _to: u64, _snapshot: OutgoingSnapshot) {}
}

/// The whole state on its way to a member that has fallen too far behind for the log.
#[derive(Debug, Clone)]
pub struct OutgoingSnapshot {
    /// What the receiver must be given before the body; a few hundred bytes.
    pub header: Bytes,
    pub(crate) identity: Identity,
    /// Shares everything with the running state: holding it costs little.
    pub(crate) state: Arc<State>,
}

impl OutgoingSnapshot {
    /// Writes the body, in pieces of some 256 KiB; may be called again after a failure. Blocks on `out` alone.
    pub fn write_to(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_state_to(out, self.identity, &self.state).map(|_| ())
    }
}

/// Who leads, as far as this member knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaderView {
    /// Member id; 0 = nobody.
    pub leader: u64,
    pub term: u64,
}

/// A change of the membership. At most one that changes who votes or learns is under way at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member that receives the log and does not vote until it is promoted.
    AddLearner { id: u64, peer_urls: Vec<String> },
    /// A new member that votes at once.
    AddVoter { id: u64, peer_urls: Vec<String> },
    /// A learner that has caught up becomes a voter.
    Promote { id: u64 },
    /// Its id is never accepted again. A leader hands over first.
    Remove { id: u64 },
    /// The member has moved.
    Update { id: u64, peer_urls: Vec<String> },
    /// A member tells its name and where clients reach it.
    Publish { id: u64, name: String, client_urls: Vec<String> },
}

/// Why a change of the membership was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberChangeError {
    #[error("member {id:016x} is not in the cluster")]
    NotFound { id: u64 },
    /// The id is in use, or was used by a member that has been removed.
    #[error("member id {id:016x} is in use or was used before; give the new member another id")]
    IdUsed { id: u64 },
    #[error("peer URL {url} belongs to another member")]
    PeerUrlUsed { url: String },
    #[error("member {id:016x} is not a learner")]
    NotLearner { id: u64 },
    /// etcd's rule: a learner may be promoted once it has nine tenths of the leader's log.
    #[error("learner {id:016x} is not in sync with the leader yet; try again later")]
    LearnerNotReady { id: u64 },
    #[error("too many learner members in the cluster (at most {learners_max})")]
    TooManyLearners { learners_max: usize },
    /// Without this member the others that are reachable would be no majority.
    #[error("not enough started members: the change would leave the cluster without a majority")]
    NotEnoughStarted,
    /// The cluster could not be asked; the change may or may not have been made.
    #[error(transparent)]
    Kv(#[from] KvError),
}

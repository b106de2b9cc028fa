//! The store's side towards other members: frames and snapshots in, the membership and its changes, who leads.
//!
//! Nothing here blocks, [`Store::receive_snapshot`] excepted, which waits for the disk on its caller's thread.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::error::KvError;
use crate::peer::{LeaderView, MemberChange, MemberChangeError, MemberInfo};
use crate::store::Store;

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Of another cluster, for another member, or not from a member.
    #[error("the snapshot is refused: {reason}")]
    Refused { reason: Arc<str> },
    #[error("cannot receive the snapshot")]
    Io(#[source] io::Error),
}

impl Store {
    /// Takes a frame of another member. Never blocks; drops the frame when too many wait.
    pub fn receive(&self, _from: u64, _frame: Bytes) {}

    /// Takes a snapshot: the header that the sender's [`crate::OutgoingSnapshot`] carried and the body. Blocks on `body` and
    /// the disk. `Ok` means that it is durable here as a file; it counts once the driver has taken it.
    pub fn receive_snapshot(&self, _from: u64, _header: Bytes, _body: &mut dyn io::Read) -> Result<(), ReceiveError> {
        Err(ReceiveError::Refused { reason: "this member is alone".into() })
    }

    /// The transport tells what has become of a snapshot.
    pub fn snapshot_sent(&self, _to: u64, _ok: bool) {}

    /// The transport can't reach a member at the moment.
    pub fn peer_unreachable(&self, _id: u64) {}

    /// The membership as of what this member has applied.
    pub fn members(&self) -> Vec<MemberInfo> {
        vec![MemberInfo { id: self.identity().member, ..MemberInfo::default() }]
    }

    /// Who leads, now and whenever it changes.
    pub fn subscribe_leader(&self) -> watch::Receiver<LeaderView> {
        watch::Sender::new(LeaderView { leader: self.identity().member, term: 0 }).subscribe()
    }

    /// Changes the membership; resolves with the new one when the change has been applied here.
    pub async fn change_members(&self, _change: MemberChange) -> Result<Vec<MemberInfo>, MemberChangeError> {
        Err(MemberChangeError::Kv(KvError::Unavailable { reason: "this member is alone".into() }))
    }

    /// Makes another voter the leader; resolves when it leads.
    pub async fn transfer_leadership(&self, _to: u64) -> Result<(), KvError> {
        Err(KvError::Unavailable { reason: "this member is alone".into() })
    }
}

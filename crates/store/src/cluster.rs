//! The store's side towards other members: frames and snapshots in, the membership and its changes, who leads.
//!
//! Nothing here blocks, [`Store::receive_snapshot`] excepted, which waits for the disk on its caller's thread.
//! Bounded: frames of so many bytes wait for the driver ([`WAITING_BYTES_MAX`]); more are dropped, as a network would.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::MessageType;
use tokio::sync::watch;

use crate::checkpoint::{incoming_name, remove_if_there, store_checkpoint};
use crate::command::Command;
use crate::disk::Disk;
use crate::driver::{Incoming, Message};
use crate::error::{KvError, OpenError};
use crate::frame::Identity;
use crate::machine::Outcome;
use crate::peer::{FRAME_BYTES_MAX, LeaderView, MemberChange, MemberChangeError, MemberInfo};
use crate::peer_frame::{Frame, Route, decode_frame};
use crate::store::Store;

/// Frames that wait for the driver.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// A new leader must be there after this.
const TRANSFER_MAX: Duration = Duration::from_secs(5);

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Of another cluster, for another member, or no snapshot at all.
    #[error("the snapshot is refused: {reason}")]
    Refused { reason: Arc<str> },
    /// Its body is damaged, or this member's disk does not take it.
    #[error("cannot store the snapshot")]
    Store(#[source] OpenError),
}

/// What the front keeps for other members.
pub(crate) struct Peers {
    disk: Arc<dyn Disk>,
    waiting_bytes: Arc<AtomicUsize>,
    snapshots: AtomicU64,
}

/// Counts a frame until the driver has taken it.
pub(crate) struct Weight {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Peers {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, waiting_bytes: Arc::default(), snapshots: AtomicU64::new(0) }
    }

    /// `None`: too much waits already.
    fn weigh(&self, bytes: usize) -> Option<Weight> {
        let weight = Weight { bytes, of: Arc::clone(&self.waiting_bytes) };
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        (before + bytes <= WAITING_BYTES_MAX).then_some(weight)
    }
}

/// The frame that these bytes are, if member `from` means it for `me`.
pub(crate) fn frame_for(me: Identity, from: u64, frame: &[u8]) -> Option<Frame> {
    let (route, frame) = decode_frame(frame).ok()?;
    (route == Route { cluster: me.cluster, from, to: me.member }).then_some(frame)
}

/// Stores a snapshot that comes from `from` under a name of its own (`number`) and reads it back.
pub(crate) fn receive(
    disk: &dyn Disk,
    (me, from): (Identity, u64),
    number: u64,
    header: &[u8],
    body: &mut dyn io::Read,
) -> Result<Incoming, ReceiveError> {
    let refused = |reason: &str| ReceiveError::Refused { reason: reason.into() };
    let message = match frame_for(me, from, header) {
        Some(Frame::Raft(message)) if message.get_msg_type() == MessageType::MsgSnapshot => message,
        Some(_) => return Err(refused("its header says something else")),
        None => return Err(refused("it is not for this member of this cluster")),
    };
    let file = incoming_name(number);
    let loaded = store_checkpoint(disk, &file, body).map_err(ReceiveError::Store)?;
    let head = message.get_snapshot().get_metadata();
    let fits = (loaded.state.index, loaded.state.term) == (head.index, head.term);
    if loaded.header.identity != me || !fits {
        remove_if_there(disk, &file);
        return Err(refused("its body is not what its header says"));
    }
    Ok(Incoming { message, state: loaded.state, file })
}

impl Store {
    /// Takes a frame that member `from` has sent. Never blocks; drops the frame when too many wait, and frames that are not
    /// for this member of this cluster.
    pub fn receive(&self, from: u64, frame: Bytes) {
        if frame.len() > FRAME_BYTES_MAX {
            return;
        }
        let Some(weight) = self.peers.weigh(frame.len()) else { return };
        if let Some(frame) = frame_for(self.identity, from, &frame) {
            // A store that has ended needs no frames.
            self.inbox.send(Message::Frame { from, frame, weight: Some(weight) }).ok();
        }
    }

    /// Takes a snapshot: the header that the sender's [`crate::OutgoingSnapshot`] carried and the body. Blocks on `body` and
    /// the disk. `Ok` means that it is durable here as a file; it counts once the driver has taken it.
    pub fn receive_snapshot(&self, from: u64, header: Bytes, body: &mut dyn io::Read) -> Result<(), ReceiveError> {
        let number = self.peers.snapshots.fetch_add(1, Ordering::Relaxed);
        let incoming = receive(self.peers.disk.as_ref(), (self.identity, from), number, &header, body)?;
        // A store that has ended takes nothing any more; the next start removes the file.
        self.inbox.send(Message::Snapshot(incoming)).ok();
        Ok(())
    }

    /// The transport tells what has become of a snapshot.
    pub fn snapshot_sent(&self, to: u64, ok: bool) {
        self.inbox.send(Message::SnapshotSent { to, ok }).ok();
    }

    /// The transport can't reach a member at the moment.
    pub fn peer_unreachable(&self, id: u64) {
        self.inbox.send(Message::Unreachable { id }).ok();
    }

    /// The transport supposes that the process of a member has ended: its connection broke and its address takes no other. If that
    /// one led, the others elect a new leader without waiting for its silence, provided that a majority supposes so.
    pub fn peer_ended(&self, id: u64) {
        self.inbox.send(Message::Ended { id }).ok();
    }

    /// The membership as of what this member has applied; empty while it waits to join.
    pub fn members(&self) -> Vec<MemberInfo> {
        self.published.state.load().cluster.list()
    }

    /// The cluster has removed this member for good.
    pub fn is_removed(&self) -> bool {
        self.published.is_removed.load(Ordering::Acquire)
    }

    /// Who leads, now and whenever it changes.
    pub fn subscribe_leader(&self) -> watch::Receiver<LeaderView> {
        self.leader.clone()
    }

    /// Changes the membership; resolves with the new one when the change has been applied here. Changes are made one after the
    /// other: this one waits for an earlier one, within the bound of every write.
    pub async fn change_members(&self, change: MemberChange) -> Result<Vec<MemberInfo>, MemberChangeError> {
        match self.propose(Command::Member(change)).await? {
            Outcome::Members(result) => result,
            _ => Err(KvError::Stopped { reason: "internal error: an answer of the wrong kind".into() }.into()),
        }
    }

    /// Makes another voter the leader; resolves when it leads. After five seconds without success the old leader goes on,
    /// or some other one does.
    pub async fn transfer_leadership(&self, to: u64) -> Result<(), KvError> {
        self.ask(|reply| Message::Transfer { to, reply }).await?;
        let mut leader = self.leader.clone();
        let arrived = leader.wait_for(|view| view.leader == to);
        match tokio::time::timeout(TRANSFER_MAX, arrived).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(KvError::Stopped { reason: "the store is closed".into() }),
            Err(_) => Err(KvError::Unavailable { reason: format!("member {to:016x} has not become leader").into() }),
        }
    }
}

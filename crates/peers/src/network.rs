//! The front: what the store sends through, and what hands it what others send.
//!
//! [`Network::new`] before the store is opened, [`Network::start`] once it is and its ids are known. Frames sent in between are
//! dropped; the membership is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use base::{OsRng, Rng as _};
use bytes::Bytes;
use store::Store;
use store::peer::{MemberInfo, OutgoingSnapshot, Transport};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::hello::{Hello, Purpose, VERSION, Verdict};
use crate::inbound::{Inbound, OwnIds, decide_verdict};
use crate::inquiry::FigureSource;
use crate::lane::run_lane;
use crate::queue::{Bounds, Drops, Queue};
use crate::transfer::WriteBody;
use crate::{FRAME_BYTES_MAX, PeerError, PeerTls, accept, transfer};

/// Frames up to this are small.
const SMALL_BYTES: usize = 16 << 10;
/// While the bulk lane is busy, only frames up to this overtake it: heartbeats, votes and answers, but hardly ever entries,
/// which would arrive before those that they follow.
const TINY_BYTES: usize = 256;
const URGENT: Bounds = Bounds { frames: 4096, bytes: 8 << 20, drops: Drops::Oldest };
const BULK: Bounds = Bounds { frames: 1024, bytes: 64 << 20, drops: Drops::Newest };

/// Where what others send goes: the store.
pub trait Inbox: Send + Sync {
    /// Never blocks.
    fn receive(&self, from: u64, frame: Bytes);
    /// Blocks until the snapshot is taken or refused.
    fn receive_snapshot(
        &self,
        from: u64,
        header: Bytes,
        body: &mut dyn Read,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
    fn snapshot_sent(&self, to: u64, ok: bool);
    fn peer_unreachable(&self, id: u64);
    /// A connection to the peer has broken and its address takes no other: its process has ended, as far as that tells.
    fn peer_ended(&self, id: u64);
}

impl Inbox for Store {
    fn receive(&self, from: u64, frame: Bytes) {
        Store::receive(self, from, frame);
    }

    fn receive_snapshot(
        &self,
        from: u64,
        header: Bytes,
        body: &mut dyn Read,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(Store::receive_snapshot(self, from, header, body)?)
    }

    fn snapshot_sent(&self, to: u64, ok: bool) {
        Store::snapshot_sent(self, to, ok);
    }

    fn peer_unreachable(&self, id: u64) {
        Store::peer_unreachable(self, id);
    }

    fn peer_ended(&self, id: u64) {
        Store::peer_ended(self, id);
    }
}

/// The network of one member. Runs on the runtime that it is given; [`Network::stop`] or dropping it ends it.
pub struct Network {
    shared: Arc<Shared>,
}

/// How the connection to one other member stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFigures {
    pub id: u64,
    /// The lane of heartbeats is open.
    pub connected: bool,
    pub round_trip: Option<Duration>,
    /// Frames that had no room or were out of date.
    pub dropped: u64,
    /// Why there is no connection, as last heard.
    pub problem: Option<String>,
}

impl Network {
    /// `tls`: for peer URLs with `https`.
    pub fn new(runtime: Handle, tls: Option<PeerTls>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                runtime,
                tls: ArcSwapOption::from_pointee(tls),
                instance: OsRng.next_u64(),
                started: OnceLock::new(),
                figures: OnceLock::new(),
                membership: Mutex::default(),
                peers: ArcSwap::default(),
                inbound: Arc::default(),
                expelled: watch::Sender::new(None),
                told: watch::Sender::default(),
                stop: CancellationToken::new(),
            }),
        })
    }

    /// Begins to talk, as `member` of `cluster`, and hands to `inbox` what comes. A second call has no effect.
    pub fn start(&self, cluster: u64, member: u64, inbox: Weak<dyn Inbox>) {
        if self.shared.started.set(Started { cluster, member, inbox }).is_ok() {
            self.shared.apply_membership();
        }
    }

    /// Answers administrators' questions about this member with what `source` says. A second call has no effect.
    pub fn tell_figures(&self, source: Weak<dyn FigureSource>) {
        let _set_already = self.shared.figures.set(source);
    }

    /// Members of the cluster that this one is about to join: they are talked to until the store knows its membership.
    pub fn introduce(&self, members: &[MemberInfo]) {
        self.shared.membership().introduced = members.to_vec();
        self.shared.apply_membership();
    }

    /// Accepts other members on `listener`; `secure`: with TLS.
    pub fn serve(&self, listener: TcpListener, secure: bool) {
        self.shared.runtime.spawn(accept::serve(Arc::clone(&self.shared), listener, secure));
    }

    /// The connections to the other members.
    pub fn figures(&self) -> Vec<PeerFigures> {
        self.shared.peers.load().values().map(|peer| peer.figures()).collect()
    }

    /// Resolves, with the reason, when others say that this member has been removed from the cluster: it should end.
    pub async fn expelled(&self) -> String {
        let mut expelled = self.shared.expelled.subscribe();
        match expelled.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Resolves when `id`, which has been removed from the cluster, has asked for a connection and been told so.
    pub async fn told_of_removal(&self, id: u64) {
        let mut told = self.shared.told.subscribe();
        if told.wait_for(|told| told.contains(&id)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// [`Transport::send_snapshot`] for any body.
    pub(crate) fn send_body(&self, to: u64, header: Bytes, write_body: WriteBody) {
        let shared = Arc::clone(&self.shared);
        self.shared.runtime.spawn(async move { shared.send_snapshot(to, header, write_body).await });
    }

    /// New connections use other certificates; open ones go on.
    pub fn replace_tls(&self, tls: PeerTls) {
        self.shared.tls.store(Some(Arc::new(tls)));
    }

    /// Ends all connections and takes no new ones.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Transport for Network {
    fn send(&self, to: u64, frame: Bytes) {
        let peers = self.shared.peers.load();
        let Some(peer) = peers.get(&to) else { return };
        if frame.len() > FRAME_BYTES_MAX || frame.is_empty() {
            tracing::error!(bytes = frame.len(), "a frame that can't be sent is dropped");
            return;
        }
        if !peer.queue(derive_lane(frame.len(), peer.bulk.is_busy())).push(frame) {
            tracing::debug!(member = %format_args!("{to:x}"), "a frame was dropped: too many wait");
        }
    }

    fn members_changed(&self, members: &[MemberInfo]) {
        self.shared.members_changed(members);
    }

    fn send_snapshot(&self, to: u64, snapshot: OutgoingSnapshot) {
        let header = snapshot.header.clone();
        self.send_body(to, header, Box::new(move |out| snapshot.write_to(out)));
    }
}

/// By which lane a frame goes. Pure.
fn derive_lane(bytes: usize, bulk_is_busy: bool) -> Purpose {
    let small = if bulk_is_busy { TINY_BYTES } else { SMALL_BYTES };
    if bytes <= small { Purpose::Urgent } else { Purpose::Bulk }
}

/// What all tasks share.
pub(crate) struct Shared {
    runtime: Handle,
    tls: ArcSwapOption<PeerTls>,
    instance: u64,
    started: OnceLock<Started>,
    figures: OnceLock<Weak<dyn FigureSource>>,
    membership: Mutex<Membership>,
    peers: ArcSwap<BTreeMap<u64, Arc<Peer>>>,
    pub(crate) inbound: Arc<Inbound>,
    expelled: watch::Sender<Option<String>>,
    /// Removed members that know it.
    told: watch::Sender<BTreeSet<u64>>,
    pub(crate) stop: CancellationToken,
}

/// Known once the store is open.
#[derive(Clone)]
pub(crate) struct Started {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    inbox: Weak<dyn Inbox>,
}

impl Started {
    /// `None` once the store is gone.
    pub(crate) fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.inbox.upgrade()
    }
}

#[derive(Default)]
struct Membership {
    members: Vec<MemberInfo>,
    /// Known before the store knows any other member.
    introduced: Vec<MemberInfo>,
    /// Ids that were members; ids are never used again.
    removed: BTreeSet<u64>,
}

impl Shared {
    fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tls(&self) -> Option<PeerTls> {
        self.tls.load().as_deref().cloned()
    }

    /// `None`: this member tells nothing of itself, or no longer.
    pub(crate) fn figure_source(&self) -> Option<Arc<dyn FigureSource>> {
        self.figures.get()?.upgrade()
    }

    pub(crate) fn started(&self) -> Option<Started> {
        self.started.get().cloned()
    }

    pub(crate) fn members(&self) -> Vec<MemberInfo> {
        self.membership().members.clone()
    }

    /// What this member says to `to`; `None` before the start.
    pub(crate) fn hello(&self, purpose: Purpose, to: u64) -> Option<Hello> {
        let started = self.started.get()?;
        let (cluster, from, instance) = (started.cluster, started.member, self.instance);
        Some(Hello { version: VERSION, purpose, cluster, from, to, instance })
    }

    pub(crate) fn judge(&self, hello: &Hello, started: &Started) -> Verdict {
        let own = OwnIds { cluster: started.cluster, member: started.member, instance: self.instance };
        decide_verdict(hello, &own, &self.membership().removed)
    }

    pub(crate) fn note_told(&self, removed: u64) {
        self.told.send_modify(|told| {
            told.insert(removed);
        });
    }

    /// A connection failed: tells the log, once a reason, and the store.
    pub(crate) fn note_failure(&self, peer: &Peer, purpose: Purpose, error: &PeerError, told: &mut String) {
        let text = error.with_cause();
        if *told != text && purpose == Purpose::Urgent {
            tracing::warn!(member = %format_args!("{:x}", peer.id), "no connection: {text}");
        }
        peer.lock().problem = Some(text.clone());
        *told = text;
        if let PeerError::Refused { removed: true, reason, .. } = error {
            self.expelled.send_replace(Some(reason.clone()));
        }
        if let Some(inbox) = self.started.get().and_then(Started::inbox) {
            inbox.peer_unreachable(peer.id);
        }
    }

    /// The address of a peer that was connected takes no connection any more.
    pub(crate) fn note_end(&self, peer: &Peer) {
        if let Some(inbox) = self.started.get().and_then(Started::inbox) {
            inbox.peer_ended(peer.id);
        }
    }

    fn members_changed(self: &Arc<Self>, members: &[MemberInfo]) {
        let mut membership = self.membership();
        let now: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
        let gone: Vec<u64> = membership.members.iter().map(|member| member.id).filter(|id| !now.contains(id)).collect();
        gone.iter().for_each(|id| self.inbound.expel(*id));
        membership.removed.extend(gone);
        membership.removed.retain(|id| !now.contains(id));
        membership.members = members.to_vec();
        drop(membership);
        self.apply_membership();
    }

    /// Makes the lanes fit the members.
    fn apply_membership(self: &Arc<Self>) {
        let Some(own) = self.started.get().map(|started| started.member) else { return };
        let membership = self.membership();
        let mut peers = BTreeMap::clone(&self.peers.load());
        let knows_others = membership.members.iter().any(|member| member.id != own);
        let members = if knows_others { &membership.members } else { &membership.introduced };
        peers.retain(|id, peer| {
            let stays = members.iter().any(|member| member.id == *id);
            if !stays {
                peer.close();
            }
            stays
        });
        for member in members.iter().filter(|member| member.id != own) {
            match peers.get(&member.id) {
                Some(peer) => peer.set_urls(&member.peer_urls),
                None => {
                    let peer = Arc::new(Peer::new(member));
                    for purpose in [Purpose::Urgent, Purpose::Bulk] {
                        self.spawn_lane(&peer, purpose);
                    }
                    peers.insert(member.id, peer);
                }
            }
        }
        // Under the lock, so that two changes can't pass each other.
        self.peers.store(Arc::new(peers));
    }

    fn spawn_lane(self: &Arc<Self>, peer: &Arc<Peer>, purpose: Purpose) {
        let (shared, peer, stop) = (Arc::clone(self), Arc::clone(peer), self.stop.clone());
        self.runtime.spawn(async move {
            tokio::select! {
                () = run_lane(shared, peer, purpose) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// One at a time to a peer: a second one fails at once.
    async fn send_snapshot(self: Arc<Self>, to: u64, header: Bytes, write_body: WriteBody) {
        let peer = self.peers.load().get(&to).cloned();
        let sent = match &peer {
            Some(peer) if !peer.snapshot_under_way.swap(true, Ordering::AcqRel) => {
                tracing::info!(member = %format_args!("{to:x}"), "sending a snapshot");
                let sent = transfer::send(&self, peer, header, write_body).await;
                peer.snapshot_under_way.store(false, Ordering::Release);
                if let Err(error) = &sent {
                    tracing::warn!(member = %format_args!("{to:x}"), "a snapshot was not sent: {}", error.with_cause());
                }
                sent.is_ok()
            }
            _ => false,
        };
        if let Some(inbox) = self.started.get().and_then(Started::inbox) {
            inbox.snapshot_sent(to, sent);
        }
    }
}

/// One other member.
pub(crate) struct Peer {
    pub(crate) id: u64,
    urgent: Queue,
    bulk: Queue,
    state: Mutex<PeerState>,
    urls_changed: Notify,
    snapshot_under_way: AtomicBool,
}

#[derive(Default)]
struct PeerState {
    urls: Vec<String>,
    connected: bool,
    round_trip: Option<Duration>,
    problem: Option<String>,
}

impl Peer {
    fn new(member: &MemberInfo) -> Self {
        Self {
            id: member.id,
            urgent: Queue::new(URGENT),
            bulk: Queue::new(BULK),
            state: Mutex::new(PeerState { urls: member.peer_urls.clone(), ..PeerState::default() }),
            urls_changed: Notify::new(),
            snapshot_under_way: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queue(&self, purpose: Purpose) -> &Queue {
        if purpose == Purpose::Bulk { &self.bulk } else { &self.urgent }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.lock().urls.clone()
    }

    fn set_urls(&self, urls: &[String]) {
        let mut state = self.lock();
        if state.urls != urls {
            state.urls = urls.to_vec();
            drop(state);
            self.urls_changed.notify_waiters();
        }
    }

    /// The member has other URLs now, or is none any more.
    pub(crate) async fn changed(&self) {
        tokio::select! {
            () = self.urls_changed.notified() => {}
            () = self.urgent.closed() => {}
        }
    }

    fn close(&self) {
        self.urgent.close();
        self.bulk.close();
    }

    pub(crate) fn set_connected(&self, purpose: Purpose, connected: bool) {
        if purpose == Purpose::Urgent {
            let mut state = self.lock();
            state.connected = connected;
            if connected {
                state.problem = None;
            }
        }
    }

    pub(crate) fn set_round_trip(&self, took: Duration) {
        self.lock().round_trip = Some(took);
    }

    fn figures(&self) -> PeerFigures {
        let state = self.lock();
        PeerFigures {
            id: self.id,
            connected: state.connected,
            round_trip: state.round_trip,
            dropped: self.urgent.dropped() + self.bulk.dropped(),
            problem: state.problem.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_small_waits_behind_anything_large() {
        let check = |bytes, busy, expect| assert_eq!(derive_lane(bytes, busy), expect, "{bytes} {busy}");
        check(100, false, Purpose::Urgent);
        check(100, true, Purpose::Urgent);
        check(4000, false, Purpose::Urgent);
        check(4000, true, Purpose::Bulk);
        check(1 << 20, false, Purpose::Bulk);
    }
}

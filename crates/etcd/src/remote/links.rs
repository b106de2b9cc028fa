//! The connection to an outside etcd: to its leader, or to whichever server answers when that is not among those given.
//!
//! Invariants: a link leads to a server whose cluster, the one of the start, has just agreed on a read, so that a write is not
//! handed to a server that still hopes for a leader that has died; whoever asks while a connection is being made shares its
//! outcome, so that dead servers cost everyone one round of attempts and not a round each; a link that somebody gave up is
//! not handed out again.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::dial::dial;
use super::failure::{describe, with_remedy};
use super::{Address, REQUEST_WITHIN, range_once, silent};
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::proto::etcdserverpb::{self as pb, RangeRequest};
use crate::refusals::LEADER_CHANGED;

pub(super) struct Links {
    servers: Vec<Address>,
    tls: Option<TlsConnector>,
    /// A read that the cluster must agree on.
    probe: RangeRequest,
    cluster_id: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    number: u64,
    /// When all servers were last found dead, and how.
    dead: Option<(Instant, Arc<str>)>,
}

/// A connection to one server.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) channel: Channel,
    pub(super) server: Arc<str>,
    /// Raft's, when the server was chosen: in a later one somebody else may lead.
    pub(super) term: u64,
    number: u64,
}

/// A server that answers, and whose cluster does.
pub(super) struct Living {
    pub(super) cluster_id: u64,
    channel: Channel,
    term: u64,
    leads: bool,
}

/// Asks a server for something that its cluster must agree on; waits for an election that is under way.
pub(super) async fn ask_server(
    server: &Address,
    tls: Option<&TlsConnector>,
    probe: &RangeRequest,
) -> Result<Living, String> {
    let channel = dial(server, tls).await.map_err(|error| with_remedy(&error.to_string()))?;
    let answer = timeout(REQUEST_WITHIN, ask_agreement(&channel, probe)).await.map_err(|_| silent())?;
    let status = answer.map_err(|status| with_remedy(&describe(&status)))?;
    let header = status.header.ok_or_else(|| with_remedy("it does not speak HTTP/2 as etcd does"))?;
    let leads = header.member_id == status.leader;
    Ok(Living { cluster_id: header.cluster_id, channel, term: header.raft_term, leads })
}

async fn ask_agreement(channel: &Channel, probe: &RangeRequest) -> Result<pb::StatusResponse, Status> {
    // Without a word about leaders: etcd then answers once there is one.
    while let Err(status) = range_once(channel.clone(), Request::new(probe.clone())).await {
        if status.message() != LEADER_CHANGED.1 {
            return Err(status);
        }
    }
    let status = MaintenanceClient::new(channel.clone()).status(pb::StatusRequest {}).await?;
    Ok(status.into_inner())
}

impl Links {
    pub(super) fn new(servers: Vec<Address>, tls: Option<TlsConnector>, probe: RangeRequest, cluster_id: u64) -> Self {
        Self { servers, tls, probe, cluster_id, state: Mutex::default() }
    }

    /// How often a request may be tried: once a server, but twice at least, because a connection may just have ended.
    pub(super) fn attempts(&self) -> usize {
        self.servers.len().max(2)
    }

    /// The connection in use, or a new one. The error says of each server why it can't be used.
    pub(super) async fn link(&self) -> Result<Link, Arc<str>> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(link) = &state.link {
            return Ok(link.clone());
        }
        if let Some((at, reasons)) = &state.dead
            && *at > asked
        {
            return Err(Arc::clone(reasons));
        }
        match self.find_leader().await {
            Ok((server, living)) => {
                state.number += 1;
                let Living { channel, term, leads, .. } = living;
                tracing::info!(%server, leads, term, "the datastore's server in use");
                let link = Link { channel, server: server.to_string().into(), term, number: state.number };
                state.link = Some(link.clone());
                Ok(link)
            }
            Err(reasons) => {
                let reasons: Arc<str> = reasons.into();
                state.dead = Some((Instant::now(), Arc::clone(&reasons)));
                Err(reasons)
            }
        }
    }

    /// Asks all servers at once: the leader, or whoever answered first if none of them leads.
    async fn find_leader(&self) -> Result<(&Address, Living), String> {
        let ask = async |server| (server, ask_server(server, self.tls.as_ref(), &self.probe).await);
        let mut answers: FuturesUnordered<_> = self.servers.iter().map(ask).collect();
        let (mut first, mut reasons) = (None, Vec::new());
        while let Some((server, answer)) = answers.next().await {
            match answer.and_then(|living| self.check_cluster(living)) {
                Ok(living) if living.leads => return Ok((server, living)),
                Ok(living) => first = first.or(Some((server, living))),
                Err(reason) => reasons.push(format!("{server}: {reason}")),
            }
        }
        first.ok_or_else(|| reasons.join("; "))
    }

    fn check_cluster(&self, living: Living) -> Result<Living, String> {
        let (found, ours) = (living.cluster_id, self.cluster_id);
        if found == ours {
            Ok(living)
        } else {
            Err(format!("it is another etcd cluster now ({found:x}) than at the start ({ours:x})"))
        }
    }

    /// The link has failed somebody, or another server leads by now: it is not handed out again.
    pub(super) async fn give_up(&self, link: &Link) {
        let mut state = self.state.lock().await;
        if state.link.as_ref().is_some_and(|current| current.number == link.number) {
            state.link = None;
        }
    }
}

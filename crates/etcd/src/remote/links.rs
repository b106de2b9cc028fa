//! The connection to an outside etcd: to one server at a time, to the next one when that fails.
//!
//! Invariants: whoever asks while a connection is being made shares its outcome, so that dead servers cost everyone one round
//! of attempts and not a round each; a link that somebody gave up is not handed out again.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

use super::Address;
use super::dial::dial;
use super::failure::with_remedy;

pub(super) struct Links {
    servers: Vec<Address>,
    tls: Option<TlsConnector>,
    state: Mutex<State>,
}

struct State {
    /// The server that is dialed next.
    at: usize,
    link: Option<Link>,
    number: u64,
    /// When all servers were last found dead, and how.
    dead: Option<(Instant, Arc<str>)>,
}

/// One connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) channel: Channel,
    pub(super) server: Arc<str>,
    number: u64,
}

impl Links {
    pub(super) fn new(servers: Vec<Address>, tls: Option<TlsConnector>) -> Self {
        let state = Mutex::new(State { at: 0, link: None, number: 0, dead: None });
        Self { servers, tls, state }
    }

    /// How often a request may be tried: once a server, but twice at least, because a connection may just have ended.
    pub(super) fn attempts(&self) -> usize {
        self.servers.len().max(2)
    }

    /// The connection in use, or a new one to the first server that answers. The error says of each why it does not.
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
        let mut reasons = Vec::new();
        for _ in 0..self.servers.len() {
            let address = &self.servers[state.at % self.servers.len()];
            match dial(address, self.tls.as_ref()).await {
                Ok(channel) => {
                    state.number += 1;
                    let link = Link { channel, server: address.to_string().into(), number: state.number };
                    state.link = Some(link.clone());
                    return Ok(link);
                }
                Err(error) => reasons.push(format!("{address}: {}", with_remedy(&error.to_string()))),
            }
            state.at += 1;
        }
        let reasons: Arc<str> = reasons.join("; ").into();
        state.dead = Some((Instant::now(), Arc::clone(&reasons)));
        Err(reasons)
    }

    /// The link has failed somebody: the next one leads to the next server.
    pub(super) async fn give_up(&self, link: &Link) {
        let mut state = self.state.lock().await;
        if state.link.as_ref().is_some_and(|current| current.number == link.number) {
            state.link = None;
            state.at += 1;
        }
    }
}

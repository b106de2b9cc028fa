//! Clients: each does one thing after the other at the member it is connected to, and remembers what it was told.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base::{Rng, SeededRng};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::Figures;
use super::node::Running;
use super::oracle::{Done, Oracle};
use crate::command::Command;
use crate::driver::{Message, NO_LEADER_MAX};
use crate::error::KvError;
use crate::kv::{Compare, Delete, Op, OpResult, Put, RangeRequest, Txn, TxnResponse};
use crate::machine::Outcome;
use crate::mvcc::State;
use crate::record::encode_command;

const CLIENTS: u64 = 9;
const KEYS: u64 = 5;
/// Leases live so long, or twice as long.
const TTL_SECONDS: i64 = 1;
/// What the end of a lease may take.
const LEASE_END_MAX: Duration = Duration::from_millis(500);
/// After this, every lease that nobody wants has ended.
pub(super) const LEASES_MAX: Duration = Duration::from_millis(2 * 1000 * TTL_SECONDS.cast_unsigned() + 500);

type Answer<T> = oneshot::Receiver<Result<T, KvError>>;

/// What the clients are there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// All kinds of requests, at any pace.
    Any,
    /// The same at leisure, while everything comes back.
    Calm,
    /// Writes and reads every few milliseconds, on every member: is it fast?
    Steady,
}

pub(super) struct Clients {
    pub(super) purpose: Purpose,
    list: Vec<Client>,
    rng: SeededRng,
    values: u64,
    /// Lease -> its time to live, and when somebody wanted it last.
    wanted: BTreeMap<i64, (Duration, Duration)>,
    /// Since when and how fast every answer must be.
    speed: Option<(Duration, Duration)>,
}

#[derive(Default)]
struct Client {
    member: u64,
    waits: Option<Waits>,
    next: Duration,
    /// Key -> revision of its last change, as the client saw it.
    known: HashMap<Bytes, i64>,
    lease: Option<i64>,
}

struct Waits {
    invoked: Duration,
    what: What,
}

enum What {
    Write { key: Bytes, value: Option<Bytes>, compared: Option<i64>, answer: Answer<Outcome> },
    Read { key: Bytes, answer: Answer<()> },
    Grant { id: i64, ttl: Duration, answer: Answer<Outcome> },
    Renew { id: i64, answer: Answer<i64> },
    Other { answer: Answer<Outcome> },
}

impl What {
    fn kind(&self) -> &'static str {
        match self {
            Self::Write { .. } => "write",
            Self::Read { .. } => "read",
            Self::Grant { .. } => "grant a lease",
            Self::Renew { .. } => "renew a lease",
            Self::Other { .. } => "delete or compact",
        }
    }
}

/// What came of one look at an answer.
enum Look {
    Nothing,
    Over,
    /// The member can't serve: its client tries another one.
    Failed,
}

impl Clients {
    pub(super) fn new(seed: u64) -> Self {
        let list = (0..CLIENTS).map(|_| Client::default()).collect();
        Self {
            purpose: Purpose::Any,
            list,
            rng: SeededRng::new(seed ^ 0xc11e),
            values: 0,
            wanted: BTreeMap::new(),
            speed: None,
        }
    }

    pub(super) fn expect_speed(&mut self, now: Duration, limit: Option<Duration>) {
        self.speed = limit.map(|limit| (now, limit));
    }

    /// Where the clients are, for a report.
    pub(super) fn members(&self) -> Vec<u64> {
        self.list.iter().map(|client| client.member).collect()
    }

    /// Whether somebody waits for longer than it takes to be told that there is no leader.
    pub(super) fn waits_long(&self, now: Duration) -> Option<String> {
        let most = NO_LEADER_MAX + Duration::from_secs(1);
        let long = |client: &&Client| client.waits.as_ref().is_some_and(|waits| now - waits.invoked > most);
        self.list.iter().find(long).map(|client| {
            let what = client.waits.as_ref().map_or("", |waits| waits.what.kind());
            format!("a client waits for member {} to {what}", client.member)
        })
    }

    /// A lease that nobody has renewed for longer than it lives, although its leader has led for so long (`since`) as well.
    pub(super) fn outlived(&self, state: &State, since: Duration, now: Duration) -> Option<String> {
        let ended = |id: &&i64| {
            let (ttl, wanted) = self.wanted.get(*id).copied().unwrap_or_default();
            now > wanted.max(since) + ttl + LEASE_END_MAX
        };
        state.leases.keys().find(ended).map(|id| format!("lease {id} lives on, which nobody renews"))
    }

    /// A member is gone: whoever waits for it will never know.
    pub(super) fn disconnect(&mut self, member: u64, now: Duration, figures: &mut Figures) {
        for client in self.list.iter_mut().filter(|client| client.member == member) {
            figures.unknown += u64::from(client.waits.take().is_some());
            client.member = 0;
            client.next = now + Duration::from_millis(50 + self.rng.below(150));
        }
    }

    /// Connects who is not connected, to one of these.
    pub(super) fn connect(&mut self, members: &[u64]) {
        for (number, client) in self.list.iter_mut().enumerate().filter(|(_, client)| client.member == 0) {
            let choice = if self.purpose == Purpose::Steady { number } else { self.rng.below(1 << 30) as usize };
            client.member = members.get(choice % members.len().max(1)).copied().unwrap_or(0);
        }
    }

    /// What the clients of this member want of it now.
    pub(super) fn requests(&mut self, member: u64, now: Duration) -> Vec<Message> {
        let mut messages = Vec::new();
        for number in 0..self.list.len() {
            let client = &self.list[number];
            if client.member == member && client.waits.is_none() && client.next <= now {
                messages.push(self.request(number, now));
            }
        }
        messages
    }

    fn request(&mut self, number: usize, now: Duration) -> Message {
        let key = Bytes::from(format!("k/{}", self.rng.below(KEYS)));
        let choice = if self.purpose == Purpose::Steady { [0, 60][(number / 3) % 2] } else { self.rng.below(100) };
        let (message, what) = match choice {
            0..45 => self.write(number, key, None),
            45..60 => {
                let known = self.list[number].known.get(&key).copied().unwrap_or(0);
                self.write(number, key, Some(known))
            }
            60..86 => {
                let (reply, answer) = oneshot::channel();
                (Message::Read { reply }, What::Read { key, answer })
            }
            86..91 => {
                let op = Op::Delete(Delete { key: key.clone(), ..Delete::default() });
                let (message, answer) = propose(Command::Txn(Txn::of(op)));
                (message, What::Other { answer })
            }
            91 => {
                // Only what has been answered, and so been seen by the oracle: a compaction takes the values away.
                let known = self.list[number].known.values().max().copied().unwrap_or(0);
                let (message, answer) = propose(Command::Compact { revision: known / 2 });
                (message, What::Other { answer })
            }
            _ => self.lease(number, now),
        };
        self.list[number].waits = Some(Waits { invoked: now, what });
        message
    }

    fn write(&mut self, number: usize, key: Bytes, compared: Option<i64>) -> (Message, What) {
        self.values += 1;
        let mut text = format!("v{}", self.values);
        if self.purpose != Purpose::Steady && self.rng.below(10) == 0 {
            text.push_str(&"x".repeat(700));
        }
        let value = Bytes::from(text);
        let lease = self.list[number].lease.filter(|_| self.rng.below(6) == 0).unwrap_or(0);
        let put = Op::Put(Put { key: key.clone(), value: value.clone(), lease, ..Put::default() });
        let read = Op::Range(RangeRequest { key: key.clone(), ..RangeRequest::default() });
        let compares = compared.map(|revision| Compare::mod_revision_is(key.clone(), revision));
        let txn = Txn { compares: compares.into_iter().collect(), success: vec![put], failure: vec![read] };
        let (message, answer) = propose(Command::Txn(txn));
        (message, What::Write { key, value: Some(value), compared, answer })
    }

    fn lease(&mut self, number: usize, now: Duration) -> (Message, What) {
        if let Some(id) = self.list[number].lease {
            self.wanted.entry(id).and_modify(|(_, wanted)| *wanted = now);
            let (reply, answer) = oneshot::channel();
            return (Message::KeepAlive { id, reply }, What::Renew { id, answer });
        }
        self.values += 1;
        let id = 1000 + self.values.cast_signed();
        let ttl_seconds = TTL_SECONDS << self.rng.below(2);
        let ttl = Duration::from_secs(ttl_seconds.cast_unsigned());
        self.wanted.insert(id, (ttl, now));
        let (message, answer) = propose(Command::LeaseGrant { id, ttl_seconds });
        (message, What::Grant { id, ttl, answer })
    }

    /// Looks at the answers of this member.
    pub(super) fn collect(
        &mut self,
        member: u64,
        running: &Running,
        now: Duration,
        (oracle, figures): (&mut Oracle, &mut Figures),
    ) -> Result<(), String> {
        for client in self.list.iter_mut().filter(|client| client.member == member) {
            let Some(mut waits) = client.waits.take() else { continue };
            if let Some((since, limit)) = self.speed
                && now.saturating_sub(waits.invoked.max(since)) > limit
            {
                return Err(format!("a client of member {member} waits since {:?}", waits.invoked));
            }
            match client.look(&mut waits, running, now, (oracle, figures))? {
                Look::Nothing => client.waits = Some(waits),
                over => {
                    if let What::Grant { id, .. } | What::Renew { id, .. } = waits.what {
                        self.wanted.entry(id).and_modify(|(_, wanted)| *wanted = now);
                    }
                    let pace = match self.purpose {
                        Purpose::Any => self.rng.below(120),
                        Purpose::Calm => self.rng.below(300),
                        Purpose::Steady => 8,
                    };
                    client.next = now + Duration::from_millis(pace);
                    // Now and then a client goes to another member.
                    if self.purpose != Purpose::Steady && self.rng.below(20) == 0 || matches!(over, Look::Failed) {
                        client.member = 0;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Client {
    fn look(
        &mut self,
        waits: &mut Waits,
        running: &Running,
        now: Duration,
        (oracle, figures): (&mut Oracle, &mut Figures),
    ) -> Result<Look, String> {
        let invoked = waits.invoked;
        match &mut waits.what {
            What::Write { key, value, compared, answer } => {
                let Some(result) = taken(answer) else { return Ok(Look::Nothing) };
                match result {
                    Ok(Outcome::Txn(response)) => {
                        figures.writes += 1;
                        let done = self.written(&response, key, (value, *compared));
                        oracle.done(Done { invoked, returned: now, ..done });
                    }
                    Ok(_) => return Err("an answer of the wrong kind".into()),
                    Err(KvError::Stopped { .. } | KvError::Unavailable { .. }) => {
                        figures.unknown += 1;
                        return Ok(Look::Failed);
                    }
                    Err(_) => oracle.refused(value.clone().unwrap_or_default()),
                }
            }
            What::Read { key, answer } => {
                let Some(result) = taken(answer) else { return Ok(Look::Nothing) };
                if result.is_err() {
                    return Ok(Look::Failed);
                }
                figures.reads += 1;
                let state = running.published.state.load();
                let kv = state.newest(key).cloned();
                self.known.insert(key.clone(), kv.as_ref().map_or(0, |kv| kv.mod_revision));
                let (revision, value) = (state.revision, kv.map(|kv| kv.value.clone()));
                let (key, returned) = (key.clone(), now);
                oracle.done(Done { invoked, returned, revision, is_write: false, key, value, compared: None });
            }
            What::Grant { id, ttl, answer } => {
                let Some(result) = taken(answer) else { return Ok(Look::Nothing) };
                if result.is_ok() {
                    oracle.granted(*id, *ttl, invoked);
                    self.lease = Some(*id);
                }
            }
            What::Renew { id, answer } => {
                let Some(result) = taken(answer) else { return Ok(Look::Nothing) };
                match result {
                    Ok(_) => oracle.renewed(*id, invoked)?,
                    Err(KvError::LeaseNotFound { .. }) => self.lease = None,
                    Err(_) => {}
                }
            }
            What::Other { answer } => {
                if taken(answer).is_none() {
                    return Ok(Look::Nothing);
                }
            }
        }
        Ok(Look::Over)
    }

    /// What a transaction has done, without its times.
    fn written(
        &mut self,
        response: &TxnResponse,
        key: &Bytes,
        (value, compared): (&Option<Bytes>, Option<i64>),
    ) -> Done {
        let (invoked, returned) = (Duration::ZERO, Duration::ZERO);
        let (revision, key) = (response.revision, key.clone());
        if response.succeeded {
            self.known.insert(key.clone(), revision);
            return Done { invoked, returned, revision, is_write: true, key, value: value.clone(), compared };
        }
        let found = response.results.first().and_then(|result| match result {
            OpResult::Range(range) => range.kvs.first().cloned(),
            _ => None,
        });
        self.known.insert(key.clone(), found.as_ref().map_or(0, |kv| kv.mod_revision));
        let value = found.map(|kv| kv.value.clone());
        Done { invoked, returned, revision, is_write: false, key, value, compared: None }
    }
}

fn propose(command: Command) -> (Message, Answer<Outcome>) {
    let (reply, answer) = oneshot::channel();
    let body = encode_command(&command).into();
    (Message::Propose { command, body, permit: None, reply }, answer)
}

/// The answer, if it is there. One that will never come is unknown.
fn taken<T>(answer: &mut Answer<T>) -> Option<Result<T, KvError>> {
    match answer.try_recv() {
        Ok(result) => Some(result),
        Err(oneshot::error::TryRecvError::Empty) => None,
        Err(oneshot::error::TryRecvError::Closed) => Some(Err(KvError::Unavailable { reason: "no answer".into() })),
    }
}

//! Reads, and what the leader alone can answer: questions about leases, and handing over.
//!
//! A read is linearizable if it waits for everything that was committed when it was asked. Raft tells that position after
//! a round to a majority; all who ask while a round is under way share the next one. A leader's answer about a lease goes
//! through such a round too: it proves that nobody else led when the lease was renewed.
//! Bounded: after [`NO_LEADER_MAX`] without an answer the client gets an error.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use raft::ReadState;

use super::proposals::NO_LEADER_MAX;
use super::{Driver, Reply, answer};
use crate::error::KvError;
use crate::kv::LeaseStatus;
use crate::peer_frame::{Answer, Ask, Frame};
use crate::wire::Writer;

/// A round that has not come back is begun again after this: a message may be lost.
const REPEAT_ROUND: Duration = Duration::from_millis(100);
/// A question is sent again after this.
const REPEAT_ASK: Duration = Duration::from_millis(500);

/// Everything that waits for a word from the cluster and changes nothing.
pub(crate) struct Reads {
    prefix: (u64, u64),
    rounds: u64,
    waiting: Vec<Waiter>,
    round: Option<Round>,
    /// Confirmed, and to be answered when this position is applied.
    confirmed: VecDeque<(u64, Vec<Waiter>)>,
    /// Reads whose time has come, until the state is published.
    due: Vec<Reply<()>>,
    asks: BTreeMap<u64, Asked>,
    next_ask: u64,
}

struct Round {
    context: Vec<u8>,
    asked: Duration,
    waiters: Vec<Waiter>,
}

struct Waiter {
    since: Duration,
    what: What,
}

enum What {
    Read(Reply<()>),
    /// A question of this member.
    Own(u64),
    /// A question of another member, of its life `run`.
    Others {
        member: u64,
        run: u64,
        number: u64,
        ask: Ask,
    },
}

struct Asked {
    reply: AskReply,
    since: Duration,
    sent: Option<Duration>,
}

/// A question for the leader, and whom it is of.
pub(crate) enum AskReply {
    KeepAlive { id: i64, reply: Reply<i64> },
    TimeToLive { id: i64, reply: Reply<LeaseStatus> },
    Transfer { to: u64, reply: Reply<()> },
}

impl AskReply {
    fn ask(&self) -> Ask {
        match self {
            Self::KeepAlive { id, .. } => Ask::KeepAlive { id: *id },
            Self::TimeToLive { id, .. } => Ask::TimeToLive { id: *id },
            Self::Transfer { to, .. } => Ask::Transfer { to: *to },
        }
    }

    fn answer(self, result: Result<Answer, KvError>) {
        match (self, result) {
            (Self::KeepAlive { reply, .. }, Ok(Answer::Renewed { ttl_seconds })) => answer(reply, Ok(ttl_seconds)),
            (Self::TimeToLive { reply, .. }, Ok(Answer::Lease(lease))) => answer(reply, Ok(lease)),
            (Self::Transfer { reply, .. }, Ok(_)) => answer(reply, Ok(())),
            (asked, Err(error)) => asked.fail(error),
            (asked, Ok(_)) => asked.fail(KvError::Unavailable { reason: "an answer of the wrong kind".into() }),
        }
    }

    fn fail(self, error: KvError) {
        match self {
            Self::KeepAlive { reply, .. } => answer(reply, Err(error)),
            Self::TimeToLive { reply, .. } => answer(reply, Err(error)),
            Self::Transfer { reply, .. } => answer(reply, Err(error)),
        }
    }
}

impl Reads {
    pub(crate) fn new(me: u64, run: u64) -> Self {
        let (waiting, confirmed, due, asks) = (Vec::new(), VecDeque::new(), Vec::new(), BTreeMap::new());
        Self { prefix: (me, run), rounds: 0, waiting, round: None, confirmed, due, asks, next_ask: 1 }
    }

    /// Raft has answered rounds.
    pub(crate) fn confirm(&mut self, answers: Vec<ReadState>) {
        for answer in answers {
            if let Some(round) = self.round.take_if(|round| round.context == answer.request_ctx) {
                self.confirmed.push_back((answer.index, round.waiters));
            }
        }
    }

    /// Another leader: it must be asked anew.
    pub(crate) fn leader_changed(&mut self) {
        self.asks.values_mut().for_each(|asked| asked.sent = None);
    }

    pub(crate) fn fail_all(&mut self, error: &KvError) {
        let rounds = self.round.take().into_iter().flat_map(|round| round.waiters);
        let confirmed = std::mem::take(&mut self.confirmed).into_iter().flat_map(|(_, waiters)| waiters);
        for waiter in std::mem::take(&mut self.waiting).into_iter().chain(rounds).chain(confirmed) {
            waiter.fail(error);
        }
        for asked in std::mem::take(&mut self.asks).into_values() {
            asked.reply.fail(error.clone());
        }
    }

    fn context(&mut self) -> Vec<u8> {
        self.rounds += 1;
        let mut w = Writer::default();
        [self.prefix.0, self.prefix.1, self.rounds].into_iter().for_each(|n| w.number(n));
        w.0
    }

    /// Gives up what has waited since `before`.
    fn expire(&mut self, before: Duration) {
        let error = KvError::Unavailable { reason: "the cluster has no leader, or it does not answer".into() };
        let lists = std::iter::once(&mut self.waiting).chain(self.round.iter_mut().map(|round| &mut round.waiters));
        for list in lists.chain(self.confirmed.iter_mut().map(|(_, waiters)| waiters)) {
            for expired in list.extract_if(.., |waiter| waiter.since <= before) {
                expired.fail(&error);
            }
        }
        let expired: Vec<u64> =
            self.asks.iter().filter(|(_, asked)| asked.since <= before).map(|(number, _)| *number).collect();
        for asked in expired.into_iter().filter_map(|number| self.asks.remove(&number)) {
            asked.reply.fail(error.clone());
        }
    }
}

impl Waiter {
    fn fail(self, error: &KvError) {
        if let What::Read(reply) = self.what {
            answer(reply, Err(error.clone()));
        }
    }
}

impl Driver {
    pub(super) fn take_read(&mut self, reply: Reply<()>) {
        if let Some(reason) = self.stopped_reason() {
            return answer(reply, Err(KvError::Stopped { reason }));
        }
        let since = self.clock.monotonic();
        self.reads.waiting.push(Waiter { since, what: What::Read(reply) });
    }

    pub(super) fn ask_leader(&mut self, reply: AskReply) {
        if let Some(error) = self.closed() {
            return reply.fail(error);
        }
        let number = self.reads.next_ask;
        self.reads.next_ask += 1;
        let since = self.clock.monotonic();
        self.reads.asks.insert(number, Asked { reply, since, sent: None });
        self.send_asks();
    }

    /// Begins a round for all who wait, unless one is under way.
    pub(super) fn begin_reads(&mut self) {
        if self.reads.round.is_some() || self.reads.waiting.is_empty() {
            return;
        }
        let (context, waiters) = (self.reads.context(), std::mem::take(&mut self.reads.waiting));
        self.member.read_index(context.clone());
        self.reads.round = Some(Round { context, asked: self.clock.monotonic(), waiters });
    }

    /// Takes the question of another member; who does not lead is silent.
    pub(super) fn take_ask(&mut self, member: u64, run: u64, number: u64, ask: Ask) {
        if self.member.is_leader() {
            let since = self.clock.monotonic();
            self.reads.waiting.push(Waiter { since, what: What::Others { member, run, number, ask } });
        }
    }

    pub(super) fn take_answer(&mut self, number: u64, answer: Result<Answer, KvError>) {
        if let Some(asked) = self.reads.asks.remove(&number) {
            asked.reply.answer(answer);
        }
    }

    pub(super) fn send_asks(&mut self) {
        let (now, leader) = (self.clock.monotonic(), self.member.leader());
        if leader == 0 {
            return;
        }
        let due = |asked: &Asked| asked.sent.is_none_or(|sent| now.saturating_sub(sent) >= REPEAT_ASK);
        let mut frames = Vec::new();
        for (number, asked) in self.reads.asks.iter_mut().filter(|(_, asked)| due(asked)) {
            asked.sent = Some(now);
            frames.push((*number, asked.reply.ask()));
        }
        let run = self.reads.prefix.1;
        for (number, ask) in frames {
            if self.member.is_leader() {
                self.reads.waiting.push(Waiter { since: now, what: What::Own(number) });
            } else {
                self.send(leader, &Frame::Ask { run, number, ask });
            }
        }
        self.begin_reads();
    }

    /// Answers questions whose round has come back, and marks the reads that are due.
    pub(super) fn answer_reads(&mut self) {
        let applied = self.machine.state().index;
        while let Some((_, waiters)) = self.reads.confirmed.pop_front_if(|(index, _)| *index <= applied) {
            for waiter in waiters {
                match waiter.what {
                    What::Read(reply) => self.reads.due.push(reply),
                    What::Own(number) => {
                        let Some(ask) = self.reads.asks.get(&number).map(|asked| asked.reply.ask()) else { continue };
                        if let Some(answer) = self.evaluate(ask) {
                            self.take_answer(number, answer);
                        }
                    }
                    What::Others { member, run, number, ask } => {
                        if let Some(answer) = self.evaluate(ask) {
                            self.send(member, &Frame::Answer { run, number, answer });
                        }
                    }
                }
            }
        }
        self.begin_reads();
    }

    /// The state is published: who waited for it may read.
    pub(super) fn release_reads(&mut self) {
        for reply in std::mem::take(&mut self.reads.due) {
            answer(reply, Ok(()));
        }
    }

    /// The leader's answer; `None` if this member does not lead any more: it will be asked again.
    fn evaluate(&mut self, ask: Ask) -> Option<Result<Answer, KvError>> {
        self.lessor_term?;
        let now = self.clock.monotonic();
        Some(match ask {
            Ask::KeepAlive { id } => {
                let renewed = self.lessor.keep_alive(id, now).ok_or(KvError::LeaseNotFound { id });
                renewed.map(|ttl_seconds| Answer::Renewed { ttl_seconds })
            }
            Ask::TimeToLive { id } => self.time_to_live(id, now).map(Answer::Lease),
            Ask::Transfer { to } => self.begin_transfer(to).map(|()| Answer::Done),
        })
    }

    fn time_to_live(&self, id: i64, now: Duration) -> Result<LeaseStatus, KvError> {
        let remaining = self.lessor.remaining(id, now).ok_or(KvError::LeaseNotFound { id })?;
        let granted = self.machine.state().leases.get(&id).copied().ok_or(KvError::LeaseNotFound { id })?;
        let (granted_ttl_seconds, remaining_seconds) = (granted, remaining.as_secs() as i64);
        Ok(LeaseStatus { id, granted_ttl_seconds, remaining_seconds, keys: self.machine.attached_keys(id) })
    }

    /// Looks at the clock: what is asked again, and what is given up.
    pub(super) fn tick_reads(&mut self, now: Duration) {
        if let Some(before) = now.checked_sub(NO_LEADER_MAX) {
            self.reads.expire(before);
        }
        if self.reads.round.as_ref().is_some_and(|round| now.saturating_sub(round.asked) >= REPEAT_ROUND) {
            self.repeat_round();
        }
        self.send_asks();
    }

    /// Asks again for the round that is under way: the last time nobody could answer.
    pub(super) fn repeat_round(&mut self) {
        if let Some(round) = &mut self.reads.round {
            round.asked = self.clock.monotonic();
            self.member.read_index(round.context.clone());
        }
    }
}

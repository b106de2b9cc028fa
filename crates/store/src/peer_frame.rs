//! Frames: what members tell each other, as bytes.
//!
//! `version, cluster, from, to, kind, fields...`. A frame of another cluster, for another member or of another version is no
//! frame at all. Raft's messages travel in their own encoding; proposals for the leader are such a message too.
//! Reading never panics; a frame can be lost, repeated or late without harm.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::Message;

use crate::error::KvError;
use crate::kv::LeaseStatus;
use crate::membership::decode_string;
use crate::peer::MemberChangeError;
use crate::wire::{Malformed, Reader, Writer};

const VERSION: u64 = 1;

/// What a member tells another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    /// Raft's business; of type `MsgPropose`: entries for the leader to append.
    Raft(Box<Message>),
    /// The leader does not take the proposal `seq` of the receiver's life `run`.
    Refused {
        run: u64,
        seq: u64,
        why: Refusal,
    },
    /// A question that the leader alone can answer; asked again until it is.
    Ask {
        run: u64,
        number: u64,
        ask: Ask,
    },
    Answer {
        run: u64,
        number: u64,
        answer: Result<Answer, KvError>,
    },
    /// How the sender's disk does.
    Health(Health),
    /// The receiver is no member any more.
    Removed,
    /// The sender has all entries up to `index` of the leader of `term`, though not on its disk.
    Received {
        term: u64,
        index: u64,
    },
}

/// Why a proposal is not taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    Kv(KvError),
    Member(MemberChangeError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    KeepAlive { id: i64 },
    TimeToLive { id: i64 },
    Transfer { to: u64 },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Renewed { ttl_seconds: i64 },
    Lease(LeaseStatus),
    Done,
}

/// A member's disk, as it reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Health {
    /// What a sync takes, or how long the one under way has taken.
    pub(crate) latency: Duration,
    pub(crate) is_full: bool,
}

/// A frame from one member of `cluster` to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) cluster: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

pub(crate) fn encode_frame(route: Route, frame: &Frame) -> Bytes {
    let mut w = Writer::default();
    [VERSION, route.cluster, route.from, route.to].into_iter().for_each(|n| w.number(n));
    match frame {
        Frame::Raft(message) => {
            w.number(0);
            // Writing into memory can't fail.
            message.write_to_vec(&mut w.0).ok();
        }
        Frame::Refused { run, seq, why } => {
            [1, *run, *seq].into_iter().for_each(|n| w.number(n));
            encode_refusal(why, &mut w);
        }
        Frame::Ask { run, number, ask } => {
            [2, *run, *number].into_iter().for_each(|n| w.number(n));
            let (kind, id) = match ask {
                Ask::KeepAlive { id } => (0, *id),
                Ask::TimeToLive { id } => (1, *id),
                Ask::Transfer { to } => (2, to.cast_signed()),
            };
            w.number(kind);
            w.signed(id);
        }
        Frame::Answer { run, number, answer } => {
            [3, *run, *number].into_iter().for_each(|n| w.number(n));
            encode_answer(answer, &mut w);
        }
        Frame::Health(health) => {
            w.number(4);
            w.number(u64::try_from(health.latency.as_micros()).unwrap_or(u64::MAX));
            w.flag(health.is_full);
        }
        Frame::Removed => w.number(5),
        Frame::Received { term, index } => [6, *term, *index].into_iter().for_each(|n| w.number(n)),
    }
    w.0.into()
}

/// Reads a frame; `Err` if it is none that this version understands.
pub(crate) fn decode_frame(bytes: &[u8]) -> Result<(Route, Frame), Malformed> {
    let mut r = Reader(bytes);
    if r.number()? != VERSION {
        return Err(Malformed);
    }
    let route = Route { cluster: r.number()?, from: r.number()?, to: r.number()? };
    let frame = match r.number()? {
        0 => {
            let mut message = Box::new(Message::default());
            message.merge_from_bytes(r.0).map_err(|_| Malformed)?;
            Frame::Raft(message)
        }
        1 => Frame::Refused { run: r.number()?, seq: r.number()?, why: decode_refusal(&mut r)? },
        2 => {
            let (run, number, kind, id) = (r.number()?, r.number()?, r.number()?, r.signed()?);
            let ask = match kind {
                0 => Ask::KeepAlive { id },
                1 => Ask::TimeToLive { id },
                2 => Ask::Transfer { to: id.cast_unsigned() },
                _ => return Err(Malformed),
            };
            Frame::Ask { run, number, ask }
        }
        3 => Frame::Answer { run: r.number()?, number: r.number()?, answer: decode_answer(&mut r)? },
        4 => Frame::Health(Health { latency: Duration::from_micros(r.number()?), is_full: r.flag()? }),
        5 => Frame::Removed,
        6 => Frame::Received { term: r.number()?, index: r.number()? },
        _ => return Err(Malformed),
    };
    Ok((route, frame))
}

fn encode_answer(answer: &Result<Answer, KvError>, w: &mut Writer) {
    match answer {
        Ok(Answer::Renewed { ttl_seconds }) => {
            w.number(0);
            w.signed(*ttl_seconds);
        }
        Ok(Answer::Lease(lease)) => {
            w.number(1);
            [lease.id, lease.granted_ttl_seconds, lease.remaining_seconds].into_iter().for_each(|n| w.signed(n));
            w.number(lease.keys.len() as u64);
            lease.keys.iter().for_each(|key| w.bytes(key));
        }
        Ok(Answer::Done) => w.number(2),
        Err(error) => {
            w.number(3);
            encode_error(error, w);
        }
    }
}

fn decode_answer(r: &mut Reader<'_>) -> Result<Result<Answer, KvError>, Malformed> {
    Ok(match r.number()? {
        0 => Ok(Answer::Renewed { ttl_seconds: r.signed()? }),
        1 => {
            let (id, granted_ttl_seconds, remaining_seconds) = (r.signed()?, r.signed()?, r.signed()?);
            Ok(Answer::Lease(LeaseStatus { id, granted_ttl_seconds, remaining_seconds, keys: r.list(Reader::bytes)? }))
        }
        2 => Ok(Answer::Done),
        3 => Err(decode_error(r)?),
        _ => return Err(Malformed),
    })
}

/// The errors that a leader answers with; any other is told as a reason.
fn encode_error(error: &KvError, w: &mut Writer) {
    match error {
        KvError::NoSpace { detail } => {
            w.number(0);
            w.bytes(detail.as_bytes());
        }
        KvError::LeaseNotFound { id } => {
            w.number(1);
            w.signed(*id);
        }
        KvError::Unavailable { reason } => {
            w.number(2);
            w.bytes(reason.as_bytes());
        }
        other => {
            w.number(2);
            w.bytes(other.to_string().as_bytes());
        }
    }
}

fn decode_error(r: &mut Reader<'_>) -> Result<KvError, Malformed> {
    Ok(match r.number()? {
        0 => KvError::NoSpace { detail: decode_text(r)? },
        1 => KvError::LeaseNotFound { id: r.signed()? },
        2 => KvError::Unavailable { reason: decode_text(r)? },
        _ => return Err(Malformed),
    })
}

fn decode_text(r: &mut Reader<'_>) -> Result<Arc<str>, Malformed> {
    decode_string(r).map(Arc::from)
}

fn encode_refusal(why: &Refusal, w: &mut Writer) {
    let (kind, id) = match why {
        Refusal::Kv(error) => {
            w.number(0);
            return encode_error(error, w);
        }
        Refusal::Member(MemberChangeError::PeerUrlUsed { url }) => {
            w.number(1);
            return w.bytes(url.as_bytes());
        }
        Refusal::Member(MemberChangeError::Kv(error)) => {
            w.number(0);
            return encode_error(error, w);
        }
        Refusal::Member(MemberChangeError::NotFound { id }) => (2, *id),
        Refusal::Member(MemberChangeError::IdUsed { id }) => (3, *id),
        Refusal::Member(MemberChangeError::NotLearner { id }) => (4, *id),
        Refusal::Member(MemberChangeError::LearnerNotReady { id }) => (5, *id),
        Refusal::Member(MemberChangeError::TooManyLearners { learners_max }) => (6, *learners_max as u64),
        Refusal::Member(MemberChangeError::NotEnoughStarted) => (7, 0),
    };
    w.number(kind);
    w.number(id);
}

fn decode_refusal(r: &mut Reader<'_>) -> Result<Refusal, Malformed> {
    Ok(Refusal::Member(match r.number()? {
        0 => return decode_error(r).map(Refusal::Kv),
        1 => MemberChangeError::PeerUrlUsed { url: decode_string(r)? },
        2 => MemberChangeError::NotFound { id: r.number()? },
        3 => MemberChangeError::IdUsed { id: r.number()? },
        4 => MemberChangeError::NotLearner { id: r.number()? },
        5 => MemberChangeError::LearnerNotReady { id: r.number()? },
        6 => MemberChangeError::TooManyLearners { learners_max: usize::try_from(r.number()?).map_err(|_| Malformed)? },
        7 => r.number().map(|_| MemberChangeError::NotEnoughStarted)?,
        _ => return Err(Malformed),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use raft::eraftpb::{Entry, MessageType};

    #[test]
    fn every_frame_is_read_as_it_was_written() {
        let route = Route { cluster: u64::MAX, from: 1, to: 2 };
        let check = |frame: Frame| assert_eq!(decode_frame(&encode_frame(route, &frame)), Ok((route, frame)));
        let mut message = Box::new(Message { from: 1, to: 2, term: 9, ..Message::default() });
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(vec![Entry { data: "d".into(), context: "c".into(), ..Entry::default() }].into());
        let sized = message.clone();
        // Writing notes the size in the message.
        sized.write_to_bytes().unwrap();
        assert_eq!(decode_frame(&encode_frame(route, &Frame::Raft(message))).unwrap().1, Frame::Raft(sized));
        let lease = LeaseStatus { id: 1, granted_ttl_seconds: 2, remaining_seconds: 1, keys: vec!["k".into()] };
        for answer in [
            Ok(Answer::Renewed { ttl_seconds: 7 }),
            Ok(Answer::Lease(lease)),
            Ok(Answer::Done),
            Err(KvError::LeaseNotFound { id: -4 }),
            Err(KvError::NoSpace { detail: "full".into() }),
        ] {
            check(Frame::Answer { run: 3, number: 4, answer });
        }
        for ask in [Ask::KeepAlive { id: -1 }, Ask::TimeToLive { id: 5 }, Ask::Transfer { to: u64::MAX }] {
            check(Frame::Ask { run: 3, number: 4, ask });
        }
        for why in [
            Refusal::Kv(KvError::Unavailable { reason: "r".into() }),
            Refusal::Member(MemberChangeError::PeerUrlUsed { url: "u".into() }),
            Refusal::Member(MemberChangeError::LearnerNotReady { id: 8 }),
            Refusal::Member(MemberChangeError::TooManyLearners { learners_max: 1 }),
            Refusal::Member(MemberChangeError::NotEnoughStarted),
        ] {
            check(Frame::Refused { run: 1, seq: 2, why });
        }
        check(Frame::Health(Health { latency: Duration::from_millis(800), is_full: true }));
        check(Frame::Removed);
        check(Frame::Received { term: 3, index: 1 << 50 });
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(mut garbage: Vec<u8>) {
            garbage.insert(0, VERSION as u8);
            decode_frame(&garbage).ok();
        }
    }
}

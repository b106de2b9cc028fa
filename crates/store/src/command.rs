//! Commands: what an entry of the log does to the state, and its bytes.
//!
//! A command is executed by [`crate::machine`] on every member alike; it contains everything that its outcome depends on.
//! The encoding is a list of numbers (LEB128) and length-prefixed strings in the order of the struct fields; decoding
//! copies every string, so that no value pins the buffer it came from.

use bytes::Bytes;

use crate::kv::{Compare, Delete, Op, Put, RangeRequest, Relation, Target, Txn};
use crate::membership::{decode_change, encode_change};
use crate::peer::MemberChange;
use crate::policy::{PolicyChange, decode_changes, encode_changes};
use crate::wire::{Malformed, Reader, Writer};

/// The content of a log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Txn(Txn),
    Compact {
        revision: i64,
    },
    /// `id` 0: one is derived from the position of the entry.
    LeaseGrant {
        id: i64,
        ttl_seconds: i64,
    },
    LeaseRevoke {
        id: i64,
    },
    Member(MemberChange),
    Policy(Vec<PolicyChange>),
    /// Is executed only if the policy is still that of revision `by`.
    Judged {
        by: u64,
        command: Box<Command>,
    },
    /// Does nothing: what a new leader commits first.
    Nothing,
}

/// Nesting of transactions that is accepted.
pub(crate) const DEPTH_MAX: usize = 8;

impl Command {
    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Nothing => w.number(0),
            Self::Txn(txn) => {
                w.number(1);
                encode_txn(txn, w);
            }
            Self::Compact { revision } => {
                w.number(2);
                w.signed(*revision);
            }
            Self::LeaseGrant { id, ttl_seconds } => {
                w.number(3);
                w.signed(*id);
                w.signed(*ttl_seconds);
            }
            Self::LeaseRevoke { id } => {
                w.number(4);
                w.signed(*id);
            }
            Self::Member(change) => {
                w.number(5);
                encode_change(change, w);
            }
            Self::Policy(changes) => {
                w.number(6);
                encode_changes(changes, w);
            }
            Self::Judged { by, command } => {
                w.number(7);
                w.number(*by);
                command.encode(w);
            }
        }
    }

    /// What is to be done, whoever judged it.
    pub(crate) fn deed(&self) -> &Self {
        match self {
            Self::Judged { command, .. } => command.deed(),
            deed => deed,
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match r.number()? {
            7 => Ok(Self::Judged { by: r.number()?, command: Box::new(Self::decode_deed(r.number()?, r)?) }),
            kind => Self::decode_deed(kind, r),
        }
    }

    fn decode_deed(kind: u64, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match kind {
            0 => Self::Nothing,
            1 => Self::Txn(decode_txn(r, DEPTH_MAX)?),
            2 => Self::Compact { revision: r.signed()? },
            3 => Self::LeaseGrant { id: r.signed()?, ttl_seconds: r.signed()? },
            4 => Self::LeaseRevoke { id: r.signed()? },
            5 => Self::Member(decode_change(r)?),
            6 => Self::Policy(decode_changes(r)?),
            _ => return Err(Malformed),
        })
    }
}

fn encode_txn(txn: &Txn, w: &mut Writer) {
    w.number(txn.compares.len() as u64);
    for compare in &txn.compares {
        encode_compare(compare, w);
    }
    for branch in [&txn.success, &txn.failure] {
        w.number(branch.len() as u64);
        for op in branch {
            encode_op(op, w);
        }
    }
}

fn decode_txn(r: &mut Reader<'_>, depth: usize) -> Result<Txn, Malformed> {
    let compares = r.list(decode_compare)?;
    let success = r.list(|r| decode_op(r, depth))?;
    let failure = r.list(|r| decode_op(r, depth))?;
    Ok(Txn { compares, success, failure })
}

fn encode_end(end: Option<&Bytes>, w: &mut Writer) {
    w.flag(end.is_some());
    if let Some(end) = end {
        w.bytes(end);
    }
}

fn decode_end(r: &mut Reader<'_>) -> Result<Option<Bytes>, Malformed> {
    if r.flag()? { r.bytes().map(Some) } else { Ok(None) }
}

fn encode_compare(compare: &Compare, w: &mut Writer) {
    w.bytes(&compare.key);
    encode_end(compare.end.as_ref(), w);
    w.number(match compare.relation {
        Relation::Equal => 0,
        Relation::NotEqual => 1,
        Relation::Greater => 2,
        Relation::Less => 3,
    });
    let (target, number) = match &compare.target {
        Target::Version(n) => (0, *n),
        Target::CreateRevision(n) => (1, *n),
        Target::ModRevision(n) => (2, *n),
        Target::Lease(n) => (3, *n),
        Target::Value(value) => {
            w.number(4);
            w.bytes(value);
            return;
        }
    };
    w.number(target);
    w.signed(number);
}

fn decode_compare(r: &mut Reader<'_>) -> Result<Compare, Malformed> {
    let key = r.bytes()?;
    let end = decode_end(r)?;
    let relation = match r.number()? {
        0 => Relation::Equal,
        1 => Relation::NotEqual,
        2 => Relation::Greater,
        3 => Relation::Less,
        _ => return Err(Malformed),
    };
    let target = match r.number()? {
        0 => Target::Version(r.signed()?),
        1 => Target::CreateRevision(r.signed()?),
        2 => Target::ModRevision(r.signed()?),
        3 => Target::Lease(r.signed()?),
        4 => Target::Value(r.bytes()?),
        _ => return Err(Malformed),
    };
    Ok(Compare { key, end, relation, target })
}

fn encode_op(op: &Op, w: &mut Writer) {
    match op {
        Op::Put(put) => {
            w.number(0);
            w.bytes(&put.key);
            w.bytes(&put.value);
            w.signed(put.lease);
            w.number(u64::from(put.prev_kv) | u64::from(put.ignore_value) << 1 | u64::from(put.ignore_lease) << 2);
        }
        Op::Delete(delete) => {
            w.number(1);
            w.bytes(&delete.key);
            encode_end(delete.end.as_ref(), w);
            w.flag(delete.prev_kv);
        }
        Op::Range(range) => {
            w.number(2);
            w.bytes(&range.key);
            encode_end(range.end.as_ref(), w);
            w.signed(range.revision);
            w.number(range.limit as u64);
            w.number(u64::from(range.keys_only) | u64::from(range.count_only) << 1);
        }
        Op::Txn(txn) => {
            w.number(3);
            encode_txn(txn, w);
        }
    }
}

fn decode_op(r: &mut Reader<'_>, depth: usize) -> Result<Op, Malformed> {
    Ok(match r.number()? {
        0 => {
            let (key, value, lease, flags) = (r.bytes()?, r.bytes()?, r.signed()?, r.number()?);
            let (prev_kv, ignore_value, ignore_lease) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            Op::Put(Put { key, value, lease, prev_kv, ignore_value, ignore_lease })
        }
        1 => Op::Delete(Delete { key: r.bytes()?, end: decode_end(r)?, prev_kv: r.flag()? }),
        2 => {
            let (key, end, revision) = (r.bytes()?, decode_end(r)?, r.signed()?);
            let (limit, flags) = (usize::try_from(r.number()?).map_err(|_| Malformed)?, r.number()?);
            let (keys_only, count_only) = (flags & 1 != 0, flags & 2 != 0);
            Op::Range(RangeRequest { key, end, revision, limit, keys_only, count_only, serializable: false })
        }
        3 if depth > 0 => Op::Txn(Box::new(decode_txn(r, depth - 1)?)),
        _ => return Err(Malformed),
    })
}

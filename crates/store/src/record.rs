//! Records of the log: entries and hard state, as they lie in a batch.
//!
//! A batch is records back to back: `kind, fields...`, each entry's command as a length-prefixed string.

use crate::command::Command;
use crate::wire::{Malformed, Reader, Writer};

/// What the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A command at its position. One that takes the position of an earlier record replaces it and all that follow it.
    Entry { index: u64, term: u64, command: Command },
    /// What a member must remember of elections: the newest term it knows, whom it voted for, and a lower bound of what
    /// is committed.
    HardState { term: u64, vote: u64, commit: u64 },
}

/// An entry around a command that is encoded already.
pub(crate) fn encode_entry(index: u64, term: u64, command: &[u8]) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(command.len() + 24));
    w.number(1);
    w.number(index);
    w.number(term);
    w.bytes(command);
    w.0
}

pub(crate) fn encode_hard_state(term: u64, vote: u64, commit: u64) -> Vec<u8> {
    let mut w = Writer::default();
    [2, term, vote, commit].into_iter().for_each(|n| w.number(n));
    w.0
}

pub(crate) fn encode_command(command: &Command) -> Vec<u8> {
    let mut w = Writer::default();
    command.encode(&mut w);
    w.0
}

/// Reads the next record. Entries at or before `skip` are not decoded: `Ok(None)`.
pub(crate) fn decode_record(r: &mut Reader<'_>, skip: u64) -> Result<Option<Record>, Malformed> {
    match r.number()? {
        1 => {
            let (index, term, body) = (r.number()?, r.number()?, r.borrowed()?);
            if index <= skip {
                return Ok(None);
            }
            let mut body = Reader(body);
            let command = Command::decode(&mut body)?;
            if body.is_empty() { Ok(Some(Record::Entry { index, term, command })) } else { Err(Malformed) }
        }
        2 => Ok(Some(Record::HardState { term: r.number()?, vote: r.number()?, commit: r.number()? })),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Compare, Delete, Op, Put, RangeRequest, Relation, Target, Txn};

    #[test]
    fn every_kind_of_record_is_read_as_it_was_written() {
        let put = Put {
            key: "k".into(),
            value: "v".into(),
            lease: 7,
            prev_kv: true,
            ignore_value: false,
            ignore_lease: true,
        };
        let range = RangeRequest {
            key: "a".into(),
            end: Some("".into()),
            revision: 3,
            limit: 5,
            keys_only: true,
            count_only: false,
            serializable: false,
        };
        let compare = |target| Compare { key: "c".into(), end: None, relation: Relation::Less, target };
        let txn = Txn {
            compares: vec![compare(Target::Value("x".into())), compare(Target::ModRevision(-1))],
            success: vec![Op::Put(put), Op::Txn(Box::new(Txn::of(Op::Range(range))))],
            failure: vec![Op::Delete(Delete { key: "d".into(), end: Some("e".into()), prev_kv: true })],
        };
        let commands = [
            Command::Nothing,
            Command::Txn(txn),
            Command::Compact { revision: 9 },
            Command::LeaseGrant { id: -1, ttl_seconds: 60 },
            Command::LeaseRevoke { id: i64::MAX },
        ];
        let mut batch = encode_hard_state(3, 4, 5);
        for (n, command) in commands.iter().enumerate() {
            batch.extend(encode_entry(n as u64 + 1, 2, &encode_command(command)));
        }
        let mut r = Reader(&batch);
        assert_eq!(decode_record(&mut r, 1), Ok(Some(Record::HardState { term: 3, vote: 4, commit: 5 })));
        assert_eq!(decode_record(&mut r, 1), Ok(None));
        for (n, command) in commands.into_iter().enumerate().skip(1) {
            assert_eq!(decode_record(&mut r, 1), Ok(Some(Record::Entry { index: n as u64 + 1, term: 2, command })));
        }
        assert!(r.is_empty());
    }
}

//! Records of the log: entries and what else a member must remember, as they lie in a batch.
//!
//! A batch is records back to back: `kind, fields...`. Every batch begins with the vitals, so that the last batch alone says
//! what they are and the segments before it may go.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType};

use crate::command::Command;
use crate::raft_log::weight;
use crate::wire::{Malformed, Reader, Writer};

/// What the log holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    /// An entry at its position. One that takes the position of an earlier one replaces it and all that follow it.
    Entry(Entry),
    /// An entry that the reader does not want: index and term.
    Skipped(u64, u64),
    Vitals(Vitals),
}

/// What a member must remember besides the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Vitals {
    /// The newest term it knows, and whom it voted for in it.
    pub(crate) term: u64,
    pub(crate) vote: u64,
    /// A lower bound of what is committed.
    pub(crate) commit: u64,
    /// How often it has been started.
    pub(crate) run: u64,
}

/// Records to be made durable together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Number under which the log reports it; ascending, or 0.
    pub(crate) ticket: u64,
    /// Index of the first entry, or where the next one would be.
    pub(crate) first_index: u64,
    pub(crate) vitals: Vitals,
    pub(crate) entries: Vec<Entry>,
}

impl Batch {
    /// What it takes in the log, in bytes; about.
    pub(crate) fn size(&self) -> usize {
        self.entries.iter().map(weight).sum()
    }

    /// The log's thread does this: the driver has more to do.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer(std::mem::take(out));
        encode_vitals(&self.vitals, &mut w);
        self.entries.iter().for_each(|entry| encode_entry(entry, &mut w));
        *out = w.0;
    }
}

fn encode_entry(entry: &Entry, w: &mut Writer) {
    w.number(1);
    w.number(entry.index);
    w.number(entry.term);
    w.flag(entry.get_entry_type() != EntryType::EntryNormal);
    w.bytes(&entry.context);
    w.bytes(&entry.data);
}

fn encode_vitals(vitals: &Vitals, w: &mut Writer) {
    [2, vitals.term, vitals.vote, vitals.commit, vitals.run].into_iter().for_each(|n| w.number(n));
}

pub(crate) fn encode_command(command: &Command) -> Vec<u8> {
    let mut w = Writer::default();
    command.encode(&mut w);
    w.0
}

/// The command that an entry carries. An empty one is what a new leader begins its term with.
pub(crate) fn decode_command(data: &[u8]) -> Result<Command, Malformed> {
    if data.is_empty() {
        return Ok(Command::Nothing);
    }
    let mut r = Reader(data);
    let command = Command::decode(&mut r)?;
    if r.is_empty() { Ok(command) } else { Err(Malformed) }
}

/// Reads the next record. Entries at or before `skip` are not copied.
pub(crate) fn decode_record(r: &mut Reader<'_>, skip: u64) -> Result<Record, Malformed> {
    match r.number()? {
        1 => {
            let (index, term, is_change) = (r.number()?, r.number()?, r.flag()?);
            let (context, data) = (r.borrowed()?, r.borrowed()?);
            if index <= skip {
                return Ok(Record::Skipped(index, term));
            }
            let (context, data) = (Bytes::copy_from_slice(context), Bytes::copy_from_slice(data));
            let mut entry = Entry { index, term, context, data, ..Entry::default() };
            if is_change {
                entry.set_entry_type(EntryType::EntryConfChange);
            }
            Ok(Record::Entry(entry))
        }
        2 => {
            let (term, vote, commit, run) = (r.number()?, r.number()?, r.number()?, r.number()?);
            Ok(Record::Vitals(Vitals { term, vote, commit, run }))
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Compare, Delete, Op, Put, RangeRequest, Relation, Target, Txn};
    use crate::peer::MemberChange;

    fn commands() -> Vec<Command> {
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
        vec![
            Command::Nothing,
            Command::Txn(txn),
            Command::Compact { revision: 9 },
            Command::LeaseGrant { id: -1, ttl_seconds: 60 },
            Command::LeaseRevoke { id: i64::MAX },
            Command::Member(MemberChange::Promote { id: 3 }),
            Command::Policy(vec![("n".into(), Some("v".into())), ("m".into(), None)]),
            Command::Judged { by: 4, command: Box::new(Command::LeaseRevoke { id: 5 }) },
        ]
    }

    #[test]
    fn every_kind_of_record_is_read_as_it_was_written() {
        let vitals = Vitals { term: 3, vote: 4, commit: 5, run: 6 };
        let entry = |n: usize, command: &Command| {
            let data = encode_command(command).into();
            let mut entry = Entry { index: n as u64 + 1, term: 2, data, context: "id".into(), ..Entry::default() };
            if matches!(command, Command::Member(_)) {
                entry.set_entry_type(EntryType::EntryConfChange);
            }
            entry
        };
        let entries = commands().iter().enumerate().map(|(n, command)| entry(n, command)).collect();
        let mut bytes = Vec::new();
        Batch { vitals, entries, ..Batch::default() }.encode(&mut bytes);
        let mut r = Reader(&bytes);
        assert_eq!(decode_record(&mut r, 1), Ok(Record::Vitals(vitals)));
        assert_eq!(decode_record(&mut r, 1), Ok(Record::Skipped(1, 2)));
        for (n, command) in commands().into_iter().enumerate().skip(1) {
            let expected = entry(n, &command);
            assert_eq!(decode_command(&expected.data), Ok(command));
            assert_eq!(decode_record(&mut r, 1), Ok(Record::Entry(expected)));
        }
        assert!(r.is_empty());
        assert_eq!(decode_command(&[]), Ok(Command::Nothing));
    }
}

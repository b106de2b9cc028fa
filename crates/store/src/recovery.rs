//! Recovery: from the files of a data directory to the state they stand for.
//!
//! The newest valid checkpoint, then the log after it. Nothing in the directory is changed until everything has been
//! verified; only then is a torn end cut off. Refused with the file and offset: damage that no crash can have caused,
//! files of another cluster or member, a log with a hole.

use std::sync::Arc;

use crate::checkpoint::{checkpoints_newest_first, read_checkpoint, remove_temporary};
use crate::command::Command;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::frame::{FileKind, HEADER_LEN, Header, Identity, find_later_frame, frame_len, read_all, read_frame};
use crate::machine::Machine;
use crate::mvcc::State;
use crate::record::{Record, decode_record};
use crate::wal::{Segment, parse_segment_name};
use crate::wire::{Malformed, Reader};

/// What was found.
pub(crate) struct Recovered {
    pub(crate) identity: Identity,
    pub(crate) machine: Machine,
    /// Newest term in the log.
    pub(crate) term: u64,
    /// Where the log goes on, and the number of the segment after it.
    pub(crate) log_end: (Option<Segment>, u64),
    /// Bytes of the log after the checkpoint.
    pub(crate) log_bytes: u64,
    pub(crate) checkpoint_index: u64,
    pub(crate) checkpoint_bytes: u64,
}

/// Reads the directory. `wanted` is the identity that the caller insists on, `fresh` that of an empty directory.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    wanted: (Option<u64>, Option<u64>),
    fresh: Identity,
) -> Result<Recovered, OpenError> {
    let names = disk.list().map_err(|source| failed("list", "the files", source))?;
    let mut owner = Owner { wanted, identity: None };
    let (loaded, damaged) = load_checkpoint(disk.as_ref(), &names, &mut owner)?;
    let (state, checkpoint_bytes) = loaded.unwrap_or_else(|| (State::new(), 0));
    let checkpoint_index = state.index;
    let mut replay = Replay { term: state.term, next: state.index + 1, entries: Vec::new() };
    let log = read_log(disk.as_ref(), &names, &mut owner, &mut replay);
    // A hole in the log behind a damaged checkpoint: the checkpoint is what the operator must hear about.
    let log = match (log, damaged) {
        (Err(OpenError::Gap { .. }), Some(damaged)) => return Err(damaged),
        (log, _) => log?,
    };
    let mut machine = Machine::new(state);
    for (index, term, command) in &replay.entries {
        // A command that was refused the first time is refused again; its answer was given long ago.
        let _: Result<_, _> = machine.apply(*index, *term, command);
    }
    while machine.clean_up(usize::MAX) {}
    remove_temporary(disk.as_ref());
    let identity = owner
        .identity
        .unwrap_or(Identity { cluster: wanted.0.unwrap_or(fresh.cluster), member: wanted.1.unwrap_or(fresh.member) });
    let log_end = log.cut(disk.as_ref())?;
    Ok(Recovered {
        identity,
        machine,
        term: replay.term,
        log_end,
        log_bytes: log.bytes,
        checkpoint_index,
        checkpoint_bytes,
    })
}

fn failed(operation: &'static str, file: &str, source: std::io::Error) -> OpenError {
    OpenError::Io { operation, file: file.to_owned(), source }
}

fn corrupt(file: &str, offset: usize, detail: &str) -> OpenError {
    OpenError::Corrupt { file: file.to_owned(), offset: offset as u64, detail: detail.to_owned() }
}

/// Whose files these are: all of the same cluster and member.
struct Owner {
    wanted: (Option<u64>, Option<u64>),
    identity: Option<Identity>,
}

impl Owner {
    fn check(&mut self, file: &str, found: Identity) -> Result<(), OpenError> {
        let cluster = self.identity.map(|id| id.cluster).or(self.wanted.0).unwrap_or(found.cluster);
        let member = self.identity.map(|id| id.member).or(self.wanted.1).unwrap_or(found.member);
        if (found.cluster, found.member) != (cluster, member) {
            let (found_cluster, found_member) = (found.cluster, found.member);
            return Err(OpenError::Foreign { file: file.to_owned(), found_cluster, found_member, cluster, member });
        }
        self.identity = Some(found);
        Ok(())
    }
}

type FoundCheckpoint = (Option<(State, u64)>, Option<OpenError>);

/// The newest valid checkpoint, and the damage of a newer one.
fn load_checkpoint(disk: &dyn Disk, names: &[String], owner: &mut Owner) -> Result<FoundCheckpoint, OpenError> {
    let mut damaged = None;
    for (_, name) in checkpoints_newest_first(names) {
        match read_checkpoint(disk, &name) {
            Ok(loaded) => {
                owner.check(&name, loaded.header.identity)?;
                return Ok((Some((loaded.state, loaded.bytes)), damaged));
            }
            Err(error @ OpenError::Corrupt { .. }) => {
                tracing::error!(%error, "a checkpoint is damaged; trying the one before and the log");
                damaged.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((None, damaged))
}

/// Entries to apply, in order.
struct Replay {
    term: u64,
    /// Index that must come next.
    next: u64,
    entries: Vec<(u64, u64, Command)>,
}

impl Replay {
    /// Takes a record; `Err` with the index that was expected if one is missing.
    fn take(&mut self, record: Record) -> Result<(), u64> {
        match record {
            Record::HardState { term, .. } => self.term = self.term.max(term),
            Record::Entry { index, term, command } => {
                if index > self.next {
                    return Err(self.next);
                }
                // An entry at a known position replaces what a deposed leader had proposed there.
                self.entries.truncate(self.entries.partition_point(|entry| entry.0 < index));
                self.entries.push((index, term, command));
                self.next = index + 1;
                self.term = self.term.max(term);
            }
        }
        Ok(())
    }
}

/// The log's files as they were read.
#[derive(Default)]
struct LogEnd {
    /// Segment, the length of its valid part, and the number of its next frame.
    last: Option<(String, Header, usize, u64)>,
    /// A segment whose creation was interrupted.
    unborn: Option<String>,
    next_segment: u64,
    bytes: u64,
}

impl LogEnd {
    /// Cuts off what a crash left behind the last valid frame.
    fn cut(&self, disk: &dyn Disk) -> Result<(Option<Segment>, u64), OpenError> {
        if let Some(name) = &self.unborn {
            disk.remove(name).map_err(|source| failed("remove", name, source))?;
            disk.sync_dir().map_err(|source| failed("sync", "the directory", source))?;
        }
        let Some((name, header, valid, next_frame)) = &self.last else { return Ok((None, self.next_segment)) };
        let mut file = disk.open(name).map_err(|source| failed("open", name, source))?;
        let len = file.size().map_err(|source| failed("read", name, source))?;
        if len > *valid as u64 {
            tracing::info!(file = name, from = valid, to = len, "cutting an incomplete write off the log");
            file.truncate(*valid as u64).map_err(|source| failed("truncate", name, source))?;
            file.sync().map_err(|source| failed("sync", name, source))?;
        }
        let (salt, len, next_frame) = (header.salt(), *valid as u64, *next_frame);
        Ok((Some(Segment { file, name: name.clone(), salt, len, next_frame }), self.next_segment))
    }
}

fn read_log(disk: &dyn Disk, names: &[String], owner: &mut Owner, replay: &mut Replay) -> Result<LogEnd, OpenError> {
    let mut segments: Vec<_> =
        names.iter().filter_map(|name| parse_segment_name(name).map(|key| (key, name))).collect();
    segments.sort();
    // Segments that the checkpoint covers may be gone in part already.
    let first = segments.iter().rposition(|((_, index), _)| *index <= replay.next).unwrap_or(0);
    let mut end =
        LogEnd { next_segment: segments.last().map_or(1, |((number, _), _)| number + 1), ..LogEnd::default() };
    let needed = &segments[first..];
    for (position, ((number, index), name)) in needed.iter().enumerate() {
        let missing = position > 0 && needed[position - 1].0.0 + 1 != *number;
        if missing || *index > replay.next {
            let (first_missing, last_missing) = (replay.next, index.saturating_sub(1));
            return Err(OpenError::Gap { file: (*name).clone(), first_missing, last_missing });
        }
        read_segment(disk, name, position + 1 == needed.len(), owner, replay, &mut end)?;
    }
    Ok(end)
}

fn read_segment(
    disk: &dyn Disk,
    name: &str,
    is_last: bool,
    owner: &mut Owner,
    replay: &mut Replay,
    end: &mut LogEnd,
) -> Result<(), OpenError> {
    let file = disk.open(name).map_err(|source| failed("open", name, source))?;
    let data = read_all(file.as_ref()).map_err(|source| failed("read", name, source))?;
    let Some(header) = Header::decode(name, &data)?.filter(|header| header.kind == FileKind::Log) else {
        // A header is durable before the first frame is written: a short file without one was never used.
        if is_last && data.len() <= HEADER_LEN {
            end.unborn = Some(name.to_owned());
            // Its number is taken again: numbers have no gaps.
            end.next_segment -= 1;
            return Ok(());
        }
        return Err(corrupt(name, 0, "no valid header"));
    };
    owner.check(name, header.identity)?;
    let (mut at, mut number) = (HEADER_LEN, 0);
    while at < data.len() {
        match read_frame(&data[at..], header.salt()) {
            Ok((found, payload)) if found == number + 1 => {
                replay_batch(name, at, payload, replay)?;
                at += frame_len(payload);
                number = found;
            }
            Ok(_) => return Err(corrupt(name, at, "a batch is missing")),
            Err(detail) => {
                if !is_last {
                    return Err(corrupt(name, at, detail));
                }
                if let Some(later) = find_later_frame(&data[at..], header.salt(), number) {
                    let detail = format!("{detail}, but a later batch at offset {} is intact", at + later);
                    return Err(corrupt(name, at, &detail));
                }
                break;
            }
        }
    }
    end.bytes += at as u64;
    end.last = Some((name.to_owned(), header, at, number + 1));
    Ok(())
}

fn replay_batch(name: &str, at: usize, payload: &[u8], replay: &mut Replay) -> Result<(), OpenError> {
    let mut r = Reader(payload);
    // Entries that the checkpoint contains are skipped unread.
    let skip = replay.entries.first().map_or(replay.next, |first| first.0) - 1;
    while !r.is_empty() {
        match decode_record(&mut r, skip) {
            Ok(Some(record)) => {
                replay.take(record).map_err(|missing| corrupt(name, at, &format!("entry {missing} is missing")))?
            }
            Ok(None) => {}
            Err(Malformed) => return Err(corrupt(name, at, "the content makes no sense")),
        }
    }
    Ok(())
}

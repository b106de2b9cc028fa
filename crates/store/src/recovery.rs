//! Recovery: from the files of a data directory to the state they stand for.
//!
//! The newest valid checkpoint and the log after it; what of that is committed is applied by the driver. Nothing in the directory is changed until everything has been
//! verified; only then is a torn end cut off. Refused with the file and offset: damage that no crash can have caused,
//! files of another cluster or member, a log with a hole.

use std::sync::Arc;

use raft::eraftpb::Entry;

use crate::checkpoint::{Job, checkpoints_newest_first, read_checkpoint, remove_temporary, write_checkpoint};
use crate::config::Config;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::frame::{FileKind, HEADER_LEN, Header, Identity, find_later_frame, frame_len, read_all, read_frame};
use crate::member::conf_change_of;
use crate::mvcc::State;
use crate::peer::MemberInfo;
use crate::record::{Record, Vitals, decode_record};
use crate::wal::{Segment, parse_segment_name};
use crate::wire::{Malformed, Reader};

/// What was found.
pub(crate) struct Recovered {
    pub(crate) identity: Identity,
    /// As of the checkpoint.
    pub(crate) state: State,
    /// The log after it.
    pub(crate) entries: Vec<Entry>,
    /// As they were written last; `commit` is what is known to be committed, within the log.
    pub(crate) vitals: Vitals,
    /// Where the log goes on, and the number of the segment after it.
    pub(crate) log_end: (Option<Segment>, u64),
    /// Bytes of the log after the checkpoint.
    pub(crate) log_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
}

/// Reads the directory, and founds a cluster in an empty one. `fresh` is the identity of an empty directory, as far as the
/// settings name none.
pub(crate) fn recover(disk: &Arc<dyn Disk>, config: &Config, fresh: Identity) -> Result<Recovered, OpenError> {
    let names = disk.list().map_err(|source| failed("list", "the files", source))?;
    let wanted = (config.cluster_id, config.member_id);
    let mut owner = Owner { wanted, identity: None };
    let (loaded, damaged) = load_checkpoint(disk.as_ref(), &names, &mut owner)?;
    let (state, checkpoint_bytes) = loaded.unwrap_or_else(|| (State::new(), 0));
    let mut replay = Replay::new(state.index);
    let log = read_log(disk.as_ref(), &names, &mut owner, &mut replay);
    // A hole in the log behind a damaged checkpoint: the checkpoint is what the operator must hear about.
    let log = match (log, damaged) {
        (Err(OpenError::Gap { .. }), Some(damaged)) => return Err(damaged),
        (log, _) => log?,
    };
    remove_temporary(disk.as_ref(), &names);
    let identity = owner
        .identity
        .unwrap_or(Identity { cluster: wanted.0.unwrap_or(fresh.cluster), member: wanted.1.unwrap_or(fresh.member) });
    let mut log_end = log.cut(disk.as_ref())?;
    let diverged = replay.term_at_checkpoint.is_some_and(|term| term != state.term);
    if diverged {
        // The checkpoint came from a leader because this log had gone another way: it goes on in a segment of its own.
        replay.entries.clear();
        log_end.0 = None;
    }
    let (entries, mut vitals) = (replay.entries, replay.vitals);
    vitals.term = entries.last().map_or(state.term, |entry| entry.term).max(vitals.term);
    let mut recovered = Recovered { identity, state, entries, vitals, log_end, log_bytes: log.bytes, checkpoint_bytes };
    if recovered.state.index == 0 && log.last.is_none() && !config.joining {
        found(disk.as_ref(), config, &mut recovered)?;
    }
    recovered.vitals.commit = committed(&recovered);
    Ok(recovered)
}

/// Makes the first state of a new cluster durable: it is the same on all its members.
fn found(disk: &dyn Disk, config: &Config, recovered: &mut Recovered) -> Result<(), OpenError> {
    let myself = [MemberInfo { id: recovered.identity.member, ..MemberInfo::default() }];
    let members = if config.initial_members.is_empty() { &myself[..] } else { &config.initial_members };
    let state = State::founded(members);
    recovered.state = state.clone();
    recovered.vitals.term = state.term;
    recovered.checkpoint_bytes = write_checkpoint(disk, recovered.identity, &Job { state, kept: 1 })
        .map_err(|source| failed("write", "the first checkpoint", source))?;
    Ok(())
}

/// How far the log is committed for sure. Where nobody else votes, everything that is on this disk is. So is the entry that takes
/// out the other one of two voters: nothing is committed without this member, and whoever was told of it is gone and
/// elects nobody.
fn committed(recovered: &Recovered) -> u64 {
    let me = recovered.identity.member;
    let last = recovered.entries.last().map_or(recovered.state.index, |entry| entry.index);
    let known = recovered.vitals.commit.clamp(recovered.state.index, last);
    let mut cluster = recovered.state.cluster.clone();
    let mut committed = known;
    for entry in &recovered.entries {
        let mut is_certain = entry.index <= known || cluster.is_sole_voter(me);
        if let Some(change) = conf_change_of(entry) {
            let were_two = cluster.voters().len() == 2;
            // One that was refused is refused again.
            cluster.apply(&change).ok();
            is_certain |= were_two && cluster.is_sole_voter(me);
            if !is_certain {
                break;
            }
        }
        if is_certain {
            committed = committed.max(entry.index);
        }
    }
    committed
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

/// The log after the checkpoint, as it is put together.
struct Replay {
    /// Index of the checkpoint.
    skip: u64,
    vitals: Vitals,
    /// Index that must come next.
    next: u64,
    entries: Vec<Entry>,
    /// Term of the log's entry at the checkpoint, if the log reaches back so far.
    term_at_checkpoint: Option<u64>,
}

impl Replay {
    fn new(skip: u64) -> Self {
        Self { skip, vitals: Vitals::default(), next: skip + 1, entries: Vec::new(), term_at_checkpoint: None }
    }

    /// Takes a record; `Err` with the index that was expected if one is missing.
    fn take(&mut self, record: Record) -> Result<(), u64> {
        match record {
            Record::Vitals(vitals) => self.vitals = vitals,
            Record::Skipped(index, term) => {
                // What was behind it was replaced with it.
                self.entries.clear();
                self.next = self.skip + 1;
                if index == self.skip {
                    self.term_at_checkpoint = Some(term);
                }
            }
            Record::Entry(entry) => {
                if entry.index > self.next {
                    return Err(self.next);
                }
                // An entry at a known position replaces what a deposed leader had proposed there.
                self.entries.truncate(self.entries.partition_point(|known| known.index < entry.index));
                self.next = entry.index + 1;
                self.entries.push(entry);
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
    next_segment: u64,
    bytes: u64,
}

impl LogEnd {
    /// Cuts off what a crash left behind the last valid frame.
    fn cut(&self, disk: &dyn Disk) -> Result<(Option<Segment>, u64), OpenError> {
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
    if needed.len() == 1 && first > 0 {
        // The last segment may hold nothing yet: then the vitals are in the one before, whose entries are not needed.
        let mut vitals = Replay::new(u64::MAX - 1);
        read_segment(disk, segments[first - 1].1, false, owner, &mut vitals, &mut LogEnd::default())?;
        replay.vitals = vitals.vitals;
    }
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
    let header = Header::decode(name, &data)?.filter(|header| header.kind == FileKind::Log);
    let header = header.ok_or_else(|| corrupt(name, 0, "no valid header"))?;
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
    while !r.is_empty() {
        match decode_record(&mut r, replay.skip) {
            Ok(record) => {
                replay.take(record).map_err(|missing| corrupt(name, at, &format!("entry {missing} is missing")))?
            }
            Err(Malformed) => return Err(corrupt(name, at, "the content makes no sense")),
        }
    }
    Ok(())
}

//! Checkpoints: the whole state as of one log index, in one file.
//!
//! Written from an immutable [`State`] to a temporary file, synced, renamed, and the directory synced: a checkpoint that has
//! its name is whole. Content: the keys as of the compaction, then every later revision in order, so that history and
//! watches survive a restart. The last frame repeats the counts, so that a shortened file is noticed.
//!
//! The newest two checkpoints are kept, and the log from the older one on: if the newest turns out to be damaged, nothing is
//! lost. Only on a full disk is one enough. Reading streams; it never holds a second copy of the data.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::frame::{FileKind, HEADER_LEN, Header, Identity, read_frame, write_frame};
use crate::kv::KeyValue;
use crate::machine::Rebuild;
use crate::membership::Cluster;
use crate::mvcc::State;
use crate::policy::Policy;
use crate::wal::obsolete_segments;
use crate::watch::{Event, EventKind};
use crate::wire::{Malformed, Reader, Writer};

const TEMPORARY: &str = "checkpoint.tmp";
/// A frame is closed when it has reached this size.
const FRAME_BYTES: usize = 256 << 10;
/// The file is synced every so many frames (4 MiB): one large flush at the end would hold up the log's syncs.
const SYNC_FRAMES: u64 = 16;
/// No frame is longer: one revision of the largest transaction and more.
const FRAME_BYTES_MAX: usize = 256 << 20;

const META: u64 = 1;
const BASE: u64 = 2;
const REVISION: u64 = 3;
const END: u64 = 4;
const POLICY: u64 = 5;

/// A checkpoint to be written.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) state: State,
    /// So many checkpoints are kept afterwards, this one included.
    pub(crate) kept: usize,
}

/// Writes the state and removes what it makes superfluous. Returns the size of the file.
pub(crate) fn write_checkpoint(disk: &dyn Disk, identity: Identity, job: &Job) -> io::Result<u64> {
    let state = &job.state;
    let result = disk.create(TEMPORARY).and_then(|file| write_state(file, identity, state)).and_then(|bytes| {
        disk.rename(TEMPORARY, &checkpoint_name(state.index))?;
        disk.sync_dir()?;
        Ok(bytes)
    });
    if result.is_err() {
        remove_if_there(disk, TEMPORARY);
    }
    let bytes = result?;
    remove_superfluous(disk, job.kept)?;
    Ok(bytes)
}

/// Where a state goes: a file, or a stream that cannot be synced.
trait Sink {
    fn append(&mut self, data: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for Box<dyn DiskFile> {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.as_mut().append(data)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.as_mut().sync()
    }
}

impl Sink for &mut dyn io::Write {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.write_all(data)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// Writes the whole of `state` to `file`, in order, and syncs it. Returns the number of bytes.
fn write_state(mut file: Box<dyn DiskFile>, identity: Identity, state: &State) -> io::Result<u64> {
    write(&mut file, identity, state)
}

/// Writes the whole of `state` to a stream. Returns the number of bytes.
pub(crate) fn write_state_to(mut out: &mut dyn io::Write, identity: Identity, state: &State) -> io::Result<u64> {
    write(&mut out, identity, state)
}

fn write(sink: &mut dyn Sink, identity: Identity, state: &State) -> io::Result<u64> {
    let header = Header { kind: FileKind::Checkpoint, identity, segment: 0, index: state.index };
    sink.append(&header.encode())?;
    let mut out =
        Output { sink, salt: header.salt(), number: 0, bytes: HEADER_LEN as u64, w: Writer::default(), records: 0 };
    let w = &mut out.w;
    w.number(META);
    w.number(state.term);
    w.signed(state.compact_revision);
    w.number(state.leases.len() as u64);
    for (id, ttl) in &state.leases {
        w.signed(*id);
        w.signed(*ttl);
    }
    state.cluster.encode(w);
    if state.policy.revision > 0 {
        w.number(POLICY);
        state.policy.encode(w);
        out.record()?;
    }
    let mut failure = Ok(());
    state.each_at(state.compact_revision, |kv| {
        if failure.is_ok() {
            out.w.number(BASE);
            encode_base(kv, &mut out.w);
            failure = out.record();
        }
    });
    failure?;
    for revision in state.log_start()..=state.revision {
        let Some(events) = state.events_of(revision) else { continue };
        out.w.number(REVISION);
        out.w.signed(revision);
        out.w.number(events.len() as u64);
        events.iter().for_each(|event| encode_change(event, revision > state.compact_revision, &mut out.w));
        out.record()?;
    }
    out.finish(state.revision)
}

struct Output<'a> {
    sink: &'a mut dyn Sink,
    salt: u32,
    number: u64,
    bytes: u64,
    w: Writer,
    records: u64,
}

impl Output<'_> {
    fn record(&mut self) -> io::Result<()> {
        self.records += 1;
        if self.w.0.len() < FRAME_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.number += 1;
        let payload = std::mem::take(&mut self.w.0);
        let mut frame = Vec::with_capacity(payload.len() + 32);
        write_frame(&mut frame, self.salt, self.number, |out| out.extend_from_slice(&payload));
        self.bytes += frame.len() as u64;
        self.sink.append(&frame)?;
        if self.number.is_multiple_of(SYNC_FRAMES) { self.sink.sync() } else { Ok(()) }
    }

    fn finish(mut self, revision: i64) -> io::Result<u64> {
        self.w.number(END);
        self.w.signed(revision);
        self.w.number(self.records);
        self.flush()?;
        self.sink.sync()?;
        Ok(self.bytes)
    }
}

fn encode_base(kv: &KeyValue, w: &mut Writer) {
    w.bytes(&kv.key);
    w.bytes(&kv.value);
    [kv.create_revision, kv.mod_revision, kv.version, kv.lease].into_iter().for_each(|n| w.signed(n));
}

/// Of the compaction revision, whose values are in the base, only the keys are written.
fn encode_change(event: &Event, with_value: bool, w: &mut Writer) {
    w.flag(event.kind == EventKind::Put);
    w.bytes(&event.kv.key);
    if event.kind == EventKind::Put {
        w.bytes(if with_value { &event.kv.value } else { &[] });
        w.signed(event.kv.lease);
    }
}

/// Removes all but the newest checkpoints, and the log that only they needed.
fn remove_superfluous(disk: &dyn Disk, kept: usize) -> io::Result<()> {
    let names = disk.list()?;
    let checkpoints = checkpoints_newest_first(&names);
    // Until there are so many, the log alone is the other way to the same state.
    let log_from = checkpoints.get(kept.max(1) - 1).map_or(0, |(index, _)| *index);
    for name in obsolete_segments(&names, log_from) {
        disk.remove(&name)?;
    }
    for (_, name) in checkpoints.iter().skip(kept.max(1)) {
        disk.remove(name)?;
    }
    Ok(())
}

/// Index and name of all checkpoints.
pub(crate) fn checkpoints_newest_first(names: &[String]) -> Vec<(u64, String)> {
    let parse = |name: &String| {
        let index = name.strip_prefix("checkpoint-").filter(|index| index.len() == 16)?;
        Some((u64::from_str_radix(index, 16).ok()?, name.clone()))
    };
    let mut found: Vec<_> = names.iter().filter_map(parse).collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// Copies what `content` holds into `file`, syncs it and reads it back. Nothing is kept of a bad checkpoint.
pub(crate) fn store_checkpoint(disk: &dyn Disk, file: &str, content: &mut dyn io::Read) -> Result<Loaded, OpenError> {
    let failed = |source| OpenError::Io { operation: "write", file: file.to_owned(), source };
    let mut copy = || {
        let mut out = disk.create(file)?;
        let mut buffer = vec![0; FRAME_BYTES];
        for piece in 1u64.. {
            match content.read(&mut buffer)? {
                0 => break,
                got => out.append(&buffer[..got])?,
            }
            if piece.is_multiple_of(SYNC_FRAMES) {
                out.sync()?;
            }
        }
        out.sync()
    };
    let stored = copy().map_err(failed).and_then(|()| read_checkpoint(disk, file));
    if stored.is_err() {
        remove_if_there(disk, file);
    }
    stored
}

/// Gives a checkpoint that is stored under another name its own, durably; it may have it already.
pub(crate) fn adopt_checkpoint(disk: &dyn Disk, file: &str, index: u64) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { operation: "rename", file: file.to_owned(), source };
    match disk.rename(file, &checkpoint_name(index)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(failed)?,
    }
    disk.sync_dir().map_err(failed)
}

/// Name under which a snapshot that a leader sends is stored until it is adopted.
pub(crate) fn incoming_name(number: u64) -> String {
    format!("incoming-{number:016x}.tmp")
}

fn checkpoint_name(index: u64) -> String {
    format!("checkpoint-{index:016x}")
}

/// Removes what interrupted attempts left.
pub(crate) fn remove_temporary(disk: &dyn Disk, names: &[String]) {
    names.iter().filter(|name| name.ends_with(".tmp")).for_each(|name| remove_if_there(disk, name));
}

pub(crate) fn remove_if_there(disk: &dyn Disk, name: &str) {
    if let Err(error) = disk.remove(name)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = name, "cannot remove an unfinished checkpoint; it does no harm");
    }
}

/// A checkpoint that was read.
pub(crate) struct Loaded {
    pub(crate) header: Header,
    pub(crate) state: State,
    pub(crate) bytes: u64,
}

/// Reads a checkpoint. `Corrupt` says where it is damaged.
pub(crate) fn read_checkpoint(disk: &dyn Disk, name: &str) -> Result<Loaded, OpenError> {
    let failed = |source| OpenError::Io { operation: "read", file: name.to_owned(), source };
    let file = disk.open(name).map_err(failed)?;
    let bytes = file.size().map_err(failed)?;
    let mut head = vec![0; HEADER_LEN];
    let got = file.read_at(0, &mut head).map_err(failed)?;
    let header = Header::decode(name, &head[..got])?.filter(|header| header.kind == FileKind::Checkpoint);
    let header = header.ok_or_else(|| corrupt(name, 0, "no valid header"))?;
    let mut input = Input { file, name, salt: header.salt(), at: HEADER_LEN as u64, number: 0 };
    let mut loader = Loader { rebuild: None, term: 0, records: 0, ended: false };
    while let Some((at, payload)) = input.next_frame()? {
        let mut r = Reader(&payload);
        while !r.is_empty() {
            loader.record(&mut r).map_err(|Malformed| corrupt(name, at, "the content makes no sense"))?;
        }
    }
    match loader {
        Loader { rebuild: Some(rebuild), ended: true, term, .. } => {
            Ok(Loaded { header, state: rebuild.finish(header.index, term), bytes })
        }
        _ => Err(corrupt(name, input.at, "the end is missing")),
    }
}

fn corrupt(name: &str, offset: u64, detail: &str) -> OpenError {
    OpenError::Corrupt { file: name.to_owned(), offset, detail: detail.to_owned() }
}

struct Input<'a> {
    file: Box<dyn DiskFile>,
    name: &'a str,
    salt: u32,
    at: u64,
    number: u64,
}

impl Input<'_> {
    /// The next frame's offset and payload; `None` at the end of the file.
    fn next_frame(&mut self) -> Result<Option<(u64, Vec<u8>)>, OpenError> {
        const HEAD: usize = 20;
        let failed = |source| OpenError::Io { operation: "read", file: self.name.to_owned(), source };
        let mut frame = vec![0; HEAD];
        let got = self.file.read_at(self.at, &mut frame).map_err(failed)?;
        if got == 0 {
            return Ok(None);
        }
        let len = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
        if got < HEAD || len > FRAME_BYTES_MAX {
            return Err(corrupt(self.name, self.at, "incomplete frame"));
        }
        frame.resize(HEAD + len, 0);
        let got = self.file.read_at(self.at + HEAD as u64, &mut frame[HEAD..]).map_err(failed)?;
        frame.truncate(HEAD + got);
        let at = self.at;
        match read_frame(&frame, self.salt) {
            Ok((number, _)) if number == self.number + 1 => {}
            Ok(_) => return Err(corrupt(self.name, at, "a frame is missing")),
            Err(detail) => return Err(corrupt(self.name, at, detail)),
        }
        self.number += 1;
        self.at += frame.len() as u64;
        frame.drain(..HEAD);
        Ok(Some((at, frame)))
    }
}

struct Loader {
    rebuild: Option<Rebuild>,
    term: u64,
    records: u64,
    ended: bool,
}

impl Loader {
    fn record(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        if self.ended {
            return Err(Malformed);
        }
        let kind = r.number()?;
        if kind == META {
            self.term = r.number()?;
            let compact_revision = r.signed()?;
            let leases: OrdMap<i64, i64> = r.list(|r| Ok((r.signed()?, r.signed()?)))?.into_iter().collect();
            self.rebuild = Some(Rebuild::new(compact_revision, leases, Cluster::decode(r)?));
            return Ok(());
        }
        let rebuild = self.rebuild.as_mut().ok_or(Malformed)?;
        match kind {
            POLICY => rebuild.policy(Policy::decode(r)?),
            BASE => rebuild.base(Arc::new(decode_base(r)?)),
            REVISION => {
                let revision = r.signed()?;
                let changes = r.list(decode_change)?;
                if changes.is_empty() {
                    return Err(Malformed);
                }
                if revision == rebuild.current_revision() {
                    rebuild.first_events(changes, revision);
                } else if revision == rebuild.current_revision() + 1 {
                    rebuild.revision(changes);
                } else {
                    return Err(Malformed);
                }
            }
            END => {
                let (revision, records) = (r.signed()?, r.number()?);
                self.ended = true;
                let complete = revision == rebuild.current_revision() && records == self.records;
                return if complete { Ok(()) } else { Err(Malformed) };
            }
            _ => return Err(Malformed),
        }
        self.records += 1;
        Ok(())
    }
}

fn decode_base(r: &mut Reader<'_>) -> Result<KeyValue, Malformed> {
    let (key, value) = (r.bytes()?, r.bytes()?);
    let (create_revision, mod_revision, version, lease) = (r.signed()?, r.signed()?, r.signed()?, r.signed()?);
    Ok(KeyValue { key, value, create_revision, mod_revision, version, lease })
}

/// A put has version 1 here, a delete 0; the rest follows from the state.
fn decode_change(r: &mut Reader<'_>) -> Result<KeyValue, Malformed> {
    let is_put = r.flag()?;
    let key = r.bytes()?;
    let (value, lease) = if is_put { (r.bytes()?, r.signed()?) } else { (Bytes::new(), 0) };
    Ok(KeyValue { key, value, lease, version: i64::from(is_put), ..KeyValue::default() })
}

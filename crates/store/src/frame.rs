//! Frames: how bytes lie in a file so that damage is noticed and a torn end can be told from corruption.
//!
//! A file is a header of [`HEADER_LEN`] bytes, which says what the file is and whose, and frames that follow each other.
//! A frame is `magic u32 | length u32 | number u64 | crc32 u32 | payload` (little endian). The checksum covers length,
//! number and payload and starts from the header's checksum, so that a frame of another file never fits. Numbers are
//! consecutive from 1.
//!
//! One frame is written and synced before the next is begun. Therefore a bad frame that is followed by a good one with a
//! higher number was durable once: that is corruption. A bad frame with nothing good behind it is a torn end.

use std::io;

use crate::disk::DiskFile;
use crate::error::OpenError;

pub(crate) const HEADER_LEN: usize = 64;
const FRAME_HEADER_LEN: usize = 20;
const MAGIC: [u8; 4] = *b"\xf5HF\x0a";
const FILE_MAGIC: [u8; 8] = *b"Holdfast";
/// Format of the files that this version writes.
const VERSION: u32 = 2;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
}

/// What a file is; also part of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Log = 1,
    Checkpoint = 2,
}

/// The first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    pub(crate) identity: Identity,
    /// Log: number of the segment. Checkpoint: 0.
    pub(crate) segment: u64,
    /// Log: index of the first entry. Checkpoint: index of the last entry contained.
    pub(crate) index: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&FILE_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        for (slot, number) in [self.identity.cluster, self.identity.member, self.segment, self.index].iter().enumerate()
        {
            out[16 + slot * 8..24 + slot * 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..HEADER_LEN - 4]);
        out[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// What later frames' checksums start from.
    pub(crate) fn salt(&self) -> u32 {
        crc32fast::hash(&self.encode())
    }

    /// Reads the header of `file`; `Ok(None)` if there is no whole and correct one.
    pub(crate) fn decode(name: &str, data: &[u8]) -> Result<Option<Self>, OpenError> {
        let Some(data) = data.get(..HEADER_LEN) else { return Ok(None) };
        let u64_at = |at: usize| data[at..at + 8].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let u32_at = |at: usize| data[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte));
        if data[..8] != FILE_MAGIC || crc32fast::hash(&data[..HEADER_LEN - 4]) != u32_at(HEADER_LEN - 4) {
            return Ok(None);
        }
        let found = u32_at(8);
        if found != VERSION {
            return Err(OpenError::Version { file: name.to_owned(), found, supported: VERSION });
        }
        let kind = match u32_at(12) {
            1 => FileKind::Log,
            2 => FileKind::Checkpoint,
            _ => return Ok(None),
        };
        let identity = Identity { cluster: u64_at(16), member: u64_at(24) };
        Ok(Some(Self { kind, identity, segment: u64_at(32), index: u64_at(40) }))
    }
}

/// Builds a frame around what `fill` appends. Returns the frame's length.
pub(crate) fn write_frame(out: &mut Vec<u8>, salt: u32, number: u64, fill: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; FRAME_HEADER_LEN - 4]);
    fill(out);
    let len = (out.len() - start - FRAME_HEADER_LEN) as u32;
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
    out[start + 8..start + 16].copy_from_slice(&number.to_le_bytes());
    let crc = checksum(salt, &out[start + 4..start + 16], &out[start + FRAME_HEADER_LEN..]);
    out[start + 16..start + 20].copy_from_slice(&crc.to_le_bytes());
    out.len() - start
}

fn checksum(salt: u32, head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// The frame at the start of `data`: its number and payload, or why there is none.
pub(crate) fn read_frame(data: &[u8], salt: u32) -> Result<(u64, &[u8]), &'static str> {
    let head = data.get(..FRAME_HEADER_LEN).ok_or("incomplete frame header")?;
    if head[..4] != MAGIC {
        return Err("no frame begins here");
    }
    let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let payload = data.get(FRAME_HEADER_LEN..).and_then(|rest| rest.get(..len)).ok_or("incomplete frame")?;
    let crc = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    if checksum(salt, &head[4..16], payload) != crc {
        return Err("checksum mismatch");
    }
    let number = head[8..16].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    Ok((number, payload))
}

/// Length of a frame with this payload.
pub(crate) fn frame_len(payload: &[u8]) -> usize {
    FRAME_HEADER_LEN + payload.len()
}

/// Where in `data` a good frame with a number above `number` begins, if there is one.
pub(crate) fn find_later_frame(data: &[u8], salt: u32, number: u64) -> Option<usize> {
    let mut at = 0;
    while let Some(offset) = data.get(at..)?.windows(MAGIC.len()).position(|window| window == MAGIC) {
        at += offset;
        if read_frame(&data[at..], salt).is_ok_and(|(found, _)| found > number) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// The whole content of a file.
pub(crate) fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut data = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    let n = file.read_at(0, &mut data)?;
    data.truncate(n);
    Ok(data)
}

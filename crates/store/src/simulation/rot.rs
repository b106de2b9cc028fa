//! Damage: bits that are not what was written, on a disk and in a snapshot under way.

use std::ops::Range;

use base::Rng;

use crate::checkpoint::checkpoints_newest_first;
use crate::disk::Disk;
use crate::frame::{HEADER_LEN, Header, frame_len, read_frame, write_frame};
use crate::sim_disk::SimDisk;
use crate::wal::parse_segment_name;

/// Flips a bit of what the disk has confirmed: in the log or in a checkpoint, but not in the log's last batch, where damage can't
/// be told from a torn write. `unnoticed`: the checksum is made to fit.
pub(super) fn damage(disk: &SimDisk, rng: &mut dyn Rng, unnoticed: bool) {
    let names = disk.list().unwrap_or_default();
    let newest_segment = names.iter().max_by_key(|name| parse_segment_name(name));
    let checkpoints = checkpoints_newest_first(&names).into_iter().map(|(_, name)| name);
    let segments = names.iter().filter(|name| parse_segment_name(name).is_some()).cloned();
    let files: Vec<String> = checkpoints.chain(segments).collect();
    let Some(name) = files.get(rng.below(files.len() as u64) as usize) else { return };
    let Some(content) = disk.content(name) else { return };
    let Ok(Some(header)) = Header::decode(name, &content) else { return };
    let mut frames = frames(&content, header.salt());
    if Some(name) == newest_segment {
        frames.pop();
    }
    let Some(frame) = frames.get(rng.below(frames.len() as u64) as usize) else { return };
    let bit = rng.below(8) as u8;
    if unnoticed {
        let Ok((number, payload)) = read_frame(&content[frame.clone()], header.salt()) else { return };
        let mut payload = payload.to_vec();
        flip(&mut payload, rng);
        let mut fitting = Vec::new();
        write_frame(&mut fitting, header.salt(), number, |out| out.extend_from_slice(&payload));
        disk.edit(name, |data| data[frame.clone()].copy_from_slice(&fitting));
    } else {
        // The header counts as a part of the first frame.
        let start = if frame.start == HEADER_LEN { 0 } else { frame.start };
        disk.flip_bit(name, start + rng.below((frame.end - start) as u64) as usize, bit);
    }
}

/// A body that arrives damaged, or ends too early.
pub(super) fn spoil(body: &mut Vec<u8>, rng: &mut dyn Rng) {
    if rng.below(2) == 0 {
        body.truncate(rng.below(body.len() as u64) as usize);
    } else {
        flip(body, rng);
    }
}

fn flip(data: &mut [u8], rng: &mut dyn Rng) {
    let at = rng.below(data.len() as u64) as usize;
    if let Some(byte) = data.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

/// Where the whole frames of a file are.
fn frames(content: &[u8], salt: u32) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = HEADER_LEN;
    while let Some(Ok((_, payload))) = content.get(at..).map(|rest| read_frame(rest, salt)) {
        found.push(at..at + frame_len(payload));
        at += frame_len(payload);
    }
    found
}

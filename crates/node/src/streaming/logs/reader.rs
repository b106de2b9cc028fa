//! Reading a log file forward from where the options say.
//!
//! In: a file and options. Out: chunks of text, each of whole entries, at most about 64 KiB.
//!
//! Invariant: an entry is handed out once it is complete in the file; what is still being written waits for its newline.
//! A file that does not exist yet is an empty one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;

use super::{LogOptions, LogStream, inode, line};

const BLOCK: usize = 64 * 1024;
/// A runtime splits lines at 16 KiB; an entry longer than this is no entry and is skipped.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// See the module.
pub struct LogReader {
    file: Option<File>,
    /// Device and inode of `file`.
    identity: Option<(u64, u64)>,
    timestamps: bool,
    since: Option<Timestamp>,
    stream: Option<LogStream>,
    /// Bytes that may still be handed out.
    left: Option<u64>,
    /// Read, but without its newline yet.
    pending: Vec<u8>,
    /// The last entry handed out was a piece, so the next continues its line.
    within_line: bool,
}

impl LogReader {
    pub fn open(path: &Path, options: &LogOptions) -> io::Result<Self> {
        let mut reader = Self {
            file: None,
            identity: None,
            timestamps: options.timestamps,
            since: options.since,
            stream: options.stream,
            left: options.limit_bytes,
            pending: Vec::new(),
            within_line: false,
        };
        reader.open_file(path)?;
        if let (Some(file), Some(lines)) = (&mut reader.file, options.tail_lines) {
            let start = find_tail(file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(reader)
    }

    fn open_file(&mut self, path: &Path) -> io::Result<()> {
        self.file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.identity = match &self.file {
            Some(file) => {
                use std::os::unix::fs::MetadataExt;
                let metadata = file.metadata()?;
                Some((metadata.dev(), metadata.ino()))
            }
            None => None,
        };
        Ok(())
    }

    /// All that was asked for has been handed out.
    pub fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// The next text; `None` at the present end of the file.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let mut block = vec![0; BLOCK];
        while !self.is_done() {
            let Some(file) = &mut self.file else { return Ok(None) };
            let length = file.read(&mut block)?;
            if length == 0 {
                return Ok(None);
            }
            self.pending.extend_from_slice(block.get(..length).unwrap_or_default());
            let text = self.take_entries();
            if !text.is_empty() {
                return Ok(Some(text.into()));
            }
        }
        Ok(None)
    }

    /// Goes on with the file that is now at `path`, if it is another one. The old one must have been read to its end.
    pub fn reopen_if_rotated(&mut self, path: &Path) -> io::Result<bool> {
        let now = inode(path)?;
        if now.is_none() || now == self.identity {
            return Ok(false);
        }
        // The last bytes may have come after the last read.
        if self.file.as_mut().is_some_and(|file| has_more(file).unwrap_or(false)) {
            return Ok(true);
        }
        self.pending.clear();
        self.open_file(path)?;
        Ok(true)
    }

    /// The complete entries in `pending` as text.
    fn take_entries(&mut self) -> Vec<u8> {
        let pending = std::mem::take(&mut self.pending);
        let mut out = Vec::with_capacity(pending.len());
        let mut rest = pending.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (entry, tail) = rest.split_at(end);
            rest = tail.get(1..).unwrap_or_default();
            self.append(entry, &mut out);
        }
        if rest.len() <= ENTRY_BYTES_MAX {
            self.pending = rest.to_vec();
        }
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
            out.truncate(allowed);
            *left -= allowed as u64;
        }
        out
    }

    fn append(&mut self, entry: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = line::parse(entry) else { return };
        let stream = if entry.stderr { LogStream::Stderr } else { LogStream::Stdout };
        if self.stream.is_some_and(|wanted| wanted != stream) || !self.is_wanted(entry.time) {
            return;
        }
        if self.timestamps && !self.within_line {
            out.extend_from_slice(entry.time);
            out.push(b' ');
        }
        out.extend_from_slice(entry.text);
        self.within_line = entry.partial;
        if !entry.partial {
            out.push(b'\n');
        }
    }

    /// From the first entry that is late enough on, all are.
    fn is_wanted(&mut self, time: &[u8]) -> bool {
        let Some(since) = self.since else { return true };
        let parsed = std::str::from_utf8(time).ok().and_then(|text| text.parse::<Timestamp>().ok());
        let wanted = parsed.is_some_and(|time| time >= since);
        if wanted {
            self.since = None;
        }
        wanted
    }
}

fn has_more(file: &mut File) -> io::Result<bool> {
    let position = file.stream_position()?;
    Ok(file.metadata()?.len() > position)
}

/// Where the last `lines` lines of the file begin. A last line without newline counts.
fn find_tail(file: &File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut block = vec![0; BLOCK];
    let mut end = length;
    let mut seen = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = block.get_mut(..(end - start) as usize).unwrap_or_default();
        file.read_exact_at(part, start)?;
        for (index, byte) in part.iter().enumerate().rev() {
            let position = start + index as u64;
            // The newline at the very end closes the last line; it begins none.
            if *byte == b'\n' && position + 1 < length {
                seen += 1;
                if seen == lines {
                    return Ok(position + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

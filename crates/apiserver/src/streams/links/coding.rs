//! A page in the coding in which it travels: bytes as they come -> plain HTML -> rewritten -> bytes in the same coding.
//!
//! Input: pieces of a body, cut anywhere. Output: what can be sent on at once, flushed, so that a slow page shows as it comes.
//! A body that is broken or ends early is an error. `deflate` is read with and without zlib's frame, since servers send both.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderValue;

use super::html::Rewriter;

/// Largest window there is: 32 KiB.
const WINDOW_BITS: u8 = 15;
/// Inflated bytes that are rewritten at a time.
const PLAIN_BYTES: usize = 32 << 10;
/// Room for compressed bytes, at the least.
const ROOM_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// `None`: one that is not known here.
    pub fn of(header: Option<&HeaderValue>) -> Option<Self> {
        match header.map(HeaderValue::as_bytes) {
            None | Some(b"") => Some(Self::Identity),
            Some(name) if name.eq_ignore_ascii_case(b"gzip") => Some(Self::Gzip),
            Some(name) if name.eq_ignore_ascii_case(b"deflate") => Some(Self::Deflate),
            Some(_) => None,
        }
    }
}

/// See the module.
pub struct Page {
    html: Rewriter,
    coding: Coding,
    /// From the first byte of a compressed page on.
    coder: Option<Coder>,
}

impl Page {
    pub fn new(coding: Coding, html: Rewriter) -> Self {
        Self { html, coding, coder: None }
    }

    /// What can be sent on after this piece.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(piece.len());
        match (self.coding, piece.first()) {
            (Coding::Identity, _) => self.html.push(piece, &mut out),
            (_, None) => {}
            (coding, Some(first)) => {
                self.coder.get_or_insert_with(|| Coder::new(coding, *first)).push(piece, &mut self.html, &mut out)?;
            }
        }
        Ok(out)
    }

    /// The rest, at the body's end. A body without a byte stays one.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match &mut self.coder {
            None => self.html.finish(&mut out),
            Some(coder) => coder.finish(&mut self.html, &mut out)?,
        }
        Ok(out)
    }
}

struct Coder {
    inflate: Decompress,
    deflate: Compress,
    /// More members may follow the first.
    is_gzip: bool,
    ended: bool,
}

impl Coder {
    fn new(coding: Coding, first: u8) -> Self {
        let level = Compression::default();
        let is_gzip = coding == Coding::Gzip;
        let (inflate, deflate) = if is_gzip {
            (Decompress::new_gzip(WINDOW_BITS), Compress::new_gzip(level, WINDOW_BITS))
        } else {
            // A frame begins with the method, 8; without one these bits would be a stored block with padding that is not zero.
            let framed = first & 0x0f == 8;
            (Decompress::new(framed), Compress::new(level, framed))
        };
        Self { inflate, deflate, is_gzip, ended: false }
    }

    fn push(&mut self, mut piece: &[u8], html: &mut Rewriter, out: &mut Vec<u8>) -> io::Result<()> {
        let mut plain = Vec::with_capacity(PLAIN_BYTES);
        let mut changed = Vec::new();
        while !piece.is_empty() || plain.len() == plain.capacity() {
            if self.ended {
                // Whatever else follows the end is no part of the page.
                if !self.is_gzip || piece.first() != Some(&0x1f) {
                    break;
                }
                self.inflate = Decompress::new_gzip(WINDOW_BITS);
            }
            plain.clear();
            changed.clear();
            let before = self.inflate.total_in();
            let status = self.inflate.decompress_vec(piece, &mut plain, FlushDecompress::None)?;
            let taken = usize::try_from(self.inflate.total_in() - before).unwrap_or(piece.len());
            piece = &piece[taken..];
            self.ended = status == Status::StreamEnd;
            html.push(&plain, &mut changed);
            self.compress(&changed, FlushCompress::None, out)?;
            if taken == 0 && plain.is_empty() && !self.ended {
                if piece.is_empty() {
                    break;
                }
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the compressed page is broken"));
            }
        }
        self.compress(&[], FlushCompress::Sync, out)
    }

    fn finish(&mut self, html: &mut Rewriter, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.ended {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the compressed page ends too early"));
        }
        let mut rest = Vec::new();
        html.finish(&mut rest);
        self.compress(&rest, FlushCompress::Finish, out)
    }

    fn compress(&mut self, mut plain: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> io::Result<()> {
        loop {
            out.reserve(ROOM_BYTES);
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(plain, out, flush)?;
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(plain.len());
            plain = &plain[taken..];
            let done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => plain.is_empty() && out.len() < out.capacity(),
            };
            if done {
                return Ok(());
            }
        }
    }
}

//! SPDY/3 header blocks: name-value pairs, compressed with zlib and a preset dictionary.
//!
//! In: pairs or compressed blocks. Out: the other. The compression state lives as long as the connection.
//!
//! Bound: a block decompresses to at most 64 KiB.

use std::io;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

const BLOCK_BYTES_MAX: usize = 64 * 1024;
const CHUNK: usize = 4096;

/// Names in lower case, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// From pairs; names are turned into lower case.
    pub fn new<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect())
    }

    /// The first value of `name`, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        pair.and_then(|(_, value)| value.split('\0').next())
    }

    fn to_block(&self) -> Vec<u8> {
        let mut out = (self.0.len() as u32).to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            out.extend_from_slice(&(text.len() as u32).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    fn parse(block: &[u8]) -> io::Result<Self> {
        let mut rest = block;
        let count = take_number(&mut rest)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut rest)?;
            pairs.push((name.to_lowercase(), take_text(&mut rest)?));
        }
        Ok(Self(pairs))
    }
}

fn take_number(rest: &mut &[u8]) -> io::Result<usize> {
    let (number, tail) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("a header block is cut off"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*number) as usize)
}

fn take_text(rest: &mut &[u8]) -> io::Result<String> {
    let length = take_number(rest)?;
    let (text, tail) = rest.split_at_checked(length).ok_or_else(|| malformed("a header block is cut off"))?;
    *rest = tail;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Compresses the blocks of one direction.
pub struct HeaderCompressor {
    state: Compress,
    primed: bool,
}

impl HeaderCompressor {
    pub fn new() -> Self {
        Self { state: Compress::new(Compression::default(), true), primed: false }
    }

    pub fn compress(&mut self, headers: &Headers) -> io::Result<Bytes> {
        if !self.primed {
            self.state.set_dictionary(&DICTIONARY).map_err(io::Error::other)?;
            self.primed = true;
        }
        let block = headers.to_block();
        let mut out = Vec::with_capacity(CHUNK);
        let mut used = 0;
        loop {
            let before = self.state.total_in();
            let rest = block.get(used..).unwrap_or_default();
            self.state.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
            used += (self.state.total_in() - before) as usize;
            // Room left over means that all of the flush came out.
            if used == block.len() && out.len() < out.capacity() {
                return Ok(out.into());
            }
            out.reserve(CHUNK);
        }
    }
}

impl Default for HeaderCompressor {
    fn default() -> Self {
        Self::new()
    }
}

/// Decompresses the blocks of one direction.
pub struct HeaderDecompressor {
    state: Decompress,
}

impl HeaderDecompressor {
    pub fn new() -> Self {
        Self { state: Decompress::new(true) }
    }

    pub fn decompress(&mut self, block: &[u8]) -> io::Result<Headers> {
        let mut out = Vec::with_capacity(CHUNK);
        let mut rest = block;
        loop {
            let before = self.state.total_in();
            let status = self.state.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            let used = (self.state.total_in() - before) as usize;
            rest = rest.get(used..).unwrap_or_default();
            match status {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.state.set_dictionary(&DICTIONARY).map_err(io::Error::other)?;
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                Ok(Status::StreamEnd) => return Err(malformed("the header compression has ended")),
                Ok(_) if rest.is_empty() && out.len() < out.capacity() => return Headers::parse(&out),
                Ok(_) if out.len() >= BLOCK_BYTES_MAX => return Err(malformed("a header block is too long")),
                Ok(_) if out.len() < out.capacity() && used == 0 => return Err(malformed("a header block is damaged")),
                Ok(_) => out.reserve(CHUNK),
            }
        }
    }
}

impl Default for HeaderDecompressor {
    fn default() -> Self {
        Self::new()
    }
}

/// The words of SPDY/3's preset dictionary, each behind its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// The rest of the dictionary, plain.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
    Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov \
    Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
    utf-,*,enq=0.";

/// SPDY/3, section 2.6.10.1.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace() {
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        // The one word with a space in it.
        out.extend_from_slice(word.replace('_', " ").as_bytes());
    }
    out.extend_from_slice(TAIL.as_bytes());
    out
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionary_is_the_specified_one() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((DICTIONARY.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_go_both_ways_over_one_state() {
        let (mut compressor, mut decompressor) = (HeaderCompressor::new(), HeaderDecompressor::new());
        for headers in [
            Headers::new([("streamType", "error")]),
            Headers::new([("streamType", "data"), ("port", "8080"), ("requestID", "0")]),
            Headers::default(),
            Headers::new([("x", &"long ".repeat(9000))]),
        ] {
            let block = compressor.compress(&headers).unwrap();
            assert_eq!(decompressor.decompress(&block).unwrap(), headers);
        }
        assert_eq!(Headers::new([("StreamType", "stdin")]).get("streamtype"), Some("stdin"));
    }

    #[test]
    fn damaged_blocks_are_errors() {
        let good = HeaderCompressor::new().compress(&Headers::new([("a", "b")])).unwrap();
        let check = |block: &[u8]| assert!(HeaderDecompressor::new().decompress(block).is_err());
        check(&[]);
        check(b"rubbish");
        check(&good[..good.len() / 2]);
        let bomb = HeaderCompressor::new().compress(&Headers::new([("a", &"0".repeat(200_000))])).unwrap();
        check(&bomb);
    }
}

//! SPDY/3 frames on the wire.
//!
//! In: a byte stream. Out: [`Frame`]s; and the heads of frames to send.
//!
//! Bounds: a control frame is at most 64 KiB; data comes in chunks of at most 64 KiB however long its frame is. Frames that
//! Kubernetes has no use for (settings, window updates, go-away) read as [`Frame::Other`].

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{HeaderDecompressor, Headers};

const CONTROL_BIT: u32 = 1 << 31;
const VERSION: u32 = 3;
const FLAG_FIN: u8 = 1;
const CONTROL_BYTES_MAX: usize = 64 * 1024;
const CHUNK_BYTES_MAX: usize = 64 * 1024;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const HEADERS: u16 = 8;

/// What was read.
#[derive(Debug, PartialEq)]
pub enum Frame {
    SynStream { id: u32, headers: Headers, fin: bool },
    SynReply { id: u32, fin: bool },
    Data { id: u32, data: Bytes, fin: bool },
    Reset { id: u32 },
    Ping { id: u32 },
    Other,
}

/// Reads frames and keeps the header decompressor.
pub struct FrameReader<R> {
    input: R,
    decompressor: HeaderDecompressor,
    /// Stream, bytes still to come and end flag of a data frame that is being read.
    data: Option<(u32, usize, bool)>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(input: R) -> Self {
        Self { input, decompressor: HeaderDecompressor::new(), data: None }
    }

    /// The next frame; `None` at an end between frames. Anything malformed is an error and the end.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        if let Some((id, left, fin)) = self.data.take() {
            return self.data_chunk(id, left, fin).await.map(Some);
        }
        let first = match self.input.read_u32().await {
            Ok(first) => first,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let second = self.input.read_u32().await?;
        let [flags, ..] = second.to_be_bytes();
        let length = (second & 0x00ff_ffff) as usize;
        let fin = flags & FLAG_FIN != 0;
        if first & CONTROL_BIT == 0 {
            return self.data_chunk(first, length, fin).await.map(Some);
        }
        if (first & !CONTROL_BIT) >> 16 != VERSION {
            return Err(malformed("not SPDY version 3"));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(malformed("a control frame is too long"));
        }
        let mut payload = vec![0; length];
        self.input.read_exact(&mut payload).await?;
        self.control((first & 0xffff) as u16, &payload, fin).map(Some)
    }

    async fn data_chunk(&mut self, id: u32, left: usize, fin: bool) -> io::Result<Frame> {
        let mut data = BytesMut::zeroed(left.min(CHUNK_BYTES_MAX));
        self.input.read_exact(&mut data).await?;
        let left = left - data.len();
        if left > 0 {
            self.data = Some((id, left, fin));
        }
        Ok(Frame::Data { id, data: data.freeze(), fin: fin && left == 0 })
    }

    fn control(&mut self, kind: u16, payload: &[u8], fin: bool) -> io::Result<Frame> {
        let number = || {
            let bytes = payload.first_chunk::<4>().ok_or_else(|| malformed("a control frame is cut off"))?;
            Ok::<u32, io::Error>(u32::from_be_bytes(*bytes) & !CONTROL_BIT)
        };
        Ok(match kind {
            // Stream, associated stream, priority and slot, then the headers.
            SYN_STREAM => {
                let block = payload.get(10..).ok_or_else(|| malformed("a control frame is cut off"))?;
                Frame::SynStream { id: number()?, headers: self.decompressor.decompress(block)?, fin }
            }
            SYN_REPLY | HEADERS => {
                let block = payload.get(4..).ok_or_else(|| malformed("a control frame is cut off"))?;
                // The compression's state must see every block, wanted or not.
                self.decompressor.decompress(block)?;
                Frame::SynReply { id: number()?, fin }
            }
            RST_STREAM => Frame::Reset { id: number()? },
            PING => Frame::Ping { id: number()? },
            _ => Frame::Other,
        })
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Head of a SYN_STREAM with a header block of `block` bytes.
pub fn syn_stream(id: u32, block: usize) -> Bytes {
    let mut out = control(SYN_STREAM, 10 + block);
    out.put_u32(id);
    out.put_u32(0);
    out.put_u16(0);
    out.freeze()
}

/// Head of a SYN_REPLY with a header block of `block` bytes.
pub fn syn_reply(id: u32, block: usize) -> Bytes {
    let mut out = control(SYN_REPLY, 4 + block);
    out.put_u32(id);
    out.freeze()
}

pub fn rst_stream(id: u32, status: u32) -> Bytes {
    let mut out = control(RST_STREAM, 8);
    out.put_u32(id);
    out.put_u32(status);
    out.freeze()
}

pub fn ping(id: u32) -> Bytes {
    let mut out = control(PING, 4);
    out.put_u32(id);
    out.freeze()
}

/// Head of a data frame of `length` bytes, below 16 MiB.
pub fn data(id: u32, length: usize, fin: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(8);
    out.put_u32(id);
    out.put_u32(length as u32 & 0x00ff_ffff | u32::from(fin) << 24);
    out.freeze()
}

fn control(kind: u16, length: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(8 + 10);
    out.put_u32(CONTROL_BIT | VERSION << 16 | u32::from(kind));
    out.put_u32(length as u32 & 0x00ff_ffff);
    out
}

//! Protobuf's wire format: bytes -> (tag, value) pairs, and values -> bytes written back to front.
//!
//! Reading borrows from the input, never allocates and never trusts a length. Groups (wire types 3 and 4) are refused,
//! as no API message has them. Writing back to front means every length is known when its prefix is written, so
//! nested messages need no second pass and no copy.

use super::ProtoError;

/// One field occurrence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Reads occurrences one after the other.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next occurrence, `None` at the end.
    pub fn read(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtoError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).ok().filter(|&tag| tag > 0).ok_or(ProtoError::Tag)?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| ProtoError::Truncated)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(ProtoError::WireType(other as u8)),
        };
        Ok(Some((tag, value)))
    }

    /// One bare varint, as in packed lists.
    pub fn varint(&mut self) -> Result<u64, ProtoError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(ProtoError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ProtoError::Varint)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtoError> {
        if len > self.rest.len() {
            return Err(ProtoError::Truncated);
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtoError> {
        self.take(N)?.try_into().map_err(|_| ProtoError::Truncated)
    }
}

/// Collects a message from its last byte to its first.
#[derive(Default)]
pub struct BackWriter {
    reversed: Vec<u8>,
}

impl BackWriter {
    /// Bytes written so far; the difference of two marks is the length of what lies between.
    pub fn mark(&self) -> usize {
        self.reversed.len()
    }

    pub fn varint(&mut self, value: u64) {
        let mut bytes = [0u8; 10];
        let len = encode_varint(value, &mut bytes);
        self.raw(&bytes[..len]);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    pub fn key(&mut self, tag: u32, wire_type: u8) {
        self.varint(u64::from(tag) << 3 | u64::from(wire_type));
    }

    pub fn varint_field(&mut self, tag: u32, value: u64) {
        self.varint(value);
        self.key(tag, 0);
    }

    pub fn bytes_field(&mut self, tag: u32, bytes: &[u8]) {
        self.raw(bytes);
        self.varint(bytes.len() as u64);
        self.key(tag, 2);
    }

    /// Ends a nested message whose content has been written since `mark`.
    pub fn close(&mut self, tag: u32, mark: usize) {
        self.varint((self.reversed.len() - mark) as u64);
        self.key(tag, 2);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.reversed.reverse();
        self.reversed
    }
}

/// Writes `value` into `into`, returns how many bytes it took.
fn encode_varint(mut value: u64, into: &mut [u8; 10]) -> usize {
    let mut len = 0;
    while value >= 0x80 {
        into[len] = (value as u8) | 0x80;
        value >>= 7;
        len += 1;
    }
    into[len] = value as u8;
    len + 1
}

/// Appends a varint front to back.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0u8; 10];
    let len = encode_varint(value, &mut bytes);
    out.extend_from_slice(&bytes[..len]);
}

/// Bytes of a varint.
pub fn varint_length(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()).max(1) as usize;
    bits.div_ceil(7)
}

/// Appends a length-delimited field front to back.
pub fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_header(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the key and length of a length-delimited field whose `len` bytes follow.
pub fn put_header(out: &mut Vec<u8>, tag: u32, len: usize) {
    put_varint(out, u64::from(tag) << 3 | 2);
    put_varint(out, len as u64);
}

//! The numbers and strings that log records and checkpoints are made of.
//!
//! Unsigned numbers are LEB128, signed ones zigzag first; strings are a length and bytes. Reading never panics and never
//! allocates more than the input holds.

use bytes::Bytes;

/// The bytes are not what a [`Writer`] of this version wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Appends to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    pub(crate) fn signed(&mut self, n: i64) {
        self.number(((n << 1) ^ (n >> 63)) as u64);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// Takes from the front of a slice.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Malformed)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Malformed> {
        let n = self.number()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.slice(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// A string, in place.
    pub(crate) fn borrowed(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        self.slice(len)
    }

    /// A string, copied.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        self.borrowed().map(Bytes::copy_from_slice)
    }

    /// A count and so many items.
    pub(crate) fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let count = self.number()?;
        // Every item takes a byte at least: a wrong count ends with the input.
        if count > self.0.len() as u64 {
            return Err(Malformed);
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(n: u64, s: i64, b: Vec<u8>, f: bool) {
            let mut w = Writer::default();
            w.number(n);
            w.signed(s);
            w.bytes(&b);
            w.flag(f);
            let mut r = Reader(&w.0);
            prop_assert_eq!(r.number(), Ok(n));
            prop_assert_eq!(r.signed(), Ok(s));
            prop_assert_eq!(r.bytes().unwrap(), Bytes::from(b));
            prop_assert_eq!(r.flag(), Ok(f));
            prop_assert!(r.is_empty());
        }

        #[test]
        fn garbage_is_refused_without_panic(garbage: Vec<u8>) {
            let mut r = Reader(&garbage);
            let read = (r.number(), r.signed(), r.list(|r| r.bytes()), r.flag());
            prop_assert!(read.0.is_ok() || garbage.iter().take(9).all(|b| *b >= 0x80));
        }
    }
}

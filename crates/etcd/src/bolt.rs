//! The file format of bbolt, in which etcd keeps its database: what is needed to read a snapshot and to write one.
//!
//! A file is pages of one size. Pages 0 and 1 are two copies of the meta page: the valid one with the higher transaction id counts.
//! It names the page of the root bucket, whose values name the pages of the others. A bucket is a B+ tree; a page that
//! outgrows its size goes on in the pages behind it. All numbers are little endian.
//!
//! ```text
//! page:   id u64 | flags u16 | count u16 | overflow u32 | elements | keys and values
//! branch: pos u32 | key length u32 | page u64              pos counts from the element's own begin
//! leaf:   flags u32 | pos u32 | key length u32 | value length u32
//! meta:   magic u32 | version u32 | page size u32 | flags u32 | root page u64 | sequence u64 | free list u64 | pages u64
//!         | transaction u64 | FNV-1a of all that, u64
//! bucket: page u64, 0 = the page follows at once | sequence u64
//! ```
//!
//! Source: bbolt 1.5, `internal/common`. The list of free pages is not read and not written: etcd keeps none either.

mod reader;
mod writer;

pub use reader::BoltError;
pub(crate) use reader::BoltReader;
pub(crate) use writer::{Bucket, Stored, write_database};

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const META_BYTES: usize = 64;
const BUCKET_HEADER: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
/// Flag of a leaf element whose value is a bucket.
const IS_BUCKET: u32 = 0x01;
/// In place of a page: there is no list of free pages.
const NO_FREE_LIST: u64 = u64::MAX;

/// FNV-1a with 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests;

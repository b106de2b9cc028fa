//! Reads a bbolt file: any `Read + Seek` in, keys and values of a bucket out, in order.
//!
//! Every number of the file is checked before it is used: a damaged or made-up file ends with [`BoltError`], never with a
//! panic, a loop without end, or memory beyond the file's own size.

use std::io::{self, Read, Seek, SeekFrom};

use super::{BRANCH, BUCKET_HEADER, ELEMENT, IS_BUCKET, LEAF, MAGIC, META, META_BYTES, PAGE_HEADER, VERSION, checksum};

/// bbolt's bounds for the size of a page.
const PAGE_SIZES: std::ops::RangeInclusive<u64> = 1024..=(16 << 20);
/// A tree of pages with two children each would cover 2^32 pages.
const DEPTH_MAX: usize = 32;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    #[error("cannot read it")]
    Io(#[from] io::Error),
    #[error("it is no database of etcd: {0}")]
    NoDatabase(&'static str),
    #[error("page {page} is damaged: {what}")]
    Damaged { page: u64, what: &'static str },
}

/// An open file.
pub(crate) struct BoltReader<F> {
    file: F,
    page_size: u64,
    /// Pages in use are below this one.
    pages: u64,
    root: u64,
    /// Pages that may still be visited in the walk under way: a tree is visited once.
    budget: u64,
}

struct Meta {
    page_size: u64,
    root: u64,
    pages: u64,
    transaction: u64,
}

type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), BoltError> + 'a;

impl<F: Read + Seek> BoltReader<F> {
    /// Opens a database of `bytes` bytes.
    pub(crate) fn open(mut file: F, bytes: u64) -> Result<Self, BoltError> {
        let mut metas = Vec::new();
        let first = read_meta(&mut file, 0)?;
        let sizes = match &first {
            Some(meta) => vec![meta.page_size],
            // The first copy is damaged: the second one lies behind a page of unknown size.
            None => (0..=14).map(|shift| 1024 << shift).collect(),
        };
        metas.extend(first);
        for size in sizes.into_iter().filter(|size| size + PAGE_SIZES.start() <= bytes) {
            metas.extend(read_meta(&mut file, size)?.filter(|meta| meta.page_size == size));
        }
        let newest = metas.into_iter().max_by_key(|meta| meta.transaction);
        let meta = newest.ok_or(BoltError::NoDatabase("neither of its first pages is valid"))?;
        let whole = meta.pages.checked_mul(meta.page_size).is_some_and(|needed| needed <= bytes);
        if !whole {
            return Err(BoltError::NoDatabase("it is shorter than its first page says"));
        }
        Ok(Self { file, page_size: meta.page_size, pages: meta.pages, root: meta.root, budget: 0 })
    }

    /// Calls `visit` for every key and value of a bucket, in the order of the keys. A bucket that is missing is empty.
    pub(crate) fn each(&mut self, bucket: &str, visit: &mut Visit<'_>) -> Result<(), BoltError> {
        let mut found: Option<Vec<u8>> = None;
        self.budget = self.pages;
        self.walk(self.root, DEPTH_MAX, IS_BUCKET, &mut |name, header| {
            if name == bucket.as_bytes() {
                found = Some(header.to_vec());
            }
            Ok(())
        })?;
        let Some(header) = found else { return Ok(()) };
        let damaged = BoltError::Damaged { page: self.root, what: "a bucket is cut short" };
        match number(&header, 0).zip(header.get(BUCKET_HEADER..)) {
            None => Err(damaged),
            Some((0, page)) => each_element(page, 0, 0, visit),
            Some((page, _)) => {
                self.budget = self.pages;
                self.walk(page, DEPTH_MAX, 0, visit)
            }
        }
    }

    fn walk(&mut self, id: u64, depth: usize, flags: u32, visit: &mut Visit<'_>) -> Result<(), BoltError> {
        let damaged = |what| BoltError::Damaged { page: id, what };
        if depth == 0 || self.budget == 0 {
            return Err(damaged("its tree has no end"));
        }
        self.budget -= 1;
        let page = self.page(id)?;
        match half(&page, 8) {
            Some(LEAF) => each_element(&page, id, flags, visit),
            Some(BRANCH) => {
                let count = half(&page, 10).map_or(0, usize::from);
                for element in 0..count {
                    let child = number(&page, PAGE_HEADER + element * ELEMENT + 8);
                    self.walk(child.ok_or_else(|| damaged("it is cut short"))?, depth - 1, flags, visit)?;
                }
                Ok(())
            }
            _ => Err(damaged("it is no page of a bucket")),
        }
    }

    /// A page with all that it overflows into.
    fn page(&mut self, id: u64) -> Result<Vec<u8>, BoltError> {
        let damaged = |what| BoltError::Damaged { page: id, what };
        if id < 2 || id >= self.pages {
            return Err(damaged("it lies outside of the file"));
        }
        self.file.seek(SeekFrom::Start(id * self.page_size))?;
        let mut header = [0; PAGE_HEADER];
        self.file.read_exact(&mut header)?;
        if number(&header, 0) != Some(id) {
            return Err(damaged("it carries another number"));
        }
        let overflow = u64::from(word(&header, 12).unwrap_or(0));
        if overflow >= self.pages - id {
            return Err(damaged("it overflows the file"));
        }
        let len = usize::try_from((1 + overflow) * self.page_size).map_err(|_| damaged("it is too large"))?;
        let mut page = vec![0; len];
        page[..PAGE_HEADER].copy_from_slice(&header);
        self.file.read_exact(&mut page[PAGE_HEADER..])?;
        Ok(page)
    }
}

/// The elements of a leaf; `flags` says whether buckets or plain values are expected.
fn each_element(page: &[u8], id: u64, flags: u32, visit: &mut Visit<'_>) -> Result<(), BoltError> {
    let damaged = |what| BoltError::Damaged { page: id, what };
    let count = half(page, 10).map(usize::from).ok_or_else(|| damaged("it is cut short"))?;
    for element in 0..count {
        let at = PAGE_HEADER + element * ELEMENT;
        let field = |offset| word(page, at + offset).map(|value| value as usize);
        let fields = field(4).zip(field(8)).zip(field(12));
        let ((pos, key_len), value_len) = fields.ok_or_else(|| damaged("it is cut short"))?;
        let data = page.get(at + pos..).and_then(|rest| rest.get(..key_len + value_len));
        let (key, value) = data.ok_or_else(|| damaged("an element reaches beyond it"))?.split_at(key_len);
        if word(page, at) != Some(flags) {
            return Err(damaged("an element is of an unexpected kind"));
        }
        visit(key, value)?;
    }
    Ok(())
}

/// The meta page at an offset; `None` if it is not valid.
fn read_meta<F: Read + Seek>(file: &mut F, offset: u64) -> Result<Option<Meta>, BoltError> {
    let mut page = [0; PAGE_HEADER + META_BYTES];
    file.seek(SeekFrom::Start(offset))?;
    match file.read_exact(&mut page) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let meta = &page[PAGE_HEADER..];
    let valid = half(&page, 8) == Some(META)
        && word(meta, 0) == Some(MAGIC)
        && number(meta, META_BYTES - 8) == Some(checksum(&meta[..META_BYTES - 8]));
    if !valid {
        return Ok(None);
    }
    if word(meta, 4) != Some(VERSION) {
        return Err(BoltError::NoDatabase("it has another version of the file format"));
    }
    let field = |at| number(meta, at).unwrap_or(0);
    let page_size = u64::from(word(meta, 8).unwrap_or(0));
    if !PAGE_SIZES.contains(&page_size) {
        return Err(BoltError::NoDatabase("its pages have an impossible size"));
    }
    Ok(Some(Meta { page_size, root: field(16), pages: field(40), transaction: field(48) }))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

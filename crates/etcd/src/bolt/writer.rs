//! Writes a bbolt file in one go: sorted buckets in, pages out in the order of their numbers, so that it can be streamed.
//!
//! The sizes are known beforehand, so every page's place is planned first. Leaves are filled one after the other, branches
//! above them evenly. The plan keeps a few numbers a page, never a second copy of the values.

use std::io;
use std::ops::Range;

use super::{
    BRANCH, BUCKET_HEADER, ELEMENT, IS_BUCKET, LEAF, MAGIC, META, META_BYTES, NO_FREE_LIST, PAGE_HEADER, VERSION,
    checksum,
};

const PAGE_SIZE: usize = 4096;

/// A value that knows its size before it is written.
pub(crate) trait Stored {
    fn size(&self) -> usize;
    fn append_to(&self, page: &mut Vec<u8>);
}

impl Stored for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }

    fn append_to(&self, page: &mut Vec<u8>) {
        page.extend_from_slice(self);
    }
}

/// A bucket; its entries ascend by key, and no key is empty.
pub(crate) struct Bucket<'a> {
    pub(crate) name: &'static str,
    pub(crate) entries: Vec<(Vec<u8>, Box<dyn Stored + 'a>)>,
}

/// A page as it is planned: which entries or which children of the level below it holds.
struct Planned {
    id: u64,
    /// Pages that it takes.
    span: u64,
    holds: Range<usize>,
}

/// The pages of one bucket, leaves first, the root's level last.
struct Tree {
    levels: Vec<Vec<Planned>>,
}

impl Tree {
    fn root(&self) -> u64 {
        self.levels.last().and_then(|level| level.first()).map_or(0, |page| page.id)
    }

    /// The first key below a page.
    fn first_key<'b>(&self, bucket: &'b Bucket<'_>, level: usize, page: usize) -> &'b [u8] {
        let begin = self.levels[level][page].holds.start;
        if level == 0 { &bucket.entries[begin].0 } else { self.first_key(bucket, level - 1, begin) }
    }
}

/// Writes all of `buckets`, which ascend by name, as one database. Returns the number of bytes.
pub(crate) fn write_database(buckets: &[Bucket<'_>], out: &mut dyn io::Write) -> io::Result<u64> {
    // Page 2 is the root bucket's: a few names, which fit.
    let root = 2;
    let mut next = root + 1;
    let trees: Vec<Tree> = buckets.iter().map(|bucket| plan_tree(bucket, &mut next)).collect();
    for copy in 0..2 {
        out.write_all(&meta_page(copy, root, next))?;
    }
    out.write_all(&root_page(root, buckets, &trees))?;
    for (bucket, tree) in buckets.iter().zip(&trees) {
        for (level, pages) in tree.levels.iter().enumerate() {
            for page in pages {
                let bytes = if level == 0 { leaf_page(bucket, page) } else { branch_page(bucket, tree, level, page) };
                out.write_all(&bytes)?;
            }
        }
    }
    out.flush()?;
    Ok(next * PAGE_SIZE as u64)
}

fn plan_tree(bucket: &Bucket<'_>, next: &mut u64) -> Tree {
    let mut tree = Tree { levels: vec![plan_leaves(bucket, next)] };
    let key_max = bucket.entries.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    // A branch has two children at least, however long its keys are.
    let children_max = ((PAGE_SIZE - PAGE_HEADER) / (ELEMENT + key_max)).max(2);
    while let Some(below) = tree.levels.last().map(Vec::len).filter(|pages| *pages > 1) {
        let branches = below.div_ceil(children_max);
        let mut level = Vec::with_capacity(branches);
        for branch in 0..branches {
            let holds = branch * below / branches..(branch + 1) * below / branches;
            let bytes = PAGE_HEADER + holds.len() * (ELEMENT + key_max);
            level.push(take(holds, bytes, next));
        }
        tree.levels.push(level);
    }
    tree
}

fn plan_leaves(bucket: &Bucket<'_>, next: &mut u64) -> Vec<Planned> {
    let mut leaves = Vec::new();
    let (mut begin, mut bytes) = (0, PAGE_HEADER);
    for (at, (key, value)) in bucket.entries.iter().enumerate() {
        let more = ELEMENT + key.len() + value.size();
        if at > begin && bytes + more > PAGE_SIZE {
            leaves.push(take(begin..at, bytes, next));
            (begin, bytes) = (at, PAGE_HEADER);
        }
        bytes += more;
    }
    if begin < bucket.entries.len() {
        leaves.push(take(begin..bucket.entries.len(), bytes, next));
    }
    leaves
}

fn take(holds: Range<usize>, bytes: usize, next: &mut u64) -> Planned {
    let (id, span) = (*next, bytes.div_ceil(PAGE_SIZE) as u64);
    *next += span;
    Planned { id, span, holds }
}

fn meta_page(copy: u64, root: u64, pages: u64) -> Vec<u8> {
    let mut page = page_header(copy, META, 0, 1);
    [MAGIC, VERSION, PAGE_SIZE as u32, 0].iter().for_each(|word| page.extend(word.to_le_bytes()));
    // A transaction writes the copy that its number's last bit names; the first one is newer here.
    [root, 0, NO_FREE_LIST, pages, 2 - copy].iter().for_each(|number| page.extend(number.to_le_bytes()));
    let sum = checksum(&page[PAGE_HEADER..PAGE_HEADER + META_BYTES - 8]);
    page.extend(sum.to_le_bytes());
    page.resize(PAGE_SIZE, 0);
    page
}

fn root_page(id: u64, buckets: &[Bucket<'_>], trees: &[Tree]) -> Vec<u8> {
    let header = |tree: &Tree| {
        let mut value = tree.root().to_le_bytes().to_vec();
        value.resize(BUCKET_HEADER, 0);
        if tree.root() == 0 {
            // An empty bucket is its header and the header of a leaf without elements.
            value.extend(page_header(0, LEAF, 0, 1));
        }
        value
    };
    let values: Vec<Vec<u8>> = trees.iter().map(header).collect();
    let elements = buckets.iter().zip(&values).map(|(bucket, value)| (bucket.name.as_bytes(), value as &dyn Stored));
    leaf(id, 1, IS_BUCKET, elements)
}

fn leaf_page(bucket: &Bucket<'_>, page: &Planned) -> Vec<u8> {
    let entries = bucket.entries[page.holds.clone()].iter();
    leaf(page.id, page.span, 0, entries.map(|(key, value)| (key.as_slice(), value.as_ref())))
}

fn leaf<'b>(
    id: u64,
    span: u64,
    flags: u32,
    elements: impl ExactSizeIterator<Item = (&'b [u8], &'b (dyn Stored + 'b))> + Clone,
) -> Vec<u8> {
    let count = elements.len();
    let mut page = page_header(id, LEAF, count, span);
    let mut data_at = PAGE_HEADER + count * ELEMENT;
    for (key, value) in elements.clone() {
        let pos = (data_at - page.len()) as u32;
        let (key_len, value_len) = (key.len() as u32, value.size() as u32);
        [flags, pos, key_len, value_len].iter().for_each(|word| page.extend(word.to_le_bytes()));
        data_at += key.len() + value.size();
    }
    for (key, value) in elements {
        page.extend_from_slice(key);
        value.append_to(&mut page);
    }
    page.resize(span as usize * PAGE_SIZE, 0);
    page
}

fn branch_page(bucket: &Bucket<'_>, tree: &Tree, level: usize, planned: &Planned) -> Vec<u8> {
    let children: Vec<(&[u8], u64)> = planned
        .holds
        .clone()
        .map(|child| (tree.first_key(bucket, level - 1, child), tree.levels[level - 1][child].id))
        .collect();
    let mut page = page_header(planned.id, BRANCH, children.len(), planned.span);
    let mut data_at = PAGE_HEADER + children.len() * ELEMENT;
    for (key, id) in &children {
        let pos = (data_at - page.len()) as u32;
        [pos, key.len() as u32].iter().for_each(|word| page.extend(word.to_le_bytes()));
        page.extend(id.to_le_bytes());
        data_at += key.len();
    }
    children.iter().for_each(|(key, _)| page.extend_from_slice(key));
    page.resize(planned.span as usize * PAGE_SIZE, 0);
    page
}

fn page_header(id: u64, flags: u16, count: usize, span: u64) -> Vec<u8> {
    let mut page = id.to_le_bytes().to_vec();
    page.extend(flags.to_le_bytes());
    // A page of one size holds fewer elements than this number can say.
    page.extend((count as u16).to_le_bytes());
    page.extend(((span - 1) as u32).to_le_bytes());
    page
}

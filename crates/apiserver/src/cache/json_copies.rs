//! JSON copies of what is listed as JSON again and again, so that a hot list is copied, not transcoded.
//!
//! In: an entry and its JSON, made for a list. Out: the same bytes at the next list. Invariants: a copy lives no longer than its
//! entry, so it is never stale; all copies together stay within a bound. At the bound, room is made of copies that were not
//! read since they were looked at last; where all are in use, nothing new is kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;

use super::Entry;

/// Bytes of all copies of a server together.
const BYTES_MAX: usize = 64 << 20;
/// Copies looked at to make room for one.
const LOOKS_MAX: usize = 2;

/// What an entry knows of its copy.
#[derive(Debug, Default)]
pub struct JsonCopy {
    /// The item of a list: without type, with resource version.
    json: ArcSwapOption<Vec<u8>>,
    /// Since it was looked at last.
    was_read: AtomicBool,
}

/// The copies of all caches of a server.
#[derive(Debug)]
pub struct JsonCopies {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    /// Longest unlooked-at first, with the bytes that each counts for.
    queue: VecDeque<(Weak<Entry>, usize)>,
}

impl Default for JsonCopies {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl JsonCopies {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    /// Appends the entry's JSON to `out`: its copy, or what `make` appends. Whatever is made for the second time is kept.
    pub fn append<E>(
        &self,
        entry: &Arc<Entry>,
        out: &mut Vec<u8>,
        make: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let was_read = entry.json.was_read.swap(true, Ordering::Relaxed);
        if let Some(json) = &*entry.json.json.load() {
            out.extend_from_slice(json);
            return Ok(());
        }
        let start = out.len();
        make(out)?;
        if was_read {
            self.keep(entry, &out[start..]);
        }
        Ok(())
    }

    fn keep(&self, entry: &Arc<Entry>, json: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LOOKS_MAX {
            if kept.bytes + json.len() <= self.bytes_max {
                break;
            }
            let Some((oldest, bytes)) = kept.queue.pop_front() else { break };
            match oldest.upgrade() {
                Some(in_use) if in_use.json.was_read.swap(false, Ordering::Relaxed) => {
                    kept.queue.push_back((oldest, bytes));
                }
                left => {
                    kept.bytes -= bytes;
                    if let Some(unread) = left {
                        unread.json.json.store(None);
                    }
                }
            }
        }
        if kept.bytes + json.len() <= self.bytes_max && entry.json.json.load().is_none() {
            kept.bytes += json.len();
            kept.queue.push_back((Arc::downgrade(entry), json.len()));
            entry.json.json.store(Some(Arc::new(json.to_vec())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    use crate::cache::entry::{EntryParts, Form};

    fn entry(name: &str) -> Arc<Entry> {
        Arc::new(Entry::new(EntryParts {
            key: Bytes::from(format!("/registry/pods/{name}")),
            prefix_length: 15,
            namespaced: false,
            form: Form::Proto,
            object: Bytes::new(),
            revision: 1,
            labels: Box::default(),
        }))
    }

    /// Reads once; whether the JSON had to be made.
    fn read(copies: &JsonCopies, entry: &Arc<Entry>) -> bool {
        let (mut out, mut made) = (b"before ".to_vec(), false);
        let outcome: Result<(), ()> = copies.append(entry, &mut out, |out| {
            made = true;
            out.extend_from_slice(entry.name().as_bytes());
            Ok(())
        });
        assert_eq!(outcome, Ok(()));
        assert_eq!(out, format!("before {}", entry.name()).into_bytes());
        made
    }

    #[test]
    fn what_is_read_twice_is_made_twice_and_then_no_more() {
        let (copies, a) = (JsonCopies::default(), entry("a"));
        assert_eq!([read(&copies, &a), read(&copies, &a), read(&copies, &a)], [true, true, false]);
    }

    #[test]
    fn at_the_bound_what_is_in_use_stays_and_what_is_not_gives_way() {
        let copies = JsonCopies::new(3);
        let [a, b, c, d] = ["a", "b", "c", "d"].map(entry);
        for one in [&a, &b, &c] {
            read(&copies, one);
            read(&copies, one);
        }
        // The second read of `d` asks `a` and `b`, which are in use; the third asks `c`, and `a` again, unread since.
        assert_eq!([&d; 4].map(|one| read(&copies, one)), [true, true, true, false]);
        assert_eq!([&b, &c, &d, &a].map(|one| read(&copies, one)), [false, false, false, true]);
    }

    #[test]
    fn what_is_gone_leaves_its_room() {
        let copies = JsonCopies::new(1);
        let a = entry("a");
        read(&copies, &a);
        read(&copies, &a);
        drop(a);
        let b = entry("b");
        assert_eq!([read(&copies, &b), read(&copies, &b), read(&copies, &b)], [true, true, false]);
    }
}

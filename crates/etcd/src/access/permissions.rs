//! What a user may read or write: key ranges, merged of all that the user's roles grant. Pure.
//!
//! Ranges are as in [`store::RangeRequest`]: no end = one key; the end `\0` = to the last key. etcd's rule: a range is
//! permitted if it lies within what is granted as a whole, also where that is several grants that touch.

use bytes::Bytes;
use store::key_after;

use crate::proto::authpb::Permission;
use crate::proto::authpb::permission::Type;

/// The ranges in which a user may read, and those in which the user may write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Permissions {
    read: Ranges,
    write: Ranges,
}

impl Permissions {
    pub(crate) fn of<'a>(granted: impl IntoIterator<Item = &'a Permission>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in granted {
            let range = Range::granted(&permission.key, &permission.range_end);
            if permission.perm_type() != Type::Write {
                read.push(range.clone());
            }
            if permission.perm_type() != Type::Read {
                write.push(range);
            }
        }
        Self { read: Ranges::merge(read), write: Ranges::merge(write) }
    }

    pub(crate) fn may_read(&self, key: &Bytes, end: Option<&Bytes>) -> bool {
        self.read.contain(&Range::asked(key, end))
    }

    pub(crate) fn may_write(&self, key: &Bytes, end: Option<&Bytes>) -> bool {
        self.write.contain(&Range::asked(key, end))
    }
}

/// Whether a permission may be granted on this.
pub(crate) fn is_valid_grant(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

/// From `start` to before `end`, or to the last key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    start: Bytes,
    end: Option<Bytes>,
}

impl Range {
    fn granted(key: &Bytes, range_end: &Bytes) -> Self {
        Self::asked(key, (!range_end.is_empty()).then_some(range_end))
    }

    fn asked(key: &Bytes, end: Option<&Bytes>) -> Self {
        let end = match end {
            None => Some(key_after(key)),
            Some(end) if end.is_empty() || end.as_ref() == [0] => None,
            Some(end) => Some(end.clone()),
        };
        Self { start: key.clone(), end }
    }

    /// Whether the end of this lies at or before that of `other`.
    fn ends_within(&self, other: &Self) -> bool {
        match (&self.end, &other.end) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(mine), Some(others)) => mine <= others,
        }
    }
}

/// Ascending, and with a gap between any two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(Vec<Range>);

impl Ranges {
    fn merge(mut ranges: Vec<Range>) -> Self {
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Range> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| range.start <= end) => {
                    if !range.ends_within(last) {
                        last.end = range.end;
                    }
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    fn contain(&self, asked: &Range) -> bool {
        let is_empty = asked.end.as_ref().is_some_and(|end| *end <= asked.start);
        let after = self.0.partition_point(|range| range.start <= asked.start);
        let before = after.checked_sub(1).and_then(|last| self.0.get(last));
        !is_empty && before.is_some_and(|range| asked.ends_within(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(perm_type: Type, key: &'static str, end: &'static str) -> Permission {
        Permission { perm_type: perm_type as i32, key: key.into(), range_end: end.into() }
    }

    #[test]
    fn a_range_must_lie_within_what_is_granted() {
        let permissions = Permissions::of(&[
            grant(Type::Read, "b", "d"),
            grant(Type::Readwrite, "d", "f"),
            grant(Type::Write, "k", ""),
            grant(Type::Read, "x", "\0"),
        ]);
        let read = |key: &'static str, end: Option<&'static str>| {
            permissions.may_read(&key.into(), end.map(Bytes::from).as_ref())
        };
        let write = |key: &'static str, end: Option<&'static str>| {
            permissions.may_write(&key.into(), end.map(Bytes::from).as_ref())
        };
        assert!(
            read("b", None) && read("c", Some("e")) && read("b", Some("f")) && read("x", Some("\0")) && read("z", None)
        );
        assert!(
            !read("a", None) && !read("a", Some("c")) && !read("b", Some("g")) && !read("f", None) && !read("k", None)
        );
        assert!(!read("b", Some("\0")) && !read("c", Some("b")));
        assert!(write("d", None) && write("k", None) && write("d", Some("f")));
        assert!(!write("b", None) && !write("k", Some("l")) && !write("x", None));
    }

    #[test]
    fn grants_are_of_a_key_a_range_or_all_that_follows() {
        assert!(is_valid_grant(b"a", b"") && is_valid_grant(b"a", b"b") && is_valid_grant(b"a", b"\0"));
        assert!(is_valid_grant(b"\0", b"\0"));
        assert!(!is_valid_grant(b"", b"") && !is_valid_grant(b"b", b"a") && !is_valid_grant(b"a", b"a"));
    }
}

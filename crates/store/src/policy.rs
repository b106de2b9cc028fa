//! Policy: records beside the keys, by which whoever serves the store decides who may do what.
//!
//! What a record means is not the store's business. It keeps them with the rest of the state, and counts their changes: a
//! decision that was made by the policy of one revision is proposed as such, and comes to nothing if the policy is another one
//! when its turn comes (see [`crate::Store::judged`]). So a right that was taken away is gone from that entry on, on every member.
//!
//! Bounded: [`POLICY_BYTES_MAX`] in all; what would exceed it is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::KvError;
use crate::wire::{Malformed, Reader, Writer};

/// Names and values together.
const POLICY_BYTES_MAX: usize = 16 << 20;

/// A change of one record; `None` removes it.
pub type PolicyChange = (Bytes, Option<Bytes>);

/// The policy as of one revision. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Counts the changes; 0 = there never was one.
    pub revision: u64,
    /// Name -> value.
    pub records: Arc<BTreeMap<Bytes, Bytes>>,
}

impl Policy {
    /// The policy that a new store begins with.
    pub(crate) fn of(records: BTreeMap<Bytes, Bytes>) -> Self {
        Self { revision: u64::from(!records.is_empty()), records: Arc::new(records) }
    }

    /// Makes all changes, or none. Returns the new revision.
    pub(crate) fn apply(&mut self, changes: &[PolicyChange]) -> Result<u64, KvError> {
        let mut records = BTreeMap::clone(&self.records);
        for (name, value) in changes {
            match value {
                // Copies: what the log's entry holds must not live as long as this.
                Some(value) => records.insert(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)),
                None => records.remove(name),
            };
        }
        let bytes: usize = records.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > POLICY_BYTES_MAX {
            return Err(KvError::TooLarge { bytes, bytes_max: POLICY_BYTES_MAX });
        }
        *self = Self { revision: self.revision + 1, records: Arc::new(records) };
        Ok(self.revision)
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.number(self.revision);
        w.number(self.records.len() as u64);
        for (name, value) in self.records.iter() {
            w.bytes(name);
            w.bytes(value);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let revision = r.number()?;
        let records = r.list(|r| Ok((r.bytes()?, r.bytes()?)))?;
        Ok(Self { revision, records: Arc::new(records.into_iter().collect()) })
    }
}

pub(crate) fn encode_changes(changes: &[PolicyChange], w: &mut Writer) {
    w.number(changes.len() as u64);
    for (name, value) in changes {
        w.bytes(name);
        w.flag(value.is_some());
        if let Some(value) = value {
            w.bytes(value);
        }
    }
}

pub(crate) fn decode_changes(r: &mut Reader<'_>) -> Result<Vec<PolicyChange>, Malformed> {
    r.list(|r| Ok((r.bytes()?, if r.flag()? { Some(r.bytes()?) } else { None })))
}

/// What a set of changes takes in a request, in bytes.
pub(crate) fn changes_bytes(changes: &[PolicyChange]) -> usize {
    changes.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &'static str, value: Option<&'static str>) -> PolicyChange {
        (name.into(), value.map(Bytes::from))
    }

    #[test]
    fn changes_are_made_together_and_counted() {
        let mut policy = Policy::default();
        assert_eq!(policy.apply(&[change("a", Some("1")), change("b", Some("2"))]), Ok(1));
        assert_eq!(policy.apply(&[change("a", None), change("c", None), change("b", Some("3"))]), Ok(2));
        let records: Vec<_> = policy.records.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
        assert_eq!(records, [(b"b".as_ref(), b"3".as_ref())]);
        let mut w = Writer::default();
        policy.encode(&mut w);
        assert_eq!(Policy::decode(&mut Reader(&w.0)), Ok(policy));
    }

    #[test]
    fn what_is_too_much_changes_nothing() {
        let mut policy = Policy::default();
        policy.apply(&[change("a", Some("1"))]).unwrap();
        let before = policy.clone();
        let large = ("b".into(), Some(vec![0; POLICY_BYTES_MAX].into()));
        assert!(matches!(policy.apply(&[large]), Err(KvError::TooLarge { .. })));
        assert_eq!(policy, before);
    }
}

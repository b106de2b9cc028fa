//! Transactions before they are executed: which branch, and whether it can be executed.
//!
//! [`choose`] evaluates all compares (those of nested transactions too) on the state before, as etcd does; [`check_request`]
//! is what needs no state and is done before anything is proposed. Both are pure.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;

use crate::command::DEPTH_MAX;
use crate::config::Config;
use crate::error::KvError;
use crate::kv::{Compare, KeyValue, Op, Put, Relation, Target, Txn, in_range};
use crate::mvcc::State;

/// The branch that will be executed.
#[derive(Debug)]
pub(crate) struct Chosen<'a> {
    pub(crate) succeeded: bool,
    pub(crate) steps: Vec<Step<'a>>,
}

#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// Anything but a nested transaction.
    Op(&'a Op),
    Txn(Chosen<'a>),
}

/// Decides every branch on the state as it is before the transaction.
pub(crate) fn choose<'a>(state: &State, txn: &'a Txn) -> Chosen<'a> {
    let succeeded = txn.compares.iter().all(|compare| holds(state, compare));
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let step = |op: &'a Op| match op {
        Op::Txn(nested) => Step::Txn(choose(state, nested)),
        op => Step::Op(op),
    };
    Chosen { succeeded, steps: branch.iter().map(step).collect() }
}

impl Chosen<'_> {
    /// Whether every step can be executed; nothing fails once execution has begun.
    pub(crate) fn check(&self, state: &State) -> Result<(), KvError> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Op(Op::Put(put)) => check_put(state, put),
            Step::Op(Op::Range(range)) => state.check_revision(range.revision),
            Step::Op(_) => Ok(()),
            Step::Txn(nested) => nested.check(state),
        })
    }
}

fn check_put(state: &State, put: &Put) -> Result<(), KvError> {
    if (put.ignore_value || put.ignore_lease) && state.newest(&put.key).is_none() {
        return Err(KvError::KeyNotFound);
    }
    if !put.ignore_lease && put.lease != 0 && !state.leases.contains_key(&put.lease) {
        return Err(KvError::LeaseNotFound { id: put.lease });
    }
    Ok(())
}

fn holds(state: &State, compare: &Compare) -> bool {
    let mut any = false;
    let mut all = true;
    state.each_newest(&compare.key, compare.end.as_deref(), |kv| {
        any = true;
        all &= holds_for(kv, compare);
    });
    if any { all } else { !matches!(compare.target, Target::Value(_)) && holds_for(&KeyValue::default(), compare) }
}

fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let ordering = match &compare.target {
        Target::Version(n) => kv.version.cmp(n),
        Target::CreateRevision(n) => kv.create_revision.cmp(n),
        Target::ModRevision(n) => kv.mod_revision.cmp(n),
        Target::Lease(n) => kv.lease.cmp(n),
        Target::Value(value) => kv.value.cmp(value),
    };
    match compare.relation {
        Relation::Equal => ordering == Ordering::Equal,
        Relation::NotEqual => ordering != Ordering::Equal,
        Relation::Greater => ordering == Ordering::Greater,
        Relation::Less => ordering == Ordering::Less,
    }
}

/// Size of a transaction in bytes, if it is one that may be proposed.
pub(crate) fn check_request(txn: &Txn, config: &Config) -> Result<usize, KvError> {
    let mut size = Size::default();
    size.add(txn, 0)?;
    if size.operations > config.operations_max {
        return Err(KvError::TooManyOperations { operations_max: config.operations_max });
    }
    if size.bytes > config.request_bytes_max {
        return Err(KvError::TooLarge { bytes: size.bytes, bytes_max: config.request_bytes_max });
    }
    for branch in [&txn.success, &txn.failure] {
        check_duplicates(branch)?;
    }
    Ok(size.bytes)
}

#[derive(Default)]
struct Size {
    operations: usize,
    bytes: usize,
}

impl Size {
    fn add(&mut self, txn: &Txn, depth: usize) -> Result<(), KvError> {
        if depth > DEPTH_MAX {
            return Err(KvError::TooManyOperations { operations_max: DEPTH_MAX });
        }
        for compare in &txn.compares {
            let value = if let Target::Value(value) = &compare.target { value.len() } else { 0 };
            self.key(&compare.key, compare.end.as_ref(), value)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Put(put) => self.key(&put.key, None, put.value.len())?,
                Op::Delete(delete) => self.key(&delete.key, delete.end.as_ref(), 0)?,
                Op::Range(range) => self.key(&range.key, range.end.as_ref(), 0)?,
                Op::Txn(nested) => self.add(nested, depth + 1)?,
            }
        }
        Ok(())
    }

    fn key(&mut self, key: &Bytes, end: Option<&Bytes>, more: usize) -> Result<(), KvError> {
        if key.is_empty() {
            return Err(KvError::EmptyKey);
        }
        self.operations += 1;
        self.bytes += key.len() + end.map_or(0, Bytes::len) + more;
        Ok(())
    }
}

/// No key may be put twice, or be put and deleted, by operations that can be executed together.
fn check_duplicates(branch: &[Op]) -> Result<(), KvError> {
    let mut puts = BTreeSet::new();
    let mut deletes = Vec::new();
    collect_writes(branch, &mut puts, &mut deletes)
}

fn collect_writes<'a>(
    branch: &'a [Op],
    puts: &mut BTreeSet<&'a Bytes>,
    deletes: &mut Vec<(&'a Bytes, Option<&'a Bytes>)>,
) -> Result<(), KvError> {
    for op in branch {
        match op {
            Op::Put(put) => {
                let deleted =
                    |(key, end): &(&Bytes, Option<&Bytes>)| in_range(&put.key, key, end.map(|end| end.as_ref()));
                if !puts.insert(&put.key) || deletes.iter().any(deleted) {
                    return Err(KvError::DuplicateKey);
                }
            }
            Op::Delete(delete) => {
                let end = delete.end.as_ref();
                if puts.iter().any(|key| in_range(key, &delete.key, end.map(|end| end.as_ref()))) {
                    return Err(KvError::DuplicateKey);
                }
                deletes.push((&delete.key, end));
            }
            Op::Range(_) => {}
            Op::Txn(nested) => {
                // Only one of the two branches is executed: they may write the same keys.
                let (mut other_puts, mut other_deletes) = (puts.clone(), deletes.clone());
                collect_writes(&nested.success, puts, deletes)?;
                collect_writes(&nested.failure, &mut other_puts, &mut other_deletes)?;
                puts.extend(other_puts);
                deletes.extend(other_deletes);
            }
        }
    }
    Ok(())
}

/// What a transaction could add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Growth {
    /// It may put something: history grows.
    pub(crate) puts: bool,
    /// So many bytes may be added to the live state; negative if it shrinks.
    pub(crate) live_bytes: i64,
}

impl Growth {
    pub(crate) fn of_lease() -> Self {
        Self { puts: true, live_bytes: 1 }
    }
}

/// The growth of the branch that grows more.
pub(crate) fn growth(state: &State, txn: &Txn) -> Growth {
    let (success, failure) = (branch_growth(state, &txn.success), branch_growth(state, &txn.failure));
    Growth { puts: success.puts || failure.puts, live_bytes: success.live_bytes.max(failure.live_bytes) }
}

fn branch_growth(state: &State, branch: &[Op]) -> Growth {
    let mut sum = Growth { puts: false, live_bytes: 0 };
    for op in branch {
        let of = match op {
            Op::Put(put) => Growth { puts: true, live_bytes: put_growth(state, put) },
            Op::Delete(_) | Op::Range(_) => continue,
            Op::Txn(nested) => growth(state, nested),
        };
        sum = Growth { puts: sum.puts || of.puts, live_bytes: sum.live_bytes + of.live_bytes };
    }
    sum
}

fn put_growth(state: &State, put: &Put) -> i64 {
    match state.newest(&put.key) {
        Some(_) if put.ignore_value => 0,
        Some(kv) => put.value.len() as i64 - kv.value.len() as i64,
        None => (put.key.len() + put.value.len()) as i64 + 1,
    }
}

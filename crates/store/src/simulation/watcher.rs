//! Somebody who watches all keys of the clients, from member to member.

use futures::FutureExt;

use super::node::Running;
use super::oracle::{Oracle, change};
use crate::error::KvError;
use crate::watch::{Watch, WatchRequest};

pub(super) struct Watcher {
    pub(super) member: u64,
    watch: Option<Watch>,
    /// The next revision that it has not been told of.
    next: i64,
}

impl Watcher {
    pub(super) fn new() -> Self {
        Self { member: 0, watch: None, next: 2 }
    }

    /// The connection to its member is gone.
    pub(super) fn disconnect(&mut self) {
        (self.watch, self.member) = (None, 0);
    }

    /// Watches at this member, if it watches at none and this one has the history.
    pub(super) fn connect(&mut self, member: u64, running: &Running) {
        if self.watch.is_some() || running.seen_index == 0 {
            return;
        }
        let (key, end) = ("k/".into(), Some("k0".into()));
        match running.published.watch(WatchRequest { key, end, start_revision: self.next, prev_kv: false }) {
            Ok(watch) => (self.watch, self.member) = (Some(watch), member),
            Err(KvError::Compacted { compact_revision }) => self.next = compact_revision + 1,
            Err(_) => {}
        }
    }

    /// Takes what it is told, which must be the history in its order. How many events that were.
    pub(super) fn look(&mut self, oracle: &Oracle) -> Result<u64, String> {
        let mut told = 0;
        while let Some(watch) = &mut self.watch {
            let batch = match watch.next_batch().now_or_never() {
                None => break,
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    if let KvError::Compacted { compact_revision } = error {
                        self.next = compact_revision + 1;
                    }
                    self.disconnect();
                    break;
                }
            };
            let mut events = batch.events.iter().map(|event| (event.kv.mod_revision, change(event)));
            for revision in self.next..=batch.revision {
                for expected in oracle.expected(revision, b"k/") {
                    let found = events.next();
                    if found.as_ref() != Some(&(revision, expected.clone())) {
                        return Err(format!("a watch was told {found:?} instead of {expected:?} at {revision}"));
                    }
                    told += 1;
                }
            }
            if let Some(found) = events.next() {
                return Err(format!("a watch was told {found:?} after {}", self.next));
            }
            self.next = batch.revision + 1;
        }
        Ok(told)
    }

    /// Nothing that its member shows has been kept from it.
    pub(super) fn check_complete(&self, oracle: &Oracle, shown: i64) -> Result<(), String> {
        if self.watch.is_none() {
            return Ok(());
        }
        let missed = (self.next..=shown).find(|revision| !oracle.expected(*revision, b"k/").is_empty());
        match missed {
            Some(revision) => Err(format!("member {} has not told a watch of revision {revision}", self.member)),
            None => Ok(()),
        }
    }
}

//! The log's side of the driver: outputs in, reports out, the disk in between.
//!
//! Synchronous; [`crate::threads`] gives it a thread of its own, simulations call [`LogWorker::run`] themselves. Everything
//! that has queued up is written as one batch with one sync (group commit).
//!
//! Invariant: batches become durable in the order in which they were given. On a full disk they wait here, in that order, and
//! are tried again with every later call: an entry that others have seen can't be taken back.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use base::Clock;

use crate::checkpoint::adopt_checkpoint;
use crate::disk::Disk;
use crate::driver::LogReport;
use crate::record::Batch;
use crate::wal::{Wal, WalError};

/// A batch is closed at this size; what is left over is the next batch.
const BATCH_BYTES: usize = 16 << 20;

/// What the log is asked to do.
#[derive(Debug)]
pub(crate) enum LogRequest {
    Append(Batch),
    /// The snapshot in this file takes the place of everything before it; the log goes on behind it.
    Install {
        file: String,
        index: u64,
    },
    /// The newest checkpoint takes the place of everything before it; the log goes on behind it.
    Restart,
    HoldReserve,
    ReleaseReserve,
}

/// Owner of the log.
pub(crate) struct LogWorker {
    wal: Wal,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    reserve_bytes: u64,
    /// What could not be written yet.
    queue: VecDeque<LogRequest>,
    broken: bool,
}

impl LogWorker {
    pub(crate) fn new(wal: Wal, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, reserve_bytes: u64) -> Self {
        Self { wal, disk, clock, reserve_bytes, queue: VecDeque::new(), broken: false }
    }

    /// Does what has been asked for, in order, and tries again what waits.
    pub(crate) fn run(&mut self, requests: Vec<LogRequest>, report: &mut dyn FnMut(LogReport)) {
        let mut hold = false;
        for request in requests {
            match request {
                LogRequest::HoldReserve => hold = true,
                LogRequest::ReleaseReserve => self.wal.release_reserve(),
                request => self.queue.push_back(request),
            }
        }
        while !self.broken && self.next_group(report) {}
        if hold {
            // What waits for space comes first.
            let held = self.queue.is_empty() && self.wal.hold_reserve(self.reserve_bytes).is_ok();
            report(LogReport::Reserved(held));
        }
    }

    /// Writes the next batches with one sync. `false`: there is nothing to write, or no room for it.
    fn next_group(&mut self, report: &mut dyn FnMut(LogReport)) -> bool {
        match self.queue.front() {
            Some(LogRequest::Install { .. }) => return self.install(report),
            Some(LogRequest::Restart) => {
                self.wal.restart();
                self.queue.pop_front();
                return true;
            }
            _ => {}
        }
        let mut bytes = 0;
        let batches = self.queue.iter().take_while(|request| match request {
            LogRequest::Append(batch) if bytes < BATCH_BYTES => {
                bytes += batch.size();
                true
            }
            _ => false,
        });
        let count = batches.count();
        // If all of them don't fit, the first may.
        count > 0 && (self.append(count, count == 1, report) || count > 1 && self.append(1, true, report))
    }

    fn append(&mut self, count: usize, is_last_attempt: bool, report: &mut dyn FnMut(LogReport)) -> bool {
        if self.broken {
            return false;
        }
        let began = self.clock.monotonic();
        let group: Vec<&Batch> = self.queue.iter().take(count).filter_map(LogRequest::batch).collect();
        let entries = group.iter().map(|batch| batch.entries.len() as u64).sum();
        let Some(ticket) = group.iter().map(|batch| batch.ticket).max() else { return false };
        match self.wal.append(&group) {
            Ok(bytes) => {
                let took = self.clock.monotonic().saturating_sub(began);
                report(LogReport::Durable { ticket, entries, bytes, took });
                self.queue.drain(..count);
                true
            }
            Err(error @ WalError::Full(_)) => {
                if is_last_attempt {
                    report(LogReport::Full { detail: chain(&error).into() });
                }
                false
            }
            Err(error) => self.stop(&error, report),
        }
    }

    fn install(&mut self, report: &mut dyn FnMut(LogReport)) -> bool {
        let Some(LogRequest::Install { file, index }) = self.queue.front() else { return false };
        if let Err(error) = adopt_checkpoint(self.disk.as_ref(), file, *index) {
            return self.stop(&error, report);
        }
        self.wal.restart();
        self.queue.pop_front();
        true
    }

    fn stop(&mut self, error: &dyn Error, report: &mut dyn FnMut(LogReport)) -> bool {
        self.broken = true;
        report(LogReport::Broken { reason: chain(error).into() });
        false
    }
}

impl LogRequest {
    fn batch(&self) -> Option<&Batch> {
        if let Self::Append(batch) = self { Some(batch) } else { None }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string can't fail.
        write!(line, ": {error}").ok();
        cause = error.source();
    }
    line
}

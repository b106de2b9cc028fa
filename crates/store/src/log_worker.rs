//! The log's side of the driver: outputs in, reports out, the disk in between.
//!
//! Synchronous; [`crate::threads`] gives it a thread of its own, simulations call [`LogWorker::run`] themselves. Everything
//! that has queued up is written as one batch with one sync (group commit).

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use base::Clock;

use crate::driver::LogReport;
use crate::member::Unwritten;
use crate::wal::{Wal, WalError};

/// A batch is closed at this size; what is left over is the next batch.
const BATCH_BYTES: usize = 16 << 20;

/// What the log is asked to do.
#[derive(Debug)]
pub(crate) enum LogRequest {
    Append { epoch: u64, batch: Unwritten },
    HoldReserve,
    ReleaseReserve,
}

/// Owner of the log.
pub(crate) struct LogWorker {
    wal: Wal,
    clock: Arc<dyn Clock>,
    reserve_bytes: u64,
    /// Batches of this epoch and earlier ones are void: one before them was refused.
    void_epoch: Option<u64>,
}

impl LogWorker {
    pub(crate) fn new(wal: Wal, clock: Arc<dyn Clock>, reserve_bytes: u64) -> Self {
        Self { wal, clock, reserve_bytes, void_epoch: None }
    }

    /// Does what has been asked for, in order.
    pub(crate) fn run(&mut self, requests: Vec<LogRequest>, report: &mut dyn FnMut(LogReport)) {
        let mut group: Option<(u64, Unwritten)> = None;
        for request in requests {
            let (epoch, batch) = match request {
                LogRequest::Append { epoch, batch } => (epoch, batch),
                LogRequest::HoldReserve => {
                    let held = self.wal.hold_reserve(self.reserve_bytes);
                    report(LogReport::Reserved(held.is_ok()));
                    continue;
                }
                LogRequest::ReleaseReserve => {
                    self.wal.release_reserve();
                    continue;
                }
            };
            match &mut group {
                Some((of, all)) if *of == epoch && size(&all.records) < BATCH_BYTES => {
                    all.last_index = batch.last_index;
                    all.records.extend(batch.records);
                }
                _ => {
                    if let Some((epoch, batch)) = group.replace((epoch, batch)) {
                        self.append(epoch, batch, report);
                    }
                }
            }
        }
        if let Some((epoch, batch)) = group {
            self.append(epoch, batch, report);
        }
    }

    fn append(&mut self, epoch: u64, batch: Unwritten, report: &mut dyn FnMut(LogReport)) {
        if self.void_epoch.is_some_and(|void| epoch <= void) {
            return;
        }
        let began = self.clock.monotonic();
        match self.wal.append(batch.first_index, &batch.records) {
            Ok(bytes) => report(LogReport::Durable {
                last_index: batch.last_index,
                entries: batch.last_index - batch.first_index + 1,
                bytes,
                took: self.clock.monotonic().saturating_sub(began),
            }),
            Err(error @ WalError::Full(_)) => {
                self.void_epoch = Some(epoch);
                let detail = chain(&error).into();
                report(LogReport::Full { epoch, first_index: batch.first_index, detail });
            }
            Err(error) => {
                self.void_epoch = Some(u64::MAX);
                report(LogReport::Broken { reason: chain(&error).into() });
            }
        }
    }
}

fn size(records: &[Vec<u8>]) -> usize {
    records.iter().map(Vec::len).sum()
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

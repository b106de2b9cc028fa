//! The threads of a store: the driver, the log and the checkpoint writer, and the channels between them.
//!
//! The driver never waits for the other two. Requests to them queue up (bounded by the permits of the proposals in them),
//! reports come back into the driver's inbox.
//!
//! ```text
//! clients --Message--> driver --LogRequest--> log --LogReport--+
//!                        ^ ^---------------------------------- + <--CheckpointReport-- checkpoint writer
//! ```
//!
//! The directory's lock lives on the driver's thread, which ends last.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use base::Clock;

use crate::checkpoint::{Job, remove_if_there, write_checkpoint};
use crate::disk::{Disk, DiskLock};
use crate::driver::{CheckpointReport, Driver, LogReport, Message, Output};
use crate::error::OpenError;
use crate::frame::Identity;
use crate::log_worker::{LogRequest, LogWorker};
use crate::peer::Transport;

/// Messages taken before what they caused is carried out.
const TAKE_MAX: usize = 4096;

/// What the threads work with.
pub(crate) struct Parts {
    pub(crate) driver: Driver,
    pub(crate) log: LogWorker,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) lock: Box<dyn DiskLock>,
    pub(crate) identity: Identity,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) transport: Arc<dyn Transport>,
}

/// Starts everything. Returns the driver's inbox and the driver's thread.
pub(crate) fn spawn_threads(parts: Parts) -> Result<(Sender<Message>, JoinHandle<()>), OpenError> {
    let (inbox, messages) = channel();
    let (log_requests, log_inbox) = channel();
    let (checkpoints, checkpoint_inbox) = channel();
    let Parts { driver, log, disk, lock, identity, clock, transport } = parts;
    let discard = Arc::clone(&disk);
    let reports = inbox.clone();
    let log = spawn("store-log", move || run_log(log, &log_inbox, &reports))?;
    let reports = inbox.clone();
    let writer = Writer { disk, identity, clock };
    let checkpoint = spawn("store-checkpoint", move || writer.run(&checkpoint_inbox, &reports))?;
    let driver = spawn("store-driver", move || {
        run_driver(driver, &messages, &Outlets { log: log_requests, checkpoints, transport, disk: discard });
        // The outlets are closed now, so both threads come to their end; only then may another instance have the files.
        for thread in [log, checkpoint] {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
        drop(lock);
    })?;
    Ok((inbox, driver))
}

fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map_err(|source| OpenError::Thread { name, source })
}

struct Outlets {
    log: Sender<LogRequest>,
    checkpoints: Sender<Job>,
    transport: Arc<dyn Transport>,
    disk: Arc<dyn Disk>,
}

fn run_driver(mut driver: Driver, messages: &Receiver<Message>, outlets: &Outlets) {
    carry_out(driver.flush(), outlets);
    while !driver.is_finished() {
        let first = if driver.is_busy() {
            match messages.try_recv() {
                Ok(message) => Some(message),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return,
            }
        } else {
            match messages.recv_timeout(driver.tick_interval()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => Some(Message::Tick { reply: None }),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        first.into_iter().chain(messages.try_iter().take(TAKE_MAX)).for_each(|message| driver.handle(message));
        if driver.is_tick_due() {
            driver.handle(Message::Tick { reply: None });
        }
        carry_out(driver.flush(), outlets);
    }
    driver.give_up();
}

fn carry_out(outputs: Vec<Output>, outlets: &Outlets) {
    for output in outputs {
        let sent = match output {
            Output::Append(batch) => outlets.log.send(LogRequest::Append(batch)).is_ok(),
            Output::Install { file, index } => outlets.log.send(LogRequest::Install { file, index }).is_ok(),
            Output::RestartLog => outlets.log.send(LogRequest::Restart).is_ok(),
            Output::HoldReserve => outlets.log.send(LogRequest::HoldReserve).is_ok(),
            Output::ReleaseReserve => outlets.log.send(LogRequest::ReleaseReserve).is_ok(),
            Output::Checkpoint(job) => outlets.checkpoints.send(job).is_ok(),
            Output::Discard { file } => {
                remove_if_there(outlets.disk.as_ref(), &file);
                true
            }
            Output::Send { to, frame } => {
                outlets.transport.send(to, frame);
                true
            }
            Output::SendSnapshot { to, snapshot } => {
                outlets.transport.send_snapshot(to, snapshot);
                true
            }
            Output::Members(members) => {
                outlets.transport.members_changed(&members);
                true
            }
        };
        if !sent {
            // The thread's last message says why; see `Farewell`.
            tracing::error!("a thread of the store is gone");
        }
    }
}

/// Tells the driver when the log thread ends by a panic: otherwise writers would wait for ever.
struct Farewell<'a>(&'a Sender<Message>);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the thread of the log has panicked".into();
            // No driver, nobody to tell.
            self.0.send(Message::Log(LogReport::Broken { reason })).ok();
        }
    }
}

fn run_log(mut log: LogWorker, requests: &Receiver<LogRequest>, reports: &Sender<Message>) {
    let _farewell = Farewell(reports);
    while let Ok(first) = requests.recv() {
        let batch = std::iter::once(first).chain(requests.try_iter()).collect();
        log.run(batch, &mut |report| {
            // The driver goes only after this thread; see `spawn_threads`.
            reports.send(Message::Log(report)).ok();
        });
    }
}

/// Writes checkpoints, one at a time.
struct Writer {
    disk: Arc<dyn Disk>,
    identity: Identity,
    clock: Arc<dyn Clock>,
}

impl Writer {
    fn run(&self, jobs: &Receiver<Job>, reports: &Sender<Message>) {
        while let Ok(job) = jobs.recv() {
            let began = self.clock.monotonic();
            let report = match write_checkpoint(self.disk.as_ref(), self.identity, &job) {
                Ok(bytes) => {
                    let took = self.clock.monotonic().saturating_sub(began);
                    CheckpointReport::Written { index: job.state.index, bytes, took }
                }
                Err(error) => CheckpointReport::Failed { reason: error.to_string() },
            };
            drop(job);
            // The driver goes only after this thread.
            reports.send(Message::Checkpoint(report)).ok();
        }
    }
}

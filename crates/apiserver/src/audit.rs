//! The audit log: who changed what, one JSON line of audit.k8s.io/v1 an event.
//!
//! In: [`AuditRecord`]s of finished requests. Out: a file that rotates by size, at level Metadata.
//!
//! Invariants: recording never waits. The queue is bounded; what comes while it is full is dropped and counted, and the
//! count is logged when there is room again. At most `files_max` old files are kept.
//!
//! Not recorded: health checks, leases, events, and what components only read; these are nearly all requests and change
//! nothing that anyone asks about later.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::authn::reviews::user_info;
use crate::chain::{AuditRecord, AuditSink};

/// Where the log goes and how much of it is kept.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    pub path: PathBuf,
    /// A file that has grown to this size is set aside.
    pub file_bytes_max: u64,
    /// Old files kept: `audit.log.1` is the newest.
    pub files_max: usize,
    /// Records waiting to be written.
    pub queue_max: usize,
}

impl AuditConfig {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file_bytes_max: 64 << 20, files_max: 3, queue_max: 8192 }
    }
}

/// See the module. Dropping it writes what is queued and ends the writer.
pub struct AuditLog {
    queue: Option<SyncSender<AuditRecord>>,
    dropped: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens the file (mode 0600, appended to) and starts the writer thread.
    pub fn open(config: AuditConfig) -> io::Result<Self> {
        let (queue, records) = sync_channel(config.queue_max);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut writer = Writer { file: open_file(&config.path)?, config, dropped: Arc::clone(&dropped) };
        let writer = std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&records))?;
        Ok(Self { queue: Some(queue), dropped, writer: Some(writer) })
    }

    /// Records lost since the start because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl AuditSink for AuditLog {
    fn record(&self, record: AuditRecord) {
        if !is_recorded(&record) {
            return;
        }
        let taken = self.queue.as_ref().is_some_and(|queue| queue.try_send(record).is_ok());
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the audit writer had panicked");
        }
    }
}

/// Whether a request is worth a line; see the module.
fn is_recorded(record: &AuditRecord) -> bool {
    let attributes = &record.attributes;
    let reads = matches!(attributes.verb.as_str(), "get" | "list" | "watch");
    let component = attributes.identity.user.starts_with("system:");
    match (attributes.is_resource, attributes.resource.as_str()) {
        (false, _) => !reads,
        (true, "events" | "leases") => record.code == 403,
        (true, _) => !(reads && component && record.code < 400),
    }
}

struct Writer {
    config: AuditConfig,
    file: (BufWriter<File>, u64),
    dropped: Arc<AtomicU64>,
}

impl Writer {
    /// Takes records until the sender is gone. Flushes whenever nothing waits.
    fn run(&mut self, records: &Receiver<AuditRecord>) {
        let mut reported = 0;
        while let Ok(first) = records.recv() {
            let mut result = self.write(&first);
            while let Ok(next) = records.try_recv() {
                result = result.and_then(|()| self.write(&next));
            }
            if let Err(error) = result.and_then(|()| self.file.0.flush()) {
                tracing::error!(file = %self.config.path.display(), error = &error as &dyn std::error::Error, "cannot write the audit log");
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > reported {
                tracing::warn!(lost = dropped - reported, "the audit queue was full");
                reported = dropped;
            }
        }
    }

    fn write(&mut self, record: &AuditRecord) -> io::Result<()> {
        if self.file.1 >= self.config.file_bytes_max {
            self.file.0.flush()?;
            rotate(&self.config.path, self.config.files_max)?;
            self.file = open_file(&self.config.path)?;
        }
        let mut line = event(record).to_string();
        line.push('\n');
        self.file.0.write_all(line.as_bytes())?;
        self.file.1 += line.len() as u64;
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((BufWriter::new(file), length))
}

/// `audit.log` -> `.1` -> `.2` ...; the oldest is overwritten.
fn rotate(path: &Path, files_max: usize) -> io::Result<()> {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if files_max == 0 {
        return fs::remove_file(path);
    }
    for number in (1..files_max).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))
}

fn event(record: &AuditRecord) -> Value {
    let attributes = &record.attributes;
    let finished = record.received.checked_add(record.latency).unwrap_or(record.received);
    let time = |time: jiff::Timestamp| format!("{time:.6}");
    let decision = if record.code == 403 { "forbid" } else { "allow" };
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": record.id,
        "stage": "ResponseComplete",
        "requestURI": attributes.path,
        "verb": attributes.verb,
        "user": user_info(&attributes.identity),
        "responseStatus": {"metadata": {}, "code": record.code},
        "requestReceivedTimestamp": time(record.received),
        "stageTimestamp": time(finished),
        "annotations": {
            "authorization.k8s.io/decision": decision,
            "authorization.k8s.io/reason": record.reason,
        },
    });
    if attributes.is_resource {
        let parts = [
            ("resource", &attributes.resource),
            ("namespace", &attributes.namespace),
            ("name", &attributes.name),
            ("apiGroup", &attributes.group),
            ("apiVersion", &attributes.version),
            ("subresource", &attributes.subresource),
        ];
        let named = parts.into_iter().filter(|(_, value)| !value.is_empty());
        event["objectRef"] = named.map(|(field, value)| (field.to_owned(), Value::from(value.as_str()))).collect();
    }
    event
}

#[cfg(test)]
mod tests;

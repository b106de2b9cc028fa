//! The only way to the disk: one directory of flat files, behind a trait whose implementation the caller chooses.
//!
//! [`crate::RealDisk`] is the machine's, [`crate::sim_disk::SimDisk`] a simulated one that loses, tears, reorders and delays.
//! Contract: written data survive a crash only after [`DiskFile::sync`] returned `Ok`, names (create, rename, remove) only
//! after [`Disk::sync_dir`] did. After a failed sync nothing may be assumed about what was written before it: callers never
//! repeat a failed sync, they give the file up.

use std::io;

/// A directory of files. All calls may block.
pub trait Disk: Send + Sync {
    /// For messages.
    fn describe(&self) -> String;
    /// Takes the directory for this instance until the lock is dropped.
    fn lock(&self) -> Result<Box<dyn DiskLock>, LockError>;
    /// Names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file; appends go to its end.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file, or empties an existing one.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file of `bytes` zeros whose space is really taken.
    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()>;
    /// Renames atomically, replacing `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    fn size(&self) -> io::Result<u64>;
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `data` at the end. After an error a part of it may have been written.
    fn append(&mut self, data: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Held for as long as an instance uses the directory.
pub trait DiskLock: Send {}

/// Why the directory could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Another instance has it.
    Held {
        pid: Option<u32>,
    },
    Io(io::Error),
}

/// Whether an error says that the disk is full (or a quota of the file system is used up).
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

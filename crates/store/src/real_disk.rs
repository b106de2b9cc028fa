//! The machine's disk: one directory, plain system calls.
//!
//! `sync` is fdatasync; the lock is flock on a file that names the holder's process, so it vanishes with the process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fdatasync, flock};

use crate::disk::{Disk, DiskFile, DiskLock, LockError};

const LOCK: &str = "lock";

/// A directory of the file system. Only its owner can read the files.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
}

impl RealDisk {
    /// Uses `path`, which is created if it is missing.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Disk for RealDisk {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, LockError> {
        let mut file = options(&self.at(LOCK), false).map_err(LockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let pid = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
                return Err(LockError::Held { pid });
            }
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())
        };
        match write(&mut file) {
            // On a full disk the lock holds nevertheless; only the holder's name is missing.
            Err(error) if !crate::disk::is_full(&error) => Err(LockError::Io(error)),
            _ => Ok(Box::new(RealLock { _file: file })),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).append(true).open(self.at(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = options(&self.at(name), true)?;
        file.set_len(0)?;
        Ok(Box::new(RealFile { file }))
    }

    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = options(&self.at(name), false)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // A file system that can't reserve: live without.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.at(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn options(path: &Path, append: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).append(append).create(true).truncate(false).mode(0o600).open(path)
}

struct RealLock {
    /// flock ends when the file is closed.
    _file: File,
}

impl DiskLock for RealLock {}

struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        fdatasync(&self.file).map_err(io::Error::from)
    }
}

//! Waiting for a log file to grow or to be replaced, with inotify.
//!
//! In: the file's path. Out: [`LogWatch::changed`], which ends when something has happened in its directory.
//!
//! The directory is watched, since the file may not exist yet and rotation puts a new one in its place. A container's log directory holds its own files
//! only.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Events are small; a full buffer is read again at once.
const BUFFER_BYTES: usize = 4096;

/// See the module. Made before the first read of the file, it misses nothing after it.
pub struct LogWatch {
    events: AsyncFd<OwnedFd>,
}

impl LogWatch {
    pub fn new(path: &Path) -> io::Result<Self> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let wanted = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&descriptor, directory, wanted)?;
        // SAFETY: an `OwnedFd` gives the same open descriptor until it is dropped, and the `AsyncFd` owns it.
        let events = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self { events })
    }

    /// Waits for an event and takes all that are there.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut ready = self.events.readable_mut().await?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let taken = ready.try_io(|descriptor| {
            let mut reader = Reader::new(descriptor.get_ref(), &mut buffer);
            loop {
                reader.next()?;
            }
        });
        match taken {
            // All taken.
            Err(_would_block) => Ok(()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Ok(()),
        }
    }
}

//! A simulated disk: what hardware and kernels may do to files, on demand and reproducible from a seed.
//!
//! Between two syncs everything is uncertain: a [`SimDisk::crash`] keeps an arbitrary part of the writes made since (some
//! lost, some torn into sectors, later ones kept while earlier ones are lost) and a prefix of the name changes. It can also
//! ignore syncs, fail or hold them, run out of space and flip bits. Clones share the disk. It never reads a clock: how
//! long a held sync lasts is up to the test, which moves its own clock before it lets go.
//!
//! For tests, the simulator, and whoever wants a store in memory.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use base::Rng;

use crate::disk::{Disk, DiskFile, DiskLock, LockError};

/// A disk tears a write between sectors only.
const SECTOR: usize = 512;

/// The simulated disk; cheap to clone.
#[derive(Clone, Default)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Signalled when `held`, `passes`, `waiting` or `crashed` change.
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    files: HashMap<u64, SimFile>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    next_file: u64,
    /// Handles of an earlier life are dead.
    life: u64,
    locked: bool,
    capacity: Option<u64>,
    ignore_syncs: bool,
    fail_syncs: bool,
    held: bool,
    /// Syncs that may pass although `held`.
    passes: u64,
    waiting: u64,
    syncs: u64,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
}

#[derive(Default, Clone)]
struct SimFile {
    /// Space that is taken without being written.
    reserved: u64,
    data: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Truncate { len: usize },
}

enum NameChange {
    Add { name: String, file: u64 },
    Rename { from: String, to: String },
    Remove { name: String },
}

impl SimDisk {
    /// An empty disk that behaves well.
    pub fn new() -> Self {
        Self::default()
    }

    /// All files together may take so many bytes; `None` = no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.inner().used()
    }

    /// Syncs report success and do nothing: the negative control of every durability test.
    pub fn ignore_syncs(&self, ignore: bool) {
        self.inner().ignore_syncs = ignore;
    }

    /// Every sync fails from now on.
    pub fn fail_syncs(&self, fail: bool) {
        self.inner().fail_syncs = fail;
    }

    pub fn fails_syncs(&self) -> bool {
        self.inner().fail_syncs
    }

    /// Syncs of files wait until they are let go.
    pub fn hold_syncs(&self, hold: bool) {
        self.inner().held = hold;
        self.shared.changed.notify_all();
    }

    /// Lets one held sync pass, now or when it comes.
    pub fn pass_sync(&self) {
        self.inner().passes += 1;
        self.shared.changed.notify_all();
    }

    /// Blocks the caller until a sync is being held.
    pub fn wait_for_held_sync(&self) {
        let mut inner = self.inner();
        while inner.waiting == 0 || inner.passes > 0 {
            inner = self.shared.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Syncs of files that have succeeded.
    pub fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// Changing calls so far.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// The changing call with this number (see [`Self::operations`]) is interrupted and all later ones fail.
    pub fn crash_at(&self, operation: u64) {
        self.inner().crash_at = Some(operation);
    }

    /// Whether the point of [`Self::crash_at`] was reached.
    pub fn has_crashed(&self) -> bool {
        self.inner().crashed
    }

    /// The machine loses power and comes back: unsynced changes survive in part, open handles and the lock are gone,
    /// injected faults are over (except a bound on capacity and ignored syncs).
    pub fn crash(&self, rng: &mut dyn Rng) {
        let mut inner = self.inner();
        let keep = rng.below(inner.pending_names.len() as u64 + 1) as usize;
        let changes: Vec<_> = inner.pending_names.drain(..).take(keep).collect();
        for change in changes {
            change.apply(&mut inner.durable_names);
        }
        inner.names = inner.durable_names.clone();
        let named: Vec<u64> = inner.names.values().copied().collect();
        inner.files.retain(|id, _| named.contains(id));
        // In a fixed order, so that a seed reproduces.
        for id in named {
            if let Some(file) = inner.files.get_mut(&id) {
                file.crash(rng);
            }
        }
        inner.life += 1;
        inner.locked = false;
        inner.crashed = false;
        inner.crash_at = None;
        inner.fail_syncs = false;
        inner.held = false;
        inner.passes = 0;
        drop(inner);
        self.shared.changed.notify_all();
    }

    /// Flips a bit of what is stored.
    pub fn flip_bit(&self, name: &str, offset: usize, bit: u8) {
        self.edit(name, |data| {
            if let Some(byte) = data.get_mut(offset) {
                *byte ^= 1 << (bit & 7);
            }
        });
    }

    /// Changes the stored content of a file behind the store's back.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let Some(id) = inner.names.get(name).copied() else { return };
        if let Some(file) = inner.files.get_mut(&id) {
            change(&mut file.data);
            file.durable = file.data.clone();
            file.pending.clear();
        }
    }

    /// Content of a file as a running process sees it.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner();
        let id = inner.names.get(name)?;
        inner.files.get(id).map(|file| file.data.clone())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, file: u64, life: u64) -> Box<dyn DiskFile> {
        Box::new(SimHandle { disk: self.clone(), file, life })
    }
}

impl Inner {
    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.files.get(id)).map(|file| file.reserved + file.data.len() as u64).sum()
    }

    fn free(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used()) as usize)
    }

    /// Counts a changing call. `Ok(true)`: it is the one at which the power goes.
    fn begin(&mut self) -> io::Result<bool> {
        if self.crashed {
            return Err(power_lost());
        }
        self.operations += 1;
        self.crashed = self.crash_at == Some(self.operations);
        Ok(self.crashed)
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let interrupted = self.begin()?;
        change.apply(&mut self.names);
        self.pending_names.push(change);
        if interrupted { Err(power_lost()) } else { Ok(()) }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

impl SimFile {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.data, |_| true);
        self.pending.push(change);
    }

    fn crash(&mut self, rng: &mut dyn Rng) {
        let mut data = std::mem::take(&mut self.durable);
        for change in self.pending.drain(..) {
            match rng.below(4) {
                0 => {}
                1 => change.apply(&mut data, |_| rng.below(2) == 0),
                _ => change.apply(&mut data, |_| true),
            }
        }
        self.data.clone_from(&data);
        self.durable = data;
    }
}

impl Change {
    /// Applies the sectors that `keep` chooses.
    fn apply(&self, data: &mut Vec<u8>, mut keep: impl FnMut(usize) -> bool) {
        match self {
            Self::Truncate { len } => data.truncate(*len),
            Self::Write { at, data: written } => {
                let mut from = 0;
                while from < written.len() {
                    let sector = (at + from) / SECTOR;
                    let to = written.len().min((sector + 1) * SECTOR - at);
                    if keep(sector) {
                        if data.len() < at + to {
                            data.resize(at + to, 0);
                        }
                        data[at + from..at + to].copy_from_slice(&written[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

impl Disk for SimDisk {
    fn describe(&self) -> String {
        "(simulated)".to_owned()
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, LockError> {
        let mut inner = self.inner();
        if inner.locked {
            return Err(LockError::Held { pid: Some(std::process::id()) });
        }
        inner.locked = true;
        Ok(Box::new(SimLock { disk: self.clone(), life: inner.life }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.inner();
        let file = *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file, inner.life))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.next_file += 1;
        let (file, life) = (inner.next_file, inner.life);
        inner.files.insert(file, SimFile::default());
        inner.change_name(NameChange::Add { name: name.to_owned(), file })?;
        Ok(self.handle(file, life))
    }

    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()> {
        drop(self.create(name)?);
        let mut inner = self.inner();
        let fits = inner.free() as u64 >= bytes;
        let id = inner.names.get(name).copied();
        if let Some(file) = id.and_then(|id| inner.files.get_mut(&id)).filter(|_| fits) {
            file.reserved = bytes;
        }
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner().change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change_name(NameChange::Remove { name: name.to_owned() })
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.inner();
        let interrupted = inner.begin()?;
        if interrupted {
            return Err(power_lost());
        }
        if inner.fail_syncs {
            return Err(sync_failed());
        }
        if !inner.ignore_syncs {
            inner.durable_names = inner.names.clone();
            inner.pending_names.clear();
        }
        Ok(())
    }
}

struct SimLock {
    disk: SimDisk,
    life: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if inner.life == self.life {
            inner.locked = false;
        }
    }
}

struct SimHandle {
    disk: SimDisk,
    file: u64,
    life: u64,
}

impl SimHandle {
    fn with<T>(&self, act: impl FnOnce(&mut Inner, u64) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.inner();
        if inner.life != self.life { Err(power_lost()) } else { act(&mut inner, self.file) }
    }
}

impl DiskFile for SimHandle {
    fn size(&self) -> io::Result<u64> {
        self.with(|inner, id| Ok(inner.files.get(&id).map_or(0, |file| file.data.len() as u64)))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|inner, id| {
            let data = inner.files.get(&id).map_or(&[][..], |file| &file.data);
            let rest = data.get(offset as usize..).unwrap_or_default();
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        })
    }

    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.with(|inner, id| {
            let interrupted = inner.begin()?;
            let fits = data.len().min(inner.free());
            let file = inner.files.entry(id).or_default();
            let at = file.data.len();
            file.change(Change::Write { at, data: data[..fits].to_vec() });
            match (interrupted, fits < data.len()) {
                (true, _) => Err(power_lost()),
                (false, true) => Err(io::ErrorKind::StorageFull.into()),
                (false, false) => Ok(()),
            }
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.with(|inner, id| {
            let interrupted = inner.begin()?;
            inner.files.entry(id).or_default().change(Change::Truncate { len: len as usize });
            if interrupted { Err(power_lost()) } else { Ok(()) }
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.waiting += 1;
        self.disk.shared.changed.notify_all();
        while inner.held && inner.passes == 0 && inner.life == self.life {
            inner = self.disk.shared.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.waiting -= 1;
        if inner.held {
            inner.passes = inner.passes.saturating_sub(1);
        }
        drop(inner);
        self.disk.shared.changed.notify_all();
        self.with(|inner, id| {
            if inner.begin()? {
                return Err(power_lost());
            }
            if inner.fail_syncs {
                return Err(sync_failed());
            }
            inner.syncs += 1;
            if !inner.ignore_syncs
                && let Some(file) = inner.files.get_mut(&id)
            {
                file.flush();
            }
            Ok(())
        })
    }
}

impl SimFile {
    fn flush(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable, |_| true);
        }
    }
}

fn power_lost() -> io::Error {
    io::Error::other("simulated loss of power")
}

fn sync_failed() -> io::Error {
    io::Error::other("simulated failure of fsync")
}

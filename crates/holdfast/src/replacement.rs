//! Replacing the store of a data directory by a snapshot's content, in steps that a crash can end at any point.
//!
//! ```text
//! snapshot --fill--> store.filling --rename--> store.next --adopt--> store        (the old one: store.before-restore-TIME)
//! ```
//!
//! Invariants: the store in use is not touched before the new one is whole; nothing is deleted but a half-filled directory of
//! an earlier attempt; the revision that clients see never goes back, whatever they have seen since the snapshot was taken.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::encryption::{AesGcm, EncryptionError};
use apiserver::pki::files;
use base::SystemClock;
use serde_json::{Map, Value};
use store::{Config, Content, NoPeers, RealDisk, Store};

use crate::at_rest::{is_closed, provider_of};
use crate::join::PLACE_FILE;
use crate::membership::{ENCRYPTION_FILE, shared_files};

pub const STORE: &str = "store";
const FILLING: &str = "store.filling";
const NEXT: &str = "store.next";
const KEPT: &str = "before-restore";
/// By so much the revision is moved ahead, see [`ahead_of`]: as etcd's documentation advises for Kubernetes, more than a week
/// of 1,500 writes a second.
const REVISION_BUMP: i64 = 1_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum ReplacementError {
    #[error("{}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", path.display())]
    Snapshot {
        path: PathBuf,
        #[source]
        source: etcd::snapshot::SnapshotError,
    },
    #[error("{} is no file that `holdfast store snapshot --with-keys` wrote", path.display())]
    Keys { path: PathBuf },
    #[error(
        "{} is of another cluster than the keys of the snapshot; move it away first, or choose another --data-dir",
        path.display()
    )]
    OtherKeys { path: PathBuf },
    #[error(
        "{count} values are encrypted with {provider:?}, which nothing in {} opens; give --keys FILE.keys of `holdfast store snapshot --with-keys`, or with --encryption-provider-config the EncryptionConfiguration (with aesgcm keys) of the cluster that the snapshot is of; nothing was changed",
        place.display()
    )]
    Sealed { count: usize, provider: String, place: PathBuf },
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    #[error(transparent)]
    Pki(#[from] apiserver::pki::PkiError),
    #[error("cannot make the new store in {}", path.display())]
    Fill {
        path: PathBuf,
        #[source]
        source: store::OpenError,
    },
    #[error("{} cannot be read, so what clients have seen of it is not known; move it away to restore without it", path.display())]
    Present {
        path: PathBuf,
        #[source]
        source: store::OpenError,
    },
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A snapshot that was read and found whole.
pub fn read(path: &Path) -> Result<Content, ReplacementError> {
    let unopened = |source| ReplacementError::Open { path: path.to_owned(), source };
    let file = File::open(path).map_err(unopened)?;
    if file.metadata().map_err(unopened)?.is_dir() {
        return Err(unopened(io::ErrorKind::IsADirectory.into()));
    }
    etcd::snapshot::read_snapshot(file).map_err(|source| ReplacementError::Snapshot { path: path.to_owned(), source })
}

/// The content at a revision that no client can have seen: neither of the cluster that the snapshot is of, which may have gone on
/// since, nor of what is replaced, which is at `present`.
pub fn ahead_of(content: Content, present: i64) -> Content {
    let revision = content.revision.max(present).saturating_add(REVISION_BUMP);
    Content { revision, ..content }
}

/// The revision of the store in a data directory where no server runs; 0 if there is none.
pub fn present_revision(data_dir: &Path) -> Result<i64, ReplacementError> {
    let path = data_dir.join(STORE);
    if !path.exists() {
        return Ok(0);
    }
    let disk = RealDisk::new(&path).map_err(|source| ReplacementError::File {
        operation: "open",
        path: path.clone(),
        source,
    })?;
    let store = Store::open(Config::default(), Arc::new(disk), Arc::new(SystemClock::new()), Arc::new(NoPeers))
        .map_err(|source| ReplacementError::Present { path, source })?;
    let revision = store.content().revision;
    store.close();
    Ok(revision)
}

/// The keys and certificates that a cluster's servers share, by file name.
pub struct SharedKeys(Map<String, Value>);

impl SharedKeys {
    /// Those of a data directory. Keys for Secrets are among them unless the servers are given a file with them.
    pub fn collect(data_dir: &Path) -> Result<Self, ReplacementError> {
        let mut found = Map::new();
        for name in shared_files(data_dir.join(ENCRYPTION_FILE).exists()) {
            let path = data_dir.join(name);
            let text = std::fs::read_to_string(&path).map_err(|source| ReplacementError::File {
                operation: "read",
                path,
                source,
            })?;
            found.insert(name.to_owned(), text.into());
        }
        Ok(Self(found))
    }

    /// As [`Self::read`] reads them.
    pub fn render(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// Those that `holdfast store snapshot --with-keys` wrote.
    pub fn read(path: &Path) -> Result<Self, ReplacementError> {
        let bytes = std::fs::read(path).map_err(|source| ReplacementError::Open { path: path.to_owned(), source })?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(found))
                if shared_files(false).all(|name| found.get(name).is_some_and(Value::is_string)) =>
            {
                Ok(Self(found))
            }
            _ => Err(ReplacementError::Keys { path: path.to_owned() }),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub fn has_encryption(&self) -> bool {
        self.text(ENCRYPTION_FILE).is_some()
    }

    /// Every file that is among them, and its content.
    fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        shared_files(true).filter_map(|name| Some((name, self.text(name)?)))
    }

    /// Refuses a directory that has other keys already.
    pub fn check(&self, data_dir: &Path) -> Result<(), ReplacementError> {
        for (name, text) in self.files() {
            let path = data_dir.join(name);
            if files::read_optional(&path)?.is_some_and(|found| found != text) {
                return Err(ReplacementError::OtherKeys { path });
            }
        }
        Ok(())
    }

    /// Writes them where they are missing.
    pub fn install(&self, data_dir: &Path) -> Result<(), ReplacementError> {
        files::create_directory(&data_dir.join("pki"))?;
        for (name, text) in self.files() {
            files::write_private(&data_dir.join(name), text.as_bytes())?;
        }
        Ok(())
    }
}

/// Makes sure that what is encrypted in the content can be read with the keys of the `given` file, else with `keys`, else with what the
/// data directory has.
pub fn check_sealed(
    content: &Content,
    data_dir: &Path,
    (given, keys): (Option<&Path>, Option<&SharedKeys>),
) -> Result<(), ReplacementError> {
    let path = data_dir.join(ENCRYPTION_FILE);
    let opener = match (given, keys.and_then(|keys| keys.text(ENCRYPTION_FILE))) {
        (Some(given), _) => Some(AesGcm::read(given)?),
        (None, Some(text)) => Some(AesGcm::parse(&path, text)?),
        (None, None) => AesGcm::find(&path)?,
    };
    let mut closed = content.keys.iter().filter(|kv| is_closed(opener.as_ref(), &kv.key, &kv.value));
    let Some(first) = closed.next() else { return Ok(()) };
    Err(ReplacementError::Sealed {
        provider: provider_of(&first.value),
        count: 1 + closed.count(),
        place: given.unwrap_or(data_dir).to_owned(),
    })
}

/// Puts the content beside the store in use, whole and durable, for the next [`adopt`].
pub fn prepare(data_dir: &Path, content: Content) -> Result<(), ReplacementError> {
    files::create_directory(data_dir)?;
    let (filling, next) = (data_dir.join(FILLING), data_dir.join(NEXT));
    remove(&filling)?;
    remove(&next)?;
    let fill = |source| ReplacementError::Fill { path: filling.clone(), source };
    let disk = RealDisk::new(&filling).map_err(|source| ReplacementError::File {
        operation: "create",
        path: filling.clone(),
        source,
    })?;
    Store::fill(&disk, content).map_err(fill)?;
    rename(&filling, &next)?;
    sync(data_dir)
}

/// Takes a prepared store back.
pub fn discard(data_dir: &Path) -> Result<(), ReplacementError> {
    remove(&data_dir.join(NEXT))
}

/// Whether a prepared store waits.
pub fn is_prepared(data_dir: &Path) -> bool {
    data_dir.join(NEXT).exists()
}

/// Makes a prepared store the one in use; returns where the old one is kept. Called before the store is opened.
///
/// The note of the cluster that this server had joined goes the same way: the new store is a cluster of its own.
pub fn adopt(data_dir: &Path, unix_seconds: i64) -> Result<Option<PathBuf>, ReplacementError> {
    if !is_prepared(data_dir) {
        return Ok(None);
    }
    let kept = |name: &str| data_dir.join(format!("{name}.{KEPT}-{unix_seconds}"));
    for name in [PLACE_FILE, STORE] {
        if data_dir.join(name).exists() {
            rename(&data_dir.join(name), &kept(name))?;
        }
    }
    // Last: as long as it has this name, the next start goes on here.
    rename(&data_dir.join(NEXT), &data_dir.join(STORE))?;
    sync(data_dir)?;
    Ok(Some(kept(STORE)).filter(|path| path.exists()))
}

fn rename(from: &Path, to: &Path) -> Result<(), ReplacementError> {
    std::fs::rename(from, to).map_err(|source| ReplacementError::File {
        operation: "rename",
        path: from.to_owned(),
        source,
    })
}

/// It may be missing.
fn remove(directory: &Path) -> Result<(), ReplacementError> {
    match std::fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ReplacementError::File { operation: "remove", path: directory.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<(), ReplacementError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| ReplacementError::File { operation: "sync", path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests;

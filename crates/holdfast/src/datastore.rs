//! What holds the cluster's state: a store of our own with its network to other servers, or an etcd that the user runs.
//!
//! Invariant: who leaves a note of an etcd in the data directory keeps nothing of the cluster's state there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::encryption::AtRest;
use etcd::remote::{Addresses, RemoteStore, Root, TlsTexts};
use peers::Network;
use store::Kv;

use crate::cli::{DatastoreArgs, PlaceArgs};
use crate::membership::ENCRYPTION_FILE;
use crate::replacement::STORE;

/// Where the state is not our own store: the etcd, for `holdfast status` and others.
const NOTE: &str = "datastore";

/// In the directory of a store whose member was removed: it stays so when nobody is left who says it.
const REMOVED_MARK: &str = "removed";

const REMOVED: &str = "this server was removed from its cluster and its data is of no more use; `holdfast down` deletes it, then \
                       `holdfast server --join` joins anew";

/// What the flags say.
#[derive(Debug, Clone)]
pub struct DatastoreSettings {
    /// `None`: our own store.
    pub outside: Option<Outside>,
    pub at_rest: AtRest,
}

/// An etcd of the user's.
#[derive(Debug, Clone)]
pub struct Outside {
    pub addresses: Addresses,
    pub tls: Option<TlsTexts>,
}

/// Flags that can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum DatastoreError {
    #[error("--datastore")]
    Address(#[from] etcd::remote::AddressError),
    #[error("{flag} {}", path.display())]
    File {
        flag: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("--datastore {given} does without TLS, but certificates are given; write etcds://")]
    Plain { given: String },
    #[error(
        "this cluster's state is in the etcd {etcd}: give --datastore {etcd}; to begin a new cluster choose another --data-dir, or remove {}",
        note.display()
    )]
    Forgotten { etcd: String, note: PathBuf },
}

impl DatastoreSettings {
    /// Reads the files that the flags name.
    pub fn parse(args: &DatastoreArgs, place: &PlaceArgs) -> Result<Self, DatastoreError> {
        let outside = args.datastore.as_deref().map(|url| Outside::parse(url, args)).transpose()?;
        let at_rest = match (&args.encryption_provider_config, &outside) {
            (Some(path), _) => AtRest::GivenKeys(path.clone()),
            (None, Some(_)) => AtRest::Plain,
            (None, None) => AtRest::OwnKeys(place.data_dir.join(ENCRYPTION_FILE)),
        };
        Ok(Self { outside, at_rest })
    }
}

impl Outside {
    fn parse(url: &str, args: &DatastoreArgs) -> Result<Self, DatastoreError> {
        let addresses = Addresses::parse(url)?;
        let read = |flag, path: &Option<PathBuf>| {
            let read = |path: &PathBuf| {
                let path = path.clone();
                std::fs::read_to_string(&path).map_err(|source| DatastoreError::File { flag, path, source })
            };
            path.as_ref().map(read).transpose()
        };
        let ca = read("--datastore-cafile", &args.datastore_cafile)?;
        let chain = read("--datastore-certfile", &args.datastore_certfile)?;
        let key = read("--datastore-keyfile", &args.datastore_keyfile)?;
        if !addresses.secure && (ca.is_some() || chain.is_some()) {
            return Err(DatastoreError::Plain { given: addresses.to_string() });
        }
        Ok(Self { addresses, tls: ca.map(|ca| TlsTexts { ca, client: chain.zip(key) }) })
    }

    /// Connects, and says once what that means.
    pub async fn connect(&self, at_rest: &AtRest) -> Result<RemoteStore, etcd::remote::ConnectError> {
        let store =
            RemoteStore::connect(&self.addresses, self.tls.as_ref(), Root::new(apiserver::cache::feed::ROOT)).await?;
        match at_rest {
            AtRest::Plain => tracing::warn!(
                datastore = %self.addresses,
                "the cluster's state is in this etcd; Secrets are written there without encryption, so that other API servers can read them: --encryption-provider-config names keys"
            ),
            AtRest::OwnKeys(_) | AtRest::GivenKeys(_) => {
                tracing::info!(datastore = %self.addresses, "the cluster's state is in this etcd");
            }
        }
        Ok(store)
    }
}

/// An open store.
#[derive(Clone)]
pub enum Datastore {
    Embedded {
        store: Arc<store::Store>,
        network: Arc<Network>,
        /// The store's directory.
        directory: PathBuf,
    },
    Outside(Arc<RemoteStore>),
}

impl Datastore {
    pub fn kv(&self) -> Arc<dyn Kv> {
        match self {
            Self::Embedded { store, .. } => store.clone(),
            Self::Outside(store) => store.clone(),
        }
    }

    /// Resolves with the reason when this server can't go on and the process must end: its store can no longer write (a failed fsync,
    /// a lost disk), or the cluster has removed it. An etcd may always come back.
    pub async fn lost(&self) -> Arc<str> {
        let Self::Embedded { store, network, directory } = self else { return std::future::pending().await };
        tokio::select! {
            reason = store.failed() => if !store.is_removed() {
                return format!("the store failed: {reason}").into();
            },
            _ = network.expelled() => {}
        }
        let mark = directory.join(REMOVED_MARK);
        if let Err(error) = std::fs::write(&mark, REMOVED) {
            tracing::warn!(%error, "cannot write {}", mark.display());
        }
        REMOVED.into()
    }

    /// Every acknowledged write is durable already.
    pub fn close(&self) {
        if let Self::Embedded { store, network, .. } = self {
            store.close();
            network.stop();
        }
    }
}

/// Why the store in this directory is not to be opened any more.
pub fn removal(directory: &Path) -> Option<Arc<str>> {
    directory.join(REMOVED_MARK).exists().then(|| REMOVED.into())
}

/// Leaves the note of an etcd.
pub fn write_note(data_dir: &Path, outside: &Outside) -> std::io::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    std::fs::write(data_dir.join(NOTE), outside.addresses.to_string())
}

/// Refuses to found a cluster beside the one whose state an etcd holds.
pub fn refuse_forgotten(data_dir: &Path, outside: Option<&Outside>) -> Result<(), DatastoreError> {
    match read_note(data_dir) {
        Some(etcd) if outside.is_none() => Err(DatastoreError::Forgotten { etcd, note: data_dir.join(NOTE) }),
        _ => Ok(()),
    }
}

/// Refuses a command that is about a store of our own, where an etcd holds the state. `instead`: what to do there.
pub fn refuse_outside(place: &PlaceArgs, instead: &str) -> Result<(), String> {
    match read_note(&place.data_dir) {
        Some(datastore) => Err(format!("this cluster's state is in {datastore}: {instead}")),
        None => Ok(()),
    }
}

/// Whether a cluster was founded, joined or restored here.
pub fn holds_cluster(data_dir: &Path) -> bool {
    data_dir.join(STORE).exists() || read_note(data_dir).is_some()
}

/// The etcd that holds the state of the cluster of this data directory.
pub fn read_note(data_dir: &Path) -> Option<String> {
    std::fs::read_to_string(data_dir.join(NOTE)).ok()
}

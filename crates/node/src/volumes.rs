//! A pod's volumes: made before its first container, kept up to date while it lives, taken away after its end.
//!
//! Input: the pod (which may change), objects, tokens. Output: directories under
//! `<kubelet_dir>/pods/<uid>/volumes/kubernetes.io~<kind>/<name>` and one [`VolumeEvent`] a change of fortune.
//! Invariant: content is replaced atomically (see [`atomic_writer`]); a volume whose source is gone keeps its last files
//! if it is optional or was written once.
//!
//! One file a kind, all of the same shape: `collect` gives files as a value (configMap, secret, downwardAPI, projected),
//! `apply` makes a mount (emptyDir, hostPath). Other kinds are refused with a message.

pub mod atomic_writer;
pub mod config_map;
pub mod downward_api;
pub mod empty_dir;
pub mod host_path;
pub mod ownership;
pub mod projected;
pub mod secret;
pub mod service_account_token;
pub mod subpath;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Volume};
use podlife::downward::RuntimeFacts;
use podlife::payload::Files;
use podlife::spec::{namespace, pod_spec, uid};
use tokio::sync::{Notify, mpsc, watch};

use crate::objects::{Known, Objects, Subscription, Watched};
use service_account_token::Tokens;

/// Retries of a failing mount, besides those that a changed object causes.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long the first look at an object may hold up the others.
const SETTLE: Duration = Duration::from_secs(5);

/// What volumes of every pod share.
#[derive(Clone)]
pub struct VolumeContext {
    pub kubelet_dir: PathBuf,
    pub objects: Arc<Objects>,
    pub client: kube::Client,
    pub clock: Arc<dyn Clock>,
    pub facts: RuntimeFacts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeEvent {
    /// All volumes are there.
    Ready,
    /// The message of a FailedMount event.
    Failed(String),
}

/// What one volume's content is now.
#[derive(Debug, Default)]
pub struct Collected {
    pub files: Files,
    /// When it must be collected again though no object changes (tokens).
    pub refresh_at: Option<Timestamp>,
}

/// `<kubelet_dir>/pods/<uid>`.
pub fn pod_dir(kubelet_dir: &Path, uid: &str) -> PathBuf {
    kubelet_dir.join("pods").join(uid)
}

/// Where a volume's files are on the host. `None` for a kind that is not supported.
pub fn host_directory(kubelet_dir: &Path, pod: &Pod, volume: &Volume) -> Option<PathBuf> {
    if let Some(host_path) = &volume.host_path {
        return Some(PathBuf::from(&host_path.path));
    }
    let kind = kind_of(volume)?;
    Some(pod_dir(kubelet_dir, uid(pod)).join("volumes").join(format!("kubernetes.io~{kind}")).join(&volume.name))
}

fn kind_of(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("configmap")
    } else if volume.secret.is_some() {
        Some("secret")
    } else if volume.projected.is_some() {
        Some("projected")
    } else if volume.downward_api.is_some() {
        Some("downward-api")
    } else if volume.empty_dir.is_some() {
        Some("empty-dir")
    } else if volume.host_path.is_some() {
        Some("host-path")
    } else {
        None
    }
}

/// Runs until cancelled (dropped): mounts, reports, follows changes.
pub async fn run_volumes(
    context: VolumeContext,
    mut pods: watch::Receiver<Arc<Pod>>,
    events: mpsc::UnboundedSender<VolumeEvent>,
) {
    let changed = Arc::new(Notify::new());
    let mut sources = Sources {
        context,
        changed: changed.clone(),
        config_maps: BTreeMap::new(),
        secrets: BTreeMap::new(),
        tokens: Tokens::default(),
    };
    let mut ready = false;
    let mut delay = RETRY_MIN;
    loop {
        let pod = pods.borrow_and_update().clone();
        let (problems, refresh_at) = sources.sync_all(&pod).await;
        let told = match problems.first() {
            None if ready => None,
            None => Some(VolumeEvent::Ready),
            Some(_) if ready => None,
            Some(_) => Some(VolumeEvent::Failed(problems.join("; "))),
        };
        ready |= problems.is_empty();
        if let Some(event) = told
            && events.send(event).is_err()
        {
            return;
        }
        let mut wait = refresh_at.map(|at| podlife::backoff::elapsed(sources.context.clock.now(), at));
        if problems.is_empty() {
            delay = RETRY_MIN;
        } else {
            wait = Some(wait.map_or(delay, |wait| wait.min(delay)));
            delay = (delay * 2).min(RETRY_MAX);
        }
        let timer = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => delay = RETRY_MIN,
            () = timer => {}
            outcome = pods.changed() => {
                if outcome.is_err() {
                    return;
                }
            }
        }
    }
}

/// The objects and tokens that one pod's volumes come from.
pub struct Sources {
    pub context: VolumeContext,
    changed: Arc<Notify>,
    config_maps: BTreeMap<String, Subscription<ConfigMap>>,
    secrets: BTreeMap<String, Subscription<Secret>>,
    pub tokens: Tokens,
}

impl Sources {
    async fn sync_all(&mut self, pod: &Pod) -> (Vec<String>, Option<Timestamp>) {
        let mut problems = Vec::new();
        let mut refresh_at = None::<Timestamp>;
        self.subscribe_all(pod);
        for volume in pod_spec(pod).volumes.iter().flatten() {
            match self.sync_one(pod, volume).await {
                Ok(None) => {}
                Ok(Some(at)) => refresh_at = Some(refresh_at.map_or(at, |known| known.min(at))),
                Err(error) => {
                    problems.push(format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name));
                }
            }
        }
        (problems, refresh_at)
    }

    /// Opens all watches at once, so that their first answers come together.
    fn subscribe_all(&mut self, pod: &Pod) {
        for volume in pod_spec(pod).volumes.iter().flatten() {
            for name in config_map::names(volume) {
                self.follow_config_map(pod, &name);
            }
            for name in secret::names(volume) {
                self.follow_secret(pod, &name);
            }
        }
    }

    async fn sync_one(&mut self, pod: &Pod, volume: &Volume) -> Result<Option<Timestamp>, String> {
        let directory = host_directory(&self.context.kubelet_dir, pod, volume)
            .ok_or_else(|| "this kind of volume is not supported".to_owned())?;
        if let Some(source) = &volume.empty_dir {
            return empty_dir::apply(pod, source, &directory, &self.context.facts).map(|()| None);
        }
        if let Some(source) = &volume.host_path {
            return host_path::apply(source).map(|()| None);
        }
        let collected = if let Some(source) = &volume.config_map {
            config_map::collect(self, pod, source).await?
        } else if let Some(source) = &volume.secret {
            secret::collect(self, pod, source).await?
        } else if let Some(source) = &volume.downward_api {
            downward_api::collect(self, pod, source.items.as_deref(), source.default_mode)?
        } else if let Some(source) = &volume.projected {
            projected::collect(self, pod, &volume.name, source).await?
        } else {
            return Err("this kind of volume is not supported".to_owned());
        };
        let in_memory = volume.config_map.is_none();
        empty_dir::make_directory(&directory, in_memory.then_some("")).map_err(|error| error.to_string())?;
        let group = ownership::fs_group(pod);
        if let Some(group) = group {
            ownership::apply_group_to_root(&directory, group).map_err(|error| error.to_string())?;
        }
        atomic_writer::write_files(&directory, &collected.files, group, self.context.clock.now())
            .map_err(|error| format!("cannot write files: {error}"))?;
        Ok(collected.refresh_at)
    }

    fn follow_config_map(&mut self, pod: &Pod, name: &str) {
        if !self.config_maps.contains_key(name) {
            let subscription = self.context.objects.subscribe(namespace(pod), name, &self.changed);
            self.config_maps.insert(name.to_owned(), subscription);
        }
    }

    fn follow_secret(&mut self, pod: &Pod, name: &str) {
        if !self.secrets.contains_key(name) {
            let subscription = self.context.objects.subscribe(namespace(pod), name, &self.changed);
            self.secrets.insert(name.to_owned(), subscription);
        }
    }

    /// `Ok(None)`: there is none. The error says that the API did not answer.
    async fn config_map(&mut self, pod: &Pod, name: &str) -> Result<Option<Arc<ConfigMap>>, String> {
        self.follow_config_map(pod, name);
        current(self.config_maps.get(name), "configmap", name).await
    }

    async fn secret(&mut self, pod: &Pod, name: &str) -> Result<Option<Arc<Secret>>, String> {
        self.follow_secret(pod, name);
        current(self.secrets.get(name), "secret", name).await
    }
}

async fn current<K: Watched>(
    subscription: Option<&Subscription<K>>,
    what: &str,
    name: &str,
) -> Result<Option<Arc<K>>, String> {
    let Some(subscription) = subscription else { return Ok(None) };
    subscription.settled(SETTLE).await;
    match subscription.value() {
        Known::Present(object) => Ok(Some(object)),
        Known::Absent => Ok(None),
        Known::Pending(why) => {
            Err(format!("{what} \"{name}\" is not known yet: {}", why.unwrap_or_else(|| "no answer".to_owned())))
        }
    }
}

/// Unmounts and removes all of a pod's directories. Blocking; hand it to a blocking thread. Twice is fine.
pub fn remove_pod_dir(kubelet_dir: &Path, uid: &str) -> std::io::Result<()> {
    let directory = pod_dir(kubelet_dir, uid);
    crate::runtime::teardown::unmount_below(&[&directory]);
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

//! Metadata of everything that the API serves: discovery every 30 s and one metadata watch a resource -> [`Graph`].
//!
//! Invariant: each object is watched once, in its group's preferred version; events and what cannot be listed, watched
//! and deleted is left out. A resource that discovery fails to name keeps its nodes: absence of proof is no deletion.
//! Starts nothing before somebody asks.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use reconcile::ResourceId;
use reconcile::graph::{Discovery, Graph, GraphChange, Node, Served};
use tokio::sync::watch;
use tokio::task::AbortHandle;

const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
const DISCOVERY_RETRY: Duration = Duration::from_millis(500);
/// A resource that gives no first list for so long no longer holds the others up.
const FIRST_LIST_MAX: Duration = Duration::from_secs(30);

/// See the module's text.
pub struct Everything {
    client: Client,
    graph: Arc<Graph>,
    handlers: Mutex<Vec<Handler>>,
    watches: Mutex<BTreeMap<ResourceId, ResourceWatch>>,
    synced: watch::Sender<bool>,
    discovery: Mutex<Option<AbortHandle>>,
}

type Handler = Box<dyn Fn(&GraphChange, &Graph) + Send + Sync>;

struct ResourceWatch {
    task: AbortHandle,
    listed: watch::Receiver<bool>,
}

impl Everything {
    pub fn new(client: Client) -> Arc<Self> {
        let (synced, _) = watch::channel(false);
        Arc::new(Self {
            client,
            graph: Arc::default(),
            handlers: Mutex::default(),
            watches: Mutex::default(),
            synced,
            discovery: Mutex::default(),
        })
    }

    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Calls `handler` for every change from now on, and begins to watch if nobody has yet.
    pub fn on_change(self: &Arc<Self>, handler: impl Fn(&GraphChange, &Graph) + Send + Sync + 'static) {
        lock(&self.handlers).push(Box::new(handler));
        lock(&self.discovery).get_or_insert_with(|| tokio::spawn(run_discovery(Arc::downgrade(self))).abort_handle());
    }

    /// Waits until every resource's first list is in the graph.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        if synced.wait_for(|done| *done).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn take_in(&self, step: impl FnOnce(&Graph) -> Vec<GraphChange>) {
        let handlers = lock(&self.handlers);
        for change in step(&self.graph) {
            for handler in handlers.iter() {
                handler(&change, &self.graph);
            }
        }
    }

    /// Watches what is newly served, and forgets what is served no more.
    fn follow(self: &Arc<Self>, discovery: Discovery) {
        let wanted: Vec<&Served> = discovery.served.iter().filter(|served| is_watched(served)).collect();
        let mut watches = lock(&self.watches);
        for served in &wanted {
            watches.entry(served.resource.clone()).or_insert_with(|| {
                let (mark, listed) = watch::channel(false);
                let task = tokio::spawn(run_metadata_watch(Arc::downgrade(self), served.resource.clone(), mark));
                ResourceWatch { task: task.abort_handle(), listed }
            });
        }
        let failed = |resource: &ResourceId| {
            discovery.failures.iter().any(|(group_version, _)| *group_version == resource.api_version())
        };
        let ended: Vec<ResourceId> = watches
            .keys()
            .filter(|resource| !failed(resource) && !wanted.iter().any(|served| served.resource == **resource))
            .cloned()
            .collect();
        for resource in &ended {
            if let Some(watch) = watches.remove(resource) {
                watch.task.abort();
            }
        }
        drop(watches);
        for resource in ended {
            self.take_in(|graph| graph.replace(&resource, Vec::new()));
        }
        self.graph.set_discovery(discovery);
    }

    async fn wait_for_first_lists(&self) {
        let pending: Vec<_> =
            lock(&self.watches).iter().map(|(resource, watch)| (resource.clone(), watch.listed.clone())).collect();
        let waits = pending.into_iter().map(|(resource, mut listed)| async move {
            if tokio::time::timeout(FIRST_LIST_MAX, listed.wait_for(|done| *done)).await.is_err() {
                tracing::warn!(resource = resource.group_resource(), "no list within 30 s, going on without");
            }
        });
        futures::future::join_all(waits).await;
        self.synced.send_replace(true);
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.discovery).take() {
            task.abort();
        }
        for watch in lock(&self.watches).values() {
            watch.task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_watched(served: &Served) -> bool {
    served.resource.plural != "events" && ["list", "watch", "delete"].iter().all(|verb| served.can(verb))
}

async fn run_discovery(everything: std::sync::Weak<Everything>) {
    let mut first = true;
    loop {
        let Some(everything) = everything.upgrade() else { return };
        let period = match observe_discovery(&everything.client).await {
            Ok(discovery) => {
                everything.follow(discovery);
                if first {
                    everything.wait_for_first_lists().await;
                    first = false;
                }
                DISCOVERY_PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "discovery failed, trying again");
                DISCOVERY_RETRY
            }
        };
        drop(everything);
        tokio::time::sleep(period).await;
    }
}

/// Asks what is served. A group version that fails is noted; failing to list the groups is an error.
async fn observe_discovery(client: &Client) -> Result<Discovery, kube::Error> {
    let mut discovery = Discovery::default();
    take_resources(&mut discovery, "v1", client.list_core_api_resources("v1").await);
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.as_ref().map(|version| version.group_version.clone());
        let others = group.versions.into_iter().map(|version| version.group_version);
        let mut versions: Vec<String> = preferred.into_iter().collect();
        versions.extend(others.filter(|version| !versions.contains(version)).collect::<Vec<_>>());
        for version in versions {
            let answer = client.list_api_group_resources(&version).await;
            take_resources(&mut discovery, &version, answer);
        }
    }
    Ok(discovery)
}

fn take_resources(discovery: &mut Discovery, group_version: &str, answer: Result<APIResourceList, kube::Error>) {
    let list = match answer {
        Ok(list) => list,
        Err(error) => return discovery.failures.push((group_version.to_owned(), error.to_string())),
    };
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    for entry in list.resources.into_iter().filter(|entry| !entry.name.contains('/')) {
        let known = |served: &Served| served.resource.group == group && served.resource.plural == entry.name;
        if discovery.served.iter().any(known) {
            continue;
        }
        let resource = ResourceId {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            plural: entry.name.into(),
            kind: entry.kind.into(),
        };
        discovery.served.push(Served { resource, namespaced: entry.namespaced, verbs: entry.verbs });
    }
}

async fn run_metadata_watch(
    everything: std::sync::Weak<Everything>,
    resource: ResourceId,
    mark_listed: watch::Sender<bool>,
) {
    let Some(client) = everything.upgrade().map(|everything| everything.client.clone()) else { return };
    let api_resource = ApiResource {
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        api_version: resource.api_version(),
        kind: resource.kind.to_string(),
        plural: resource.plural.to_string(),
    };
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &api_resource);
    let mut events = pin!(kube::runtime::watcher(api, watcher::Config::default()).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let Some(everything) = everything.upgrade() else { return };
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.extend(Node::new(&resource, &object.metadata)),
            Ok(Event::InitDone) => {
                let nodes = std::mem::take(&mut listed);
                everything.take_in(|graph| graph.replace(&resource, nodes));
                mark_listed.send_replace(true);
            }
            Ok(Event::Apply(object)) => {
                if let Some(node) = Node::new(&resource, &object.metadata) {
                    everything.take_in(|graph| graph.apply(node));
                }
            }
            Ok(Event::Delete(object)) => {
                if let Some(node) = Node::new(&resource, &object.metadata) {
                    everything.take_in(|graph| graph.delete(&node));
                }
            }
            Err(error) => {
                tracing::debug!(resource = resource.group_resource(), %error, "watch interrupted, starting again")
            }
        }
    }
}

//! The dispatcher: which pods this node has, and one worker for each.
//!
//! Input: the API's pods with `spec.nodeName` of this node, the runtime's sandboxes. Output: workers started, told of
//! changes, and ended. Invariants: at most one worker a uid; a pod is admitted once, against what is admitted already; a
//! sandbox whose pod the API does not know is torn down, but only after a complete list said so.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Change, Informer, Observed as Seen, WatchConfig};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::Api;
use podlife::Stage;
use podlife::admission::{NodeView, decide_admission, may_be_outdated, preempted};
use podlife::memory::Verdict;
use podlife::observed::{ContainerRecord, RunState};
use podlife::spec::{find_container, grace_seconds, is_host_network, is_new, is_pod_terminal, name, namespace, uid};

use crate::access::{ContainerTarget, LookupError, PodAccess, StreamOptions};
use crate::cri::v1;
use crate::heartbeat::{derive_allocatable, derive_node};
use crate::kubelet::Context;
use crate::observe::{POD_UID, pod_log_directory};
use crate::worker::{PodInput, Snapshot, WorkerHandle, spawn_worker};

/// Safety net under the runtime's events.
const RELIST_EVERY: Duration = Duration::from_secs(10);
/// How long a refusal may wait for a second look at the node.
const NODE_WAIT: Duration = Duration::from_secs(5);

/// A pod that makes room gets at least this long to end before the critical one starts all the same.
const VICTIM_WAIT_MIN: Duration = Duration::from_secs(10);

/// A pod that makes room for a critical one.
struct Victim {
    snapshot: tokio::sync::watch::Receiver<Snapshot>,
    grace: Duration,
}

/// Shared handle; clones are one dispatcher.
#[derive(Clone)]
pub struct Pods {
    shared: Arc<Shared>,
}

struct Shared {
    context: Arc<Context>,
    workers: Mutex<HashMap<String, WorkerHandle>>,
    /// This node alone, for admission.
    node: Arc<Informer<Node>>,
    synced: std::sync::atomic::AtomicBool,
}

impl Pods {
    pub fn new(context: Arc<Context>) -> Self {
        let only = WatchConfig::default().fields(&format!("metadata.name={}", context.config.node_name));
        let node = Informer::spawn(context.client.clone(), only);
        let shared = Shared {
            context,
            workers: Mutex::new(HashMap::new()),
            node,
            synced: std::sync::atomic::AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, HashMap<String, WorkerHandle>> {
        self.shared.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops all workers; their tasks end, their containers go on.
    pub fn stop(&self) {
        self.workers().clear();
    }

    /// Follows the API for ever.
    pub async fn run(&self) {
        let context = &self.shared.context;
        let config = WatchConfig::default().fields(&format!("spec.nodeName={}", context.config.node_name));
        let informer = Informer::<Pod>::spawn(context.client.clone(), config);
        let mut changes = informer.changes();
        tokio::join!(informer.synced(), self.shared.node.synced());
        self.resync(&informer).await;
        self.adopt_orphans().await;
        self.shared.synced.store(true, std::sync::atomic::Ordering::Release);
        let mut relist = tokio::time::interval(RELIST_EVERY);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = HashMap::new();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Seen::Changed(Change::Applied { new, .. })) => self.apply(&new).await,
                    Some(Seen::Changed(Change::Deleted(old))) => self.tell_gone(uid(&old), &old),
                    Some(Seen::Lagged) => self.resync(&informer).await,
                    None => return,
                },
                _ = relist.tick() => self.relist(&mut seen).await,
            }
        }
    }

    /// Everything in the cache, and nothing that is not. What has been admitted comes first, then the oldest.
    async fn resync(&self, informer: &Informer<Pod>) {
        let mut pods = informer.list();
        pods.sort_by_key(|pod| (is_new(pod), pod.metadata.creation_timestamp.clone()));
        for pod in &pods {
            self.apply(pod).await;
        }
        let stale = {
            let workers = self.workers();
            let known = |uid_: &str| pods.iter().any(|pod| uid(pod) == uid_);
            workers
                .iter()
                .filter(|(uid, _)| !known(uid))
                .map(|(uid, worker)| (uid.clone(), worker.snapshot.borrow().pod.clone()))
                .collect::<Vec<_>>()
        };
        for (uid, pod) in stale {
            self.tell_gone(&uid, &pod);
        }
    }

    async fn apply(&self, pod: &Arc<Pod>) {
        if let Some(worker) = self.workers().get(uid(pod)) {
            worker.input.send_if_modified(|input| {
                let newer = input.pod.metadata.resource_version != pod.metadata.resource_version;
                if newer {
                    input.pod = pod.clone();
                }
                newer
            });
            return;
        }
        let admitted = if is_new(pod) { self.admit(pod).await } else { Ok(Vec::new()) };
        let victims: Vec<Victim> = admitted.iter().flatten().filter_map(|victim| self.preempt(victim)).collect();
        let refused = admitted.err();
        if let Some(verdict) = &refused {
            self.shared.context.recorder.warning(pod, "", &verdict.reason, &verdict.message);
        }
        let held = !victims.is_empty();
        self.spawn(PodInput { pod: pod.clone(), gone: false, refused, held, evicted: None });
        if held {
            tokio::spawn(self.clone().release_after(uid(pod).to_owned(), victims));
        }
    }

    /// Lets a pod start once those that make room for it have ended, or have had half as long again as they may take.
    async fn release_after(self, held: String, victims: Vec<Victim>) {
        for Victim { mut snapshot, grace } in victims {
            let ended = snapshot.wait_for(|seen| matches!(seen.stage, Stage::Terminated | Stage::Forgotten));
            // A worker that is gone has ended its pod, too.
            if tokio::time::timeout((grace + grace / 2).max(VICTIM_WAIT_MIN), ended).await.is_err() {
                tracing::warn!("a pod that makes room for a critical one has not ended in time");
            }
        }
        if let Some(worker) = self.workers().get(&held) {
            worker.input.send_modify(|input| input.held = false);
        }
    }

    fn spawn(&self, input: PodInput) {
        let key = uid(&input.pod).to_owned();
        let pods = self.clone();
        let ended = move |uid: &str| {
            pods.workers().remove(uid);
            pods.shared.context.owners.remove_pod(uid);
        };
        let handle = spawn_worker(self.shared.context.clone(), input, ended);
        self.workers().insert(key, handle);
    }

    /// `Ok` names the pods that must go.
    async fn admit(&self, pod: &Pod) -> Result<Vec<Arc<Pod>>, Verdict> {
        let context = &self.shared.context;
        let name = &context.config.node_name;
        let others = self.admitted();
        let seen = self.shared.node.get("", name);
        let view = match &seen {
            Some(node) => view_of(context, node),
            None => view_of(context, &derive_node(context)),
        };
        let verdict = match decide_admission(pod, &view, &others) {
            Err(verdict) if may_be_outdated(&verdict) => verdict,
            decided => return decided,
        };
        // The pod may have come here because of a change of the node that our watch has yet to tell.
        let api: Api<Node> = Api::all(context.client.clone());
        match tokio::time::timeout(NODE_WAIT, api.get(name)).await {
            Ok(Ok(node)) => decide_admission(pod, &view_of(context, &node), &others),
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot look at the node again; the pod is refused by what was seen last");
                Err(verdict)
            }
            Err(_) => Err(verdict),
        }
    }

    /// The pods that hold a part of the node.
    fn admitted(&self) -> Vec<Arc<Pod>> {
        let over = |stage: Stage| matches!(stage, Stage::Refused | Stage::Terminated | Stage::Forgotten);
        let workers = self.workers();
        let snapshots = workers.values().map(|worker| worker.snapshot.borrow());
        let holding = snapshots.filter(|snapshot| !over(snapshot.stage) && !is_pod_terminal(&snapshot.pod));
        holding.map(|snapshot| snapshot.pod.clone()).collect()
    }

    fn tell_gone(&self, uid: &str, pod: &Arc<Pod>) {
        if let Some(worker) = self.workers().get(uid) {
            worker.input.send_modify(|input| {
                input.pod = pod.clone();
                input.gone = true;
            });
        }
    }

    /// `None`: it has ended meanwhile.
    fn preempt(&self, victim: &Pod) -> Option<Victim> {
        let verdict = preempted();
        self.shared.context.recorder.warning(victim, "", &verdict.reason, &verdict.message);
        let grace = Duration::from_secs(u64::try_from(grace_seconds(victim)).unwrap_or(0));
        self.evict(uid(victim), verdict, grace);
        let snapshot = self.workers().get(uid(victim))?.snapshot.clone();
        Some(Victim { snapshot, grace })
    }

    /// Ends a pod for the node's sake.
    pub fn evict(&self, uid: &str, verdict: Verdict, grace: Duration) {
        if let Some(worker) = self.workers().get(uid) {
            worker.input.send_modify(|input| input.evicted = Some((verdict, grace)));
        }
    }

    /// Sandboxes of pods that the API does not know get a worker that only ends them.
    async fn adopt_orphans(&self) {
        let sandboxes = match self.shared.context.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await {
            Ok(list) => list.items,
            Err(error) => {
                tracing::warn!(%error, "cannot list sandboxes; orphans stay until the next relist");
                return;
            }
        };
        for sandbox in sandboxes {
            let Some(metadata) = sandbox.metadata.filter(|metadata| !metadata.uid.is_empty()) else { continue };
            if self.workers().contains_key(&metadata.uid) {
                continue;
            }
            tracing::info!(pod = %metadata.name, namespace = %metadata.namespace, "ending a pod that was deleted while the node was away");
            let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
            pod.metadata.name = Some(metadata.name);
            pod.metadata.namespace = Some(metadata.namespace);
            pod.metadata.uid = Some(metadata.uid);
            self.spawn(PodInput { pod: Arc::new(pod), gone: true, refused: None, held: false, evicted: None });
        }
    }

    /// Wakes the workers whose sandboxes or containers changed state since the last relist.
    async fn relist(&self, seen: &mut HashMap<String, (String, i32)>) {
        let cri = &self.shared.context.cri;
        let lists = tokio::try_join!(
            cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()),
            cri.list_containers(v1::ListContainersRequest::default())
        );
        let (sandboxes, containers) = match lists {
            Ok(lists) => lists,
            Err(error) => {
                tracing::warn!(%error, "relist failed");
                return;
            }
        };
        let sandboxes = sandboxes.items.into_iter().map(|sandbox| (sandbox.id, sandbox.labels, sandbox.state));
        let containers = containers.containers.into_iter().map(|c| (c.id, c.labels, 100 + c.state));
        let mut now = HashMap::new();
        for (id, mut labels, state) in sandboxes.chain(containers) {
            let Some(owner) = labels.remove(POD_UID) else { continue };
            if seen.get(&id).is_none_or(|(_, known)| *known != state) {
                self.wake(&owner);
            }
            now.insert(id, (owner, state));
        }
        for (id, (owner, _)) in seen.iter() {
            if !now.contains_key(id) {
                self.wake(owner);
            }
        }
        for (id, (owner, _)) in &now {
            self.shared.context.owners.insert(id, owner);
        }
        *seen = now;
    }

    pub fn wake(&self, uid: &str) {
        if let Some(worker) = self.workers().get(uid) {
            worker.wake.notify_one();
        }
    }

    /// A container or sandbox ended. One that nobody owns is of another client of the runtime.
    pub fn tell_exit(&self, id: &str) {
        let Some(uid) = self.shared.context.owners.get(id) else { return };
        if let Some(worker) = self.workers().get(&uid) {
            worker.exits.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), 0);
            worker.wake.notify_one();
        }
    }

    /// After a gap in the events.
    pub fn wake_all(&self) {
        for worker in self.workers().values() {
            worker.wake.notify_one();
        }
    }

    /// Every pod of the API and every sandbox of the runtime has its worker: what has none may be swept away.
    pub fn is_synced(&self) -> bool {
        self.shared.synced.load(std::sync::atomic::Ordering::Acquire)
    }

    /// All pods as last seen.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.workers().values().map(|worker| worker.snapshot.borrow().clone()).collect()
    }

    fn find(&self, namespace_: &str, pod: &str) -> Result<Snapshot, LookupError> {
        let mut found = self.snapshots();
        found.retain(|snapshot| name(&snapshot.pod) == pod && namespace(&snapshot.pod) == namespace_);
        // A deleted pod and its successor may overlap; the younger is meant.
        found.sort_by_key(|snapshot| snapshot.pod.metadata.creation_timestamp.clone());
        found.pop().ok_or_else(|| LookupError::PodNotFound(pod.to_owned()))
    }

    fn target_of(&self, snapshot: &Snapshot, record: &ContainerRecord) -> ContainerTarget {
        let pod = &snapshot.pod;
        let spec = find_container(pod, &record.name);
        let log_dir = pod_log_directory(&self.shared.context.config.pod_log_dir, namespace(pod), name(pod), uid(pod));
        let log_path = if record.log_path.starts_with('/') {
            PathBuf::from(&record.log_path)
        } else {
            log_dir.join(crate::container_config::log_path(&record.name, record.attempt))
        };
        ContainerTarget {
            pod_uid: uid(pod).to_owned(),
            container_id: record.id.clone(),
            running: record.state == RunState::Running,
            tty: spec.as_ref().is_some_and(|spec| spec.tty == Some(true)),
            stdin: spec.as_ref().is_some_and(|spec| spec.stdin == Some(true)),
            log_path,
        }
    }

    fn lookup(
        &self,
        namespace_: &str,
        pod: &str,
        container: &str,
        back: usize,
    ) -> Result<ContainerTarget, LookupError> {
        let snapshot = self.find(namespace_, pod)?;
        if let Some(record) = snapshot.observed.instances(container).nth(back) {
            return Ok(self.target_of(&snapshot, record));
        }
        let (pod, container) = (pod.to_owned(), container.to_owned());
        if find_container(&snapshot.pod, &container).is_none() {
            return Err(LookupError::ContainerNotFound { pod, container });
        }
        if back > 0 {
            return Err(LookupError::NoPrevious { pod, container });
        }
        let status = snapshot.status.clone();
        let statuses = [&status.container_statuses, &status.init_container_statuses];
        let waiting = statuses.into_iter().flatten().flatten().find(|status| status.name == container);
        let reason = waiting.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
        Err(LookupError::ContainerWaiting { pod, container, reason: reason.unwrap_or_default() })
    }
}

impl PodAccess for Pods {
    fn container<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<ContainerTarget, LookupError>> {
        Box::pin(async move { self.lookup(namespace, pod, container, 0) })
    }

    fn previous_container<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<ContainerTarget, LookupError>> {
        Box::pin(async move { self.lookup(namespace, pod, container, 1) })
    }

    fn exec_url<'a>(
        &'a self,
        container_id: &'a str,
        options: &'a StreamOptions,
    ) -> BoxFuture<'a, Result<String, LookupError>> {
        Box::pin(async move {
            let request = v1::ExecRequest {
                container_id: container_id.to_owned(),
                cmd: options.command.clone(),
                tty: options.tty,
                stdin: options.stdin,
                stdout: options.stdout,
                stderr: options.stderr && !options.tty,
            };
            Ok(self.shared.context.cri.exec(request).await?.url)
        })
    }

    fn attach_url<'a>(
        &'a self,
        container_id: &'a str,
        options: &'a StreamOptions,
    ) -> BoxFuture<'a, Result<String, LookupError>> {
        Box::pin(async move {
            let request = v1::AttachRequest {
                container_id: container_id.to_owned(),
                tty: options.tty,
                stdin: options.stdin,
                stdout: options.stdout,
                stderr: options.stderr && !options.tty,
            };
            Ok(self.shared.context.cri.attach(request).await?.url)
        })
    }

    fn network_namespace<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
    ) -> BoxFuture<'a, Result<Option<PathBuf>, LookupError>> {
        Box::pin(async move {
            let snapshot = self.find(namespace, pod)?;
            if is_host_network(&snapshot.pod) {
                return Ok(None);
            }
            let not_found = || LookupError::PodNotFound(pod.to_owned());
            let sandbox = snapshot.observed.ready_sandbox().ok_or_else(not_found)?;
            let request = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: true };
            let reply = self.shared.context.cri.pod_sandbox_status(request).await?;
            parse_namespace_path(reply.info.get("info").map(String::as_str).unwrap_or_default())
                .map(Some)
                .ok_or_else(not_found)
        })
    }

    fn changed<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Ok(snapshot) = self.find(namespace, pod) else { return };
            let receiver = self.workers().get(uid(&snapshot.pod)).map(|worker| worker.snapshot.clone());
            if let Some(mut receiver) = receiver {
                // The worker's end is a change too.
                if receiver.changed().await.is_err() {
                    tracing::trace!("pod ended");
                }
            }
        })
    }
}

fn view_of(context: &Context, node: &Node) -> NodeView {
    NodeView::new(node, &derive_allocatable(context))
}

/// From the runtime's verbose JSON: the OCI spec's network namespace.
fn parse_namespace_path(info: &str) -> Option<PathBuf> {
    let info: serde_json::Value = serde_json::from_str(info).ok()?;
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
    network["path"].as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_namespace_is_in_the_oci_spec() {
        let info =
            r#"{"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/x"}]}}}"#;
        assert_eq!(parse_namespace_path(info), Some(PathBuf::from("/run/netns/x")));
        assert_eq!(parse_namespace_path("{}"), None);
    }
}

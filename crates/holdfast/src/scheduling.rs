//! The scheduler's shell: informers in, bindings and `PodScheduled` conditions out.
//!
//! One task pops Pods and decides; bindings are written by up to [`BINDINGS_MAX`] tasks at once, each against a node that
//! already counts the Pod as its own. Invariant: a Pod is in the queue, being bound, or bound; never in two of these.
//! A binding that fails frees the node again and the Pod is tried anew after its back-off.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Clock, OsRng, Rng};
use client::{Change, EventRecorder, Informers};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use scheduler::snapshot::{PodView, has_ended, pod_key};
use scheduler::{Decision, Queue, QueueEvent, Snapshot, decide, explain};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tracing::{debug, warn};

/// Pods whose `spec.schedulerName` is another one are left alone.
const SCHEDULER_NAME: &str = "default-scheduler";
const BINDINGS_MAX: usize = 64;

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    queue: Queue,
    /// Pods whose binding is being written.
    binding: HashSet<String>,
}

/// Runs until its task is dropped.
pub async fn run(
    informers: Arc<Informers>,
    recorder: EventRecorder,
    clock: Arc<dyn Clock>,
) -> Result<(), std::convert::Infallible> {
    let shared = Arc::new(Shared { state: Mutex::default(), wake: Notify::new(), clock });
    observe(&informers, &shared).await;
    let writer = Arc::new(Writer { client: informers.client().clone(), recorder });
    let slots = Arc::new(Semaphore::new(BINDINGS_MAX));
    let pods = informers.of::<Pod>();
    loop {
        let Some(key) = shared.pop() else {
            shared.wait().await;
            continue;
        };
        let Some((namespace, name)) = key.split_once('/') else { continue };
        let Some(pod) = pods.get(namespace, name) else {
            shared.lock().queue.remove(&key);
            continue;
        };
        let decision = shared.decide(&key, &pod);
        let Ok(slot) = slots.clone().acquire_owned().await else { continue };
        let (shared, writer) = (shared.clone(), writer.clone());
        tokio::spawn(async move {
            writer.apply(&shared, &key, &pod, &decision).await;
            drop(slot);
        });
    }
}

async fn observe(informers: &Informers, shared: &Arc<Shared>) {
    let (nodes, pods) = (informers.of::<Node>(), informers.of::<Pod>());
    nodes.synced().await;
    // Handlers hold the state weakly: after a restart of this component the old ones do nothing.
    let weak = Arc::downgrade(shared);
    nodes.on_change(move |change| {
        if let Some(shared) = weak.upgrade() {
            shared.observe_node(change);
        }
    });
    let weak = Arc::downgrade(shared);
    pods.on_change(move |change| {
        if let Some(shared) = weak.upgrade() {
            shared.observe_pod(change);
        }
    });
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next Pod that is not being bound already: an event may have brought one back meanwhile.
    fn pop(&self) -> Option<String> {
        let mut state = self.lock();
        loop {
            let key = state.queue.pop(self.clock.monotonic())?;
            if !state.binding.contains(&key) {
                return Some(key);
            }
        }
    }

    async fn wait(&self) {
        let wake_at = self.lock().queue.next_wake();
        let pause = wake_at.map_or(Duration::from_secs(3600), |at| at.saturating_sub(self.clock.monotonic()));
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Decides, and counts a Pod that is to be bound on its node at once.
    fn decide(&self, key: &str, pod: &Arc<Pod>) -> Decision {
        let mut state = self.lock();
        let decision = decide(&PodView::new(pod.clone()), &state.snapshot, OsRng.next_u64());
        if let Decision::Bind { node, .. } = &decision {
            state.snapshot.set_pod(pod, node);
            state.binding.insert(key.to_owned());
        }
        decision
    }

    fn observe_node(&self, change: &Change<Node>) {
        let mut state = self.lock();
        match change {
            Change::Applied { old, new } => {
                state.snapshot.set_node(new.clone());
                if old.as_ref().is_none_or(|old| could_fit_more(old, new)) {
                    state.queue.event(QueueEvent::NodeChanged, self.clock.monotonic());
                    self.wake.notify_one();
                }
            }
            Change::Deleted(node) => state.snapshot.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn observe_pod(&self, change: &Change<Pod>) {
        let mut state = self.lock();
        let pod = change.object();
        let key = pod_key(pod);
        match change {
            Change::Deleted(_) => {
                state.queue.remove(&key);
                state.free(&key, self.clock.monotonic());
            }
            Change::Applied { .. } if assigned_node(pod).is_some() => {
                state.queue.remove(&key);
                state.binding.remove(&key);
                if has_ended(pod) {
                    state.free(&key, self.clock.monotonic());
                } else {
                    state.snapshot.set_pod(pod, assigned_node(pod).unwrap_or_default());
                }
            }
            Change::Applied { old, new } if is_ours(new) => {
                let changed =
                    old.as_ref().is_none_or(|old| old.spec != new.spec || old.metadata.labels != new.metadata.labels);
                if changed && !state.binding.contains(&key) {
                    state.queue.push(&key, priority(new));
                }
            }
            Change::Applied { .. } => state.queue.remove(&key),
        }
        self.wake.notify_one();
    }
}

impl State {
    /// The Pod no longer holds anything; those that wait may fit now.
    fn free(&mut self, key: &str, now: Duration) {
        self.binding.remove(key);
        if self.snapshot.remove_pod(key) {
            self.queue.event(QueueEvent::PodGone, now);
        }
    }
}

struct Writer {
    client: Client,
    recorder: EventRecorder,
}

impl Writer {
    async fn apply(&self, shared: &Shared, key: &str, pod: &Pod, decision: &Decision) {
        let now = shared.clock.monotonic();
        match decision {
            Decision::Bind { node, .. } => self.bind(shared, key, pod, node).await,
            Decision::Gated { .. } => shared.lock().queue.failed(key, now, true),
            Decision::Unschedulable { .. } => {
                shared.lock().queue.failed(key, now, true);
                self.tell(shared, pod, &explain(decision).unwrap_or_default()).await;
            }
        }
        shared.wake.notify_one();
    }

    async fn bind(&self, shared: &Shared, key: &str, pod: &Pod, node: &str) {
        let Err(error) = self.write_binding(pod, node).await else {
            self.recorder.normal(pod, "Scheduled", format!("Successfully assigned {key} to {node}"));
            return;
        };
        let mut state = shared.lock();
        state.free(key, shared.clock.monotonic());
        match &error {
            kube::Error::Api(status) if status.code == 404 => state.queue.remove(key),
            _ => {
                warn!(pod = key, node, "binding failed: {error}");
                state.queue.failed(key, shared.clock.monotonic(), false);
            }
        }
    }

    async fn write_binding(&self, pod: &Pod, node: &str) -> Result<(), kube::Error> {
        let meta = &pod.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let binding = Binding {
            metadata: ObjectMeta {
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let written = self
            .pods(pod)
            .create_subresource::<_, serde_json::Value>("binding", name, &PostParams::default(), &binding)
            .await;
        written.map(|_status| ())
    }

    /// Says why the Pod waits, in its condition and as an Event.
    async fn tell(&self, shared: &Shared, pod: &Pod, message: &str) {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let known = conditions.iter().find(|c| c.type_ == "PodScheduled");
        self.recorder.warning(pod, "FailedScheduling", message);
        if known.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message)) {
            return;
        }
        let patch = json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "observedGeneration": pod.metadata.generation,
            "lastTransitionTime": known.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone())
                .map_or_else(|| json!(shared.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()), |t| json!(t)),
        }]}});
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if let Err(error) = self.pods(pod).patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            debug!(pod = name, "condition not written: {error}");
        }
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }
}

fn assigned_node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty())
}

fn is_ours(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).unwrap_or(SCHEDULER_NAME);
    scheduler == SCHEDULER_NAME && pod.metadata.deletion_timestamp.is_none() && !has_ended(pod)
}

fn priority(pod: &Pod) -> i64 {
    pod.spec.as_ref().and_then(|s| s.priority).map_or(0, i64::from)
}

/// False for a heartbeat: nothing that a filter reads has changed.
fn could_fit_more(old: &Node, new: &Node) -> bool {
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    old.metadata.labels != new.metadata.labels || old.spec != new.spec || allocatable(old) != allocatable(new)
}

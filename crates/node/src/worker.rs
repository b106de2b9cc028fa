//! One pod's worker: observe, plan, act, publish, wait. The only place where a plan's actions become calls.
//!
//! Input: the pod (newest version), wake-ups, results of its own actions. Output: calls to the runtime, the wanted status.
//! Invariants: one worker a pod, so nothing of a pod runs twice; an action in flight is in [`PodMemory`] until its result
//! arrives as a message; every wait has an event or the plan's `wake_in` behind it.
//!
//! Actions themselves: [`actions`]. Starting one container: [`start`].

pub mod actions;
pub mod start;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use podlife::memory::{Busy, KillReason, StartFailure, Verdict};
use podlife::plan::{PlanInputs, ProbeTarget, deadline_passed, deadline_verdict};
use podlife::probe::ProbeKind;
use podlife::spec::{find_container, name, uid};
use podlife::{Observed, PodMemory, PodPlan, RunState, Stage, plan_pod};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use crate::kubelet::Context;
use crate::observe::{Remembered, observe_pod};
use crate::prober::{ProbeResult, ProbeTask, run_probe};
use crate::status::{Wanted, run_publisher};
use crate::volumes::{VolumeEvent, run_volumes};

/// Results waiting to be taken in; senders wait when it is full.
const MESSAGES_MAX: usize = 64;
/// A runtime that does not answer is asked again after this.
const OBSERVE_RETRY: Duration = Duration::from_secs(1);

/// Failures that count in the image's back-off.
const IMAGE_FAILURES: [&str; 4] = ["ErrImagePull", "ErrImageNeverPull", "ImageInspectError", "InvalidImageName"];

/// What the dispatcher tells a worker.
#[derive(Debug, Clone)]
pub struct PodInput {
    pub pod: Arc<Pod>,
    /// Deleted from the API (or never was there: an orphan of the runtime).
    pub gone: bool,
    /// Set by admission.
    pub refused: Option<Verdict>,
    /// The pods that make room for this one have not ended yet.
    pub held: bool,
    /// Set by the eviction manager, with the grace it allows.
    pub evicted: Option<(Verdict, Duration)>,
}

/// What a worker shows to others.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub pod: Arc<Pod>,
    pub observed: Arc<Observed>,
    pub status: Arc<PodStatus>,
    pub stage: Stage,
}

/// How the dispatcher reaches a worker.
pub struct WorkerHandle {
    pub input: watch::Sender<PodInput>,
    pub wake: Arc<Notify>,
    pub snapshot: watch::Receiver<Snapshot>,
    /// Containers and sandboxes that ended by the runtime's events, with how often CRI was asked since.
    pub exits: Arc<Mutex<HashMap<String, u32>>>,
}

/// Results of actions.
#[derive(Debug)]
pub enum Message {
    Volume(VolumeEvent),
    Sandbox(Result<(), String>),
    Started {
        name: String,
        outcome: Result<(), StartFailure>,
    },
    /// postStart failed: the running instance must go.
    HookFailed {
        name: String,
        container_id: String,
    },
    Stopped {
        name: String,
    },
    Removed {
        name: String,
    },
    SandboxStopped,
    Cleaned,
    Probe(ProbeResult),
}

impl From<ProbeResult> for Message {
    fn from(result: ProbeResult) -> Self {
        Self::Probe(result)
    }
}

/// The worker's own state.
pub struct Worker {
    context: Arc<Context>,
    input: watch::Receiver<PodInput>,
    pod: Arc<Pod>,
    pods_for_volumes: watch::Sender<Arc<Pod>>,
    wake: Arc<Notify>,
    exits: Arc<Mutex<HashMap<String, u32>>>,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    memory: PodMemory,
    remembered: Remembered,
    observed: Arc<Observed>,
    /// The runtime's view may have changed since it was observed.
    stale: bool,
    /// What was told last: the base of the next plan.
    previous: PodStatus,
    wanted: watch::Sender<Wanted>,
    snapshot: watch::Sender<Snapshot>,
    volumes: Option<AbortHandle>,
    tasks: HashMap<String, AbortHandle>,
    probes: BTreeMap<ProbeTarget, AbortHandle>,
    sandbox_failures: u32,
    backoff_told: HashMap<String, String>,
}

/// Starts a worker; it ends by itself once the pod is forgotten, and then calls `ended`.
pub fn spawn_worker(context: Arc<Context>, input: PodInput, ended: impl FnOnce(&str) + Send + 'static) -> WorkerHandle {
    let pod = input.pod.clone();
    let (sender, messages) = mpsc::channel(MESSAGES_MAX);
    let wake = Arc::new(Notify::new());
    let exits = Arc::new(Mutex::new(HashMap::new()));
    let (wanted, wanted_receiver) = watch::channel(Wanted::default());
    let previous = pod.status.clone().unwrap_or_default();
    let observed = Arc::new(Observed::default());
    let (snapshot, snapshot_receiver) = watch::channel(Snapshot {
        pod: pod.clone(),
        observed: observed.clone(),
        status: Arc::new(previous.clone()),
        stage: if input.refused.is_some() { Stage::Refused } else { Stage::Sandboxing },
    });
    tokio::spawn(run_publisher(context.client.clone(), pod.clone(), wanted_receiver));
    let (input_sender, input) = watch::channel(input);
    let worker = Worker {
        context,
        input,
        pods_for_volumes: watch::channel(pod.clone()).0,
        pod,
        wake: wake.clone(),
        exits: exits.clone(),
        sender,
        messages,
        memory: PodMemory::default(),
        remembered: Remembered::default(),
        observed,
        stale: true,
        previous,
        wanted,
        snapshot,
        volumes: None,
        tasks: HashMap::new(),
        probes: BTreeMap::new(),
        sandbox_failures: 0,
        backoff_told: HashMap::new(),
    };
    tokio::spawn(async move {
        let uid = uid(&worker.pod).to_owned();
        worker.run().await;
        ended(&uid);
    });
    WorkerHandle { input: input_sender, wake, snapshot: snapshot_receiver, exits }
}

impl Worker {
    async fn run(mut self) {
        loop {
            self.take_input();
            while let Ok(message) = self.messages.try_recv() {
                self.take_message(message);
            }
            if self.stale && !self.memory.refused {
                self.stale = false;
                match observe_pod(&self.context.cri, uid(&self.pod), &mut self.remembered).await {
                    Ok(observed) => self.take_observed(observed),
                    Err(error) => {
                        tracing::warn!(%error, pod = name(&self.pod), "cannot observe the pod");
                        self.stale = true;
                        tokio::time::sleep(OBSERVE_RETRY).await;
                        continue;
                    }
                }
            }
            let plan = self.plan();
            self.publish(&plan);
            if self.act(&plan).await {
                return;
            }
            self.reconcile_probes(&plan.probes);
            let look_again = self.look_again();
            let wake_in = [plan.wake_in, look_again].into_iter().flatten().min();
            self.stale |= look_again.is_some();
            if !self.wait(wake_in).await {
                return;
            }
        }
    }

    fn take_input(&mut self) {
        let input = self.input.borrow_and_update().clone();
        let changed = self.pod.metadata.resource_version != input.pod.metadata.resource_version;
        if changed {
            let old = std::mem::replace(&mut self.pod, input.pod.clone());
            self.pods_for_volumes.send_replace(input.pod.clone());
            // A changed pod may have cured what kept its containers from starting; a registry is not cured by that.
            if old.spec != input.pod.spec || old.metadata.annotations != input.pod.metadata.annotations {
                for memory in self.memory.containers.values_mut() {
                    if memory.failure.as_ref().is_some_and(|failure| !IMAGE_FAILURES.contains(&failure.reason.as_str()))
                    {
                        memory.failure = None;
                    }
                }
            }
        }
        self.memory.gone |= input.gone;
        self.memory.held = input.held;
        if let Some(verdict) = input.refused {
            self.memory.refused = true;
            self.memory.verdict.get_or_insert(verdict);
        }
        if let Some((verdict, grace)) = input.evicted {
            self.memory.verdict.get_or_insert(verdict);
            self.memory.grace_override.get_or_insert(grace);
        }
    }

    fn take_message(&mut self, message: Message) {
        tracing::trace!(pod = name(&self.pod), ?message, "told");
        let now = self.context.clock.now();
        self.stale |= !matches!(message, Message::Volume(_) | Message::Probe(_));
        match message {
            Message::Volume(VolumeEvent::Ready) => self.memory.prepared = true,
            Message::Volume(VolumeEvent::Failed(problem)) => {
                self.context.recorder.warning(&self.pod, "", "FailedMount", &problem);
            }
            Message::Sandbox(outcome) => {
                self.memory.sandbox_busy = false;
                match outcome {
                    Ok(()) => self.sandbox_failures = 0,
                    Err(problem) => self.take_sandbox_failure(&problem, now),
                }
            }
            Message::Started { name, outcome } => {
                self.tasks.remove(&name);
                let memory = self.memory.containers.entry(name).or_default();
                memory.busy = None;
                memory.failure = outcome.err();
                if memory.failure.as_ref().is_some_and(|failure| IMAGE_FAILURES.contains(&failure.reason.as_str())) {
                    memory.pull_backoff.advance(now);
                }
            }
            Message::HookFailed { name, container_id } => {
                let message = "FailedPostStartHook".to_owned();
                let kill = KillReason { container_id, message, grace_seconds: None };
                self.memory.containers.entry(name).or_default().kill = Some(kill);
            }
            Message::Stopped { name } | Message::Removed { name } => {
                self.tasks.remove(&name);
                self.memory.containers.entry(name).or_default().busy = None;
            }
            Message::SandboxStopped => self.memory.sandbox_busy = false,
            Message::Cleaned => {
                self.memory.cleaned = true;
                self.memory.cleaning = false;
            }
            Message::Probe(result) => self.take_probe(result),
        }
    }

    fn take_sandbox_failure(&mut self, problem: &str, now: jiff::Timestamp) {
        self.sandbox_failures = self.sandbox_failures.saturating_add(1);
        // 0.5 s, 1 s, 2 s ... 16 s: the usual cause is a network that is not up yet.
        let wait = Duration::from_millis(500 << self.sandbox_failures.min(6) >> 1);
        self.memory.sandbox_retry_at = now.checked_add(wait).ok();
        let message = format!("Failed to create pod sandbox: {problem}");
        tracing::warn!(pod = name(&self.pod), "{message}");
        self.context.recorder.warning(&self.pod, "", "FailedCreatePodSandBox", &message);
    }

    fn take_probe(&mut self, result: ProbeResult) {
        let ProbeResult { target, success } = result;
        let Some(container) = find_container(&self.pod, &target.container) else { return };
        let memory = self.memory.containers.entry(target.container.clone()).or_default();
        if memory.container_id != target.container_id {
            return;
        }
        match (target.kind, success) {
            (ProbeKind::Readiness, ready) => memory.readiness = Some(ready),
            (ProbeKind::Startup, true) => memory.startup = Some(true),
            (ProbeKind::Liveness, true) => {}
            (kind, false) => {
                let grace = kind.of(&container).and_then(|probe| probe.termination_grace_period_seconds);
                let what = if kind == ProbeKind::Liveness { "liveness" } else { "startup" };
                memory.kill = Some(KillReason {
                    container_id: target.container_id,
                    message: format!("Container {} failed {what} probe", target.container),
                    grace_seconds: grace,
                });
            }
        }
    }

    fn take_observed(&mut self, observed: Observed) {
        for record in observed.containers.iter().rev() {
            let memory = self.memory.containers.entry(record.name.clone()).or_default();
            if memory.container_id != record.id {
                memory.container_id = record.id.clone();
                memory.startup = None;
                memory.readiness = None;
            }
        }
        for (name, memory) in &mut self.memory.containers {
            let alive = observed.newest(name).map(|record| record.id.as_str());
            if memory.kill.as_ref().is_some_and(|kill| Some(kill.container_id.as_str()) != alive) {
                memory.kill = None;
            }
        }
        self.observed = Arc::new(observed);
    }

    /// CRI learns of an exit from the same event as we do, and may still show the container running when we look: look
    /// again after 5, 10, 20 ms ... for about a second. What we stop ourselves needs no looking: the call's return tells.
    fn look_again(&self) -> Option<Duration> {
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = |id: &str| {
            let stopping = |name: &str| matches!(self.memory.busy(name), Some(Busy::Stopping { .. }));
            let runs = |record: &podlife::ContainerRecord| {
                record.id == id && record.state == RunState::Running && !stopping(&record.name)
            };
            self.observed.containers.iter().any(runs)
                || !self.memory.sandbox_busy
                    && self.observed.sandboxes.iter().any(|sandbox| sandbox.id == id && sandbox.ready)
        };
        exits.retain(|id, tries| {
            *tries += 1;
            *tries <= 8 && alive(id)
        });
        exits.values().min().map(|tries| Duration::from_millis(5 << (tries - 1).min(8)))
    }

    fn plan(&mut self) -> PodPlan {
        let now = self.context.clock.now();
        if self.memory.verdict.is_none() && deadline_passed(&self.pod, &self.previous, now) {
            self.memory.verdict = Some(deadline_verdict());
        }
        let plan = plan_pod(&PlanInputs {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            facts: &self.context.facts,
            previous: &self.previous,
            now,
        });
        let ending = matches!(plan.stage, Stage::Terminating | Stage::Terminated | Stage::Forgotten);
        if ending && self.memory.terminating_since.is_none() {
            self.memory.terminating_since = Some(now);
        }
        plan
    }

    fn publish(&mut self, plan: &PodPlan) {
        // The node has not taken the pod on yet: its time has not begun.
        let waits = self.memory.held && plan.stage == Stage::Sandboxing;
        if !waits && self.previous != plan.status {
            self.previous = plan.status.clone();
        }
        let status = plan.status.clone();
        self.wanted.send_if_modified(|wanted| {
            let changed = !self.memory.gone && !waits && wanted.status.as_ref() != Some(&status);
            if changed {
                wanted.status = Some(status);
            }
            changed
        });
        self.snapshot.send_replace(Snapshot {
            pod: self.pod.clone(),
            observed: self.observed.clone(),
            status: Arc::new(plan.status.clone()),
            stage: plan.stage,
        });
    }

    fn reconcile_probes(&mut self, targets: &[ProbeTarget]) {
        self.probes.retain(|target, task| {
            let wanted = targets.contains(target);
            if !wanted {
                task.abort();
            }
            wanted
        });
        let pod_ip = self.previous.pod_ip.clone().unwrap_or_default();
        for target in targets {
            if self.probes.contains_key(target) {
                continue;
            }
            let Some(container) = find_container(&self.pod, &target.container) else { continue };
            let task = ProbeTask {
                cri: self.context.cri.clone(),
                clock: self.context.clock.clone(),
                recorder: self.context.recorder.clone(),
                pod: self.pod.clone(),
                container,
                target: target.clone(),
                pod_ip: pod_ip.clone(),
            };
            let handle = tokio::spawn(run_probe::<Message>(task, self.sender.clone())).abort_handle();
            self.probes.insert(target.clone(), handle);
        }
    }

    fn spawn_volumes(&mut self) {
        let (events, mut receiver) = mpsc::unbounded_channel();
        let volumes = run_volumes(self.context.volumes.clone(), self.pods_for_volumes.subscribe(), events);
        let sender = self.sender.clone();
        let task = tokio::spawn(async move {
            let forward = async {
                while let Some(event) = receiver.recv().await {
                    if sender.send(Message::Volume(event)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(volumes, forward);
        });
        self.volumes = Some(task.abort_handle());
    }

    /// False: the dispatcher is gone.
    async fn wait(&mut self, wake_in: Option<Duration>) -> bool {
        let timer = async {
            match wake_in {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            outcome = self.input.changed() => return outcome.is_ok(),
            () = self.wake.notified() => {
                self.stale = true;
                None
            }
            message = self.messages.recv() => message,
            () = timer => None,
        };
        if let Some(message) = message {
            self.take_message(message);
        }
        true
    }

    fn set_busy(&mut self, name: &str, busy: Busy) {
        self.memory.containers.entry(name.to_owned()).or_default().busy = Some(busy);
    }
}

impl Drop for Worker {
    /// Tasks of a worker end with it; containers do not.
    fn drop(&mut self) {
        let tasks = self.tasks.values().chain(self.probes.values()).chain(&self.volumes);
        tasks.for_each(AbortHandle::abort);
    }
}

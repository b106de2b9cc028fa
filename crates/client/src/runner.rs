//! Running pure controllers: informers fill a view and wake keys, workers plan each key and apply the plan.
//!
//! Invariants: a key is planned by one worker at a time; not before the caches have seen its own last writes
//! ([`Expectations`]); and again, after a back-off of 5 ms..1000 s, whenever a write failed. A planner that panics is a
//! failure of that key alone. Does not know any controller.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Clock, Rng, SeededRng};
use futures::future::BoxFuture;
use kube::Client;
use reconcile::{
    Change, Controller, Event, EventKind, Expectations, Failure, Input, Key, Object, Observed, Plan, Registrar, View,
    Watches, Write,
};
use tokio::task::JoinSet;

use crate::apply::{WriteError, observe};
use crate::everything::Everything;
use crate::informers::Informers;
use crate::recorder::EventRecorder;
use crate::wakeups::Wakeups;
use crate::write_batch::apply_writes;

/// Rounds of live reads that one planning may ask for.
const OBSERVE_ROUNDS_MAX: usize = 8;

/// Starts registered controllers and keeps them running.
pub struct Runner {
    informers: Arc<Informers>,
    everything: Arc<Everything>,
    clock: Arc<dyn Clock>,
    tasks: JoinSet<()>,
    seed: u64,
}

/// A task of a controller ended, which none should: the supervisor starts the component anew.
#[derive(Debug, thiserror::Error)]
#[error("a controller's task ended")]
pub struct Stopped;

impl Runner {
    /// `seed` spreads back-offs; it need not be secret.
    pub fn new(informers: Arc<Informers>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let everything = Everything::new(informers.client().clone());
        Self { informers, everything, clock, tasks: JoinSet::new(), seed }
    }

    /// Runs until a task ends unexpectedly; dropping the future stops all controllers.
    pub async fn run(mut self) -> Result<(), Stopped> {
        match self.tasks.join_next().await {
            None => Ok(()),
            Some(_) => Err(Stopped),
        }
    }
}

impl Registrar for Runner {
    fn register<C: Controller>(&mut self, controller: C) {
        let wakeups = Arc::new(Wakeups::new());
        let mut wiring = Wiring { runner: self, view: View::default(), attach: Vec::new(), synced: Vec::new() };
        controller.watches(&mut wiring);
        let Wiring { view, attach, synced, .. } = wiring;
        let view = Arc::new(view);
        for attach in attach {
            attach(&view, &wakeups, &self.clock);
        }
        let client = self.informers.client().clone();
        let recorder = EventRecorder::spawn(client.clone(), controller.name(), "", self.clock.clone());
        self.seed = self.seed.wrapping_add(1);
        let rng = Mutex::new(SeededRng::new(self.seed));
        let shared = Shared {
            controller,
            client,
            recorder,
            view,
            wakeups,
            clock: self.clock.clone(),
            rng,
            keys: Mutex::default(),
        };
        self.tasks.spawn(run_controller(Arc::new(shared), synced));
    }
}

/// Receives one controller's kinds.
struct Wiring<'a> {
    runner: &'a Runner,
    view: View,
    attach: Vec<Attach>,
    synced: Vec<BoxFuture<'static, ()>>,
}

/// Connects a source of changes to a controller's queue, once its view is complete.
type Attach = Box<dyn FnOnce(&Arc<View>, &Arc<Wakeups>, &Arc<dyn Clock>)>;

impl Watches for Wiring<'_> {
    fn watch_changes<K: Object>(&mut self, keys: impl Fn(&Change<K>, &View) -> Vec<Key> + Send + Sync + 'static) {
        let informer = self.runner.informers.of::<K>();
        self.view.add(informer.cache().clone());
        let source = informer.clone();
        self.attach.push(Box::new(move |view, wakeups, _| {
            let progressed = wakeups.clone();
            source.on_progress(move || progressed.wake_unseen());
            let (view, wakeups) = (view.clone(), wakeups.clone());
            source.on_change(move |change| wakeups.add_all(keys(change, &view)));
        }));
        self.synced.push(Box::pin(async move { informer.synced().await }));
    }

    fn watch_everything(&mut self, keys: fn(&reconcile::graph::GraphChange, &reconcile::graph::Graph) -> Vec<Key>) {
        let everything = self.runner.everything.clone();
        self.view.set_graph(everything.graph().clone());
        self.attach.push({
            let everything = everything.clone();
            Box::new(move |_, wakeups, _| {
                let wakeups = wakeups.clone();
                everything.on_change(move |change, graph| wakeups.add_all(keys(change, graph)));
            })
        });
        self.synced.push(Box::pin(async move { everything.synced().await }));
    }
}

/// One controller's state, shared by its workers.
struct Shared<C: Controller> {
    controller: C,
    client: Client,
    recorder: EventRecorder,
    view: Arc<View>,
    wakeups: Arc<Wakeups>,
    clock: Arc<dyn Clock>,
    rng: Mutex<SeededRng>,
    /// What is remembered of each key; taken out while the key is planned.
    keys: Mutex<HashMap<Key, KeyState<C::Memory>>>,
}

#[derive(Default)]
struct KeyState<M> {
    memory: M,
    expectations: Expectations,
}

async fn run_controller<C: Controller>(shared: Arc<Shared<C>>, synced: Vec<BoxFuture<'static, ()>>) {
    futures::future::join_all(synced).await;
    let mut workers = JoinSet::new();
    for _ in 0..shared.controller.workers() {
        workers.spawn(run_worker(shared.clone()));
    }
    // Workers never end by themselves; one that does takes the controller down, for the supervisor to see.
    workers.join_next().await;
}

async fn run_worker<C: Controller>(shared: Arc<Shared<C>>) {
    loop {
        let key = shared.wakeups.next(&*shared.clock).await;
        let mut state = shared.keys().remove(&key).unwrap_or_default();
        let next = shared.process(&key, &mut state).await;
        shared.settle(key, state, next);
    }
}

/// When a key is to be looked at again, apart from changes.
enum Next {
    OnChange,
    /// Nothing is left to remember of the key either.
    Forget,
    After(Duration),
    /// The caches lag behind the key's own writes: when they come further, or at this time.
    Unseen(Duration),
    Retry,
}

impl<C: Controller> Shared<C> {
    fn keys(&self) -> MutexGuard<'_, HashMap<Key, KeyState<C::Memory>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn process(&self, key: &Key, state: &mut KeyState<C::Memory>) -> Next {
        if !self.has_seen_writes(key, state) {
            return Next::Unseen(state.expectations.deadline());
        }
        let Some(plan) = self.decide(key, state, None).await else { return Next::Retry };
        match self.apply(&plan, state).await {
            Ok(()) => {
                plan.events.into_iter().for_each(|event| self.recorder.record(event));
                match plan.requeue_after {
                    Some(delay) => Next::After(delay),
                    None if plan.writes.is_empty() => Next::Forget,
                    None => Next::OnChange,
                }
            }
            Err((_, WriteError::NamespaceTerminating(_))) => Next::OnChange,
            Err((_, WriteError::Conflict(message))) => {
                tracing::debug!(controller = self.controller.name(), %key, message, "planned from a stale state, again");
                Next::Retry
            }
            Err((write, error)) => {
                self.report_failure(key, state, &write, &error).await;
                Next::Retry
            }
        }
    }

    /// Whether the caches have seen the key's own writes; if not, the key is woken when they come further.
    fn has_seen_writes(&self, key: &Key, state: &mut KeyState<C::Memory>) -> bool {
        let mut is_met = || state.expectations.are_met(&self.view, self.clock.monotonic());
        if is_met() {
            return true;
        }
        self.wakeups.unseen().insert(key.clone());
        // A cache may have come further between the look and the note.
        let met = is_met();
        if met {
            self.wakeups.unseen().remove(key);
        }
        met
    }

    /// Lets the planner record that a write of its plan failed.
    async fn report_failure(&self, key: &Key, state: &mut KeyState<C::Memory>, write: &Write, error: &WriteError) {
        let failure = Failure {
            verb: crate::write_batch::verb_name(&write.verb),
            resource: write.resource.clone(),
            key: write.key.clone(),
            reason: error.reason().to_owned(),
            message: error.message(),
        };
        tracing::info!(controller = self.controller.name(), %key, verb = failure.verb,
            resource = %write.resource.group_resource(), object = %write.key, error = failure.message, "write failed");
        if let Some(plan) = self.decide(key, state, Some(&failure)).await
            && self.apply(&plan, state).await.is_ok()
        {
            plan.events.into_iter().for_each(|event| self.recorder.record(event));
        }
    }

    /// Plans, making the live reads that the planner asks for. None if it panicked or never had enough.
    async fn decide(&self, key: &Key, state: &mut KeyState<C::Memory>, failure: Option<&Failure>) -> Option<Plan> {
        let mut observed = Observed::new();
        for _ in 0..OBSERVE_ROUNDS_MAX {
            let input = Input {
                key,
                view: &self.view,
                now: self.clock.now(),
                monotonic: self.clock.monotonic(),
                observed: &observed,
                failure,
            };
            let planned = catch_unwind(AssertUnwindSafe(|| self.controller.plan(&input, &mut state.memory)));
            let Ok(plan) = planned else {
                tracing::error!(controller = self.controller.name(), %key, "planner panicked");
                return None;
            };
            if plan.observe.is_empty() {
                return Some(plan);
            }
            for wanted in plan.observe {
                let answer = observe(&self.client, &wanted).await;
                observed.insert(wanted, answer);
            }
        }
        tracing::error!(controller = self.controller.name(), %key, "planner asks for live reads without end");
        None
    }

    async fn apply(&self, plan: &Plan, state: &mut KeyState<C::Memory>) -> Result<(), (Write, WriteError)> {
        for wait in &plan.waits {
            tracing::debug!(controller = self.controller.name(), reason = wait.reason, message = wait.message, "waits");
        }
        let now = self.clock.monotonic();
        let note = |write: &Write, answer: &serde_json::Value| {
            crate::write_batch::note_written(&mut state.expectations, &self.view, write, answer, now);
        };
        apply_writes(&self.client, &self.recorder, &plan.writes, note).await
    }

    fn settle(&self, key: Key, state: KeyState<C::Memory>, next: Next) {
        if !matches!(next, Next::Forget) {
            self.keys().insert(key.clone(), state);
        }
        let now = self.clock.monotonic();
        let mut queue = self.wakeups.lock();
        match next {
            Next::OnChange | Next::Forget => queue.forget(&key),
            Next::After(delay) => {
                queue.forget(&key);
                queue.add_at(key.clone(), now + delay);
            }
            Next::Unseen(deadline) => queue.add_at(key.clone(), deadline),
            Next::Retry => {
                let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
                let rng: &mut dyn Rng = &mut *rng;
                queue.retry(key.clone(), now, rng);
            }
        }
        queue.done(&key);
        drop(queue);
        self.wakeups.ring();
    }
}

/// Events about writes come from here too.
pub(crate) fn announce(recorder: &EventRecorder, write: &Write, outcome: Result<&str, &WriteError>) {
    let Some(announce) = &write.announce else { return };
    let (kind, told) = match outcome {
        Ok(name) => (
            EventKind::Normal,
            announce.success.as_ref().map(|(reason, text)| {
                let message = if announce.name_on_success { format!("{text}{name}") } else { text.clone() };
                (*reason, message)
            }),
        ),
        Err(error) => (
            EventKind::Warning,
            announce.failure.as_ref().map(|(reason, text)| (*reason, format!("{text}{}", error.message()))),
        ),
    };
    if let Some((reason, message)) = told {
        recorder.record(Event { regarding: announce.regarding.clone(), kind, reason: reason.to_owned(), message });
    }
}

//! Proves controllers: runs them against a simulated API, to a fixed point, crashing after any write.
//!
//! A [`Harness`] is a [`Registrar`]: register the controllers, put objects in, and
//! - [`Harness::settle`] plans every key until nothing is left to write, and fails if that never comes;
//! - [`check_crash_safety`] does so once undisturbed and then once for every write, crashing after it: planners lose
//!   their memory and the rest of the plan, start again from what the API holds, and must end in the same state.
//!
//! Between settlings an environment may play the parts of other components (a kubelet that makes pods ready).
//! Not simulated: watch delays (expectations have their own tests), admission, validation.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, ManualClock};
use jiff::Timestamp;
use serde_json::Value;

pub use world::World;

use crate::cache::{Cache, Change, View};
use crate::controller::{Controller, Failure, Input, Registrar, Watches};
use crate::graph::{Discovery, Graph, GraphChange, Node, Served};
use crate::object::{Key, Object, ResourceId};
use crate::plan::{Event, Observed, Plan};

/// Rounds over all keys after which a harness gives up on a fixed point.
const ROUNDS_MAX: usize = 200;
const OBSERVE_ROUNDS_MAX: usize = 8;

/// See the module's text.
pub struct Harness {
    pub world: World,
    pub clock: ManualClock,
    pub events: Vec<Event>,
    entries: Vec<Entry>,
    /// Called after every write; panics if something that must never be, is.
    invariant: fn(&World),
    /// Writes to make before the crash; none means never.
    crash_after: Option<usize>,
    writes: usize,
}

struct Entry {
    name: &'static str,
    view: View,
    refreshers: Vec<Refresh>,
    waking: Vec<Wake>,
    planner: Planner,
    /// Makes a planner that remembers nothing.
    forget: Box<dyn Fn() -> Planner>,
}

/// Brings one cache up to date.
type Refresh = Box<dyn Fn(&World)>;
/// All keys that one kind's objects wake.
type Wake = Box<dyn Fn(&View) -> Vec<Key>>;
/// A controller with its memory.
type Planner = Box<dyn FnMut(&Input<'_>) -> Plan>;

/// The component stopped at the point where it was told to.
#[derive(Debug)]
struct Crashed;

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

impl Harness {
    /// Starts at 2026-01-01T00:00:00Z with an empty API.
    pub fn new() -> Self {
        let start = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            world: World::new(start),
            clock: ManualClock::new(start),
            events: Vec::new(),
            entries: Vec::new(),
            invariant: |_| {},
            crash_after: None,
            writes: 0,
        }
    }

    pub fn add<K: Object>(&mut self, object: &K) {
        self.world.add(object);
    }

    pub fn set_invariant(&mut self, invariant: fn(&World)) {
        self.invariant = invariant;
    }

    /// Lets time pass for controllers and the API.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.world.now = self.clock.now();
    }

    /// Plans and applies until no key has anything to write. Panics if that doesn't come within 200 rounds.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            match self.round() {
                Ok(false) => return,
                Ok(true) => {}
                Err(Crashed) => self.restart(),
            }
        }
        panic!("no fixed point within {ROUNDS_MAX} rounds; the world is {:#?}", self.world.summary());
    }

    /// Settles and lets `environment` act, until it has nothing to do either (returns false).
    pub fn settle_with(&mut self, environment: fn(&mut World) -> bool) {
        for _ in 0..ROUNDS_MAX {
            self.settle();
            if !environment(&mut self.world) {
                return;
            }
        }
        panic!("the environment never came to rest");
    }

    /// One pass over all keys. True if anything was written.
    fn round(&mut self) -> Result<bool, Crashed> {
        let mut wrote = false;
        for index in 0..self.entries.len() {
            for key in self.keys(index) {
                wrote |= self.process(index, &key)?;
            }
        }
        Ok(wrote)
    }

    fn keys(&mut self, index: usize) -> BTreeSet<Key> {
        let entry = &self.entries[index];
        entry.refreshers.iter().for_each(|refresh| refresh(&self.world));
        entry.waking.iter().flat_map(|keys| keys(&entry.view)).collect()
    }

    fn process(&mut self, index: usize, key: &Key) -> Result<bool, Crashed> {
        let plan = self.decide(index, key, None);
        let wrote = !plan.writes.is_empty();
        if let Err(failure) = self.apply(&plan)?
            && failure.reason != "Conflict"
        {
            let plan = self.decide(index, key, Some(&failure));
            // A failure to tell of a failure is retried with the next round.
            self.apply(&plan)?.ok();
        }
        Ok(wrote)
    }

    /// The plan for a key of the `index`th controller now, live reads made.
    pub fn decide(&mut self, index: usize, key: &Key, failure: Option<&Failure>) -> Plan {
        let entry = &mut self.entries[index];
        let mut observed = Observed::new();
        for _ in 0..OBSERVE_ROUNDS_MAX {
            entry.refreshers.iter().for_each(|refresh| refresh(&self.world));
            let input = Input {
                key,
                view: &entry.view,
                now: self.clock.now(),
                monotonic: self.clock.monotonic(),
                observed: &observed,
                failure,
            };
            let plan = (entry.planner)(&input);
            if plan.observe.is_empty() {
                return plan;
            }
            observed.extend(plan.observe.iter().map(|wanted| (wanted.clone(), self.world.observe(wanted))));
        }
        panic!("{} asks for live reads of {key} without end", entry.name);
    }

    fn apply(&mut self, plan: &Plan) -> Result<Result<(), Box<Failure>>, Crashed> {
        for write in &plan.writes {
            let outcome = self.world.apply(write);
            (self.invariant)(&self.world);
            self.writes += 1;
            if self.crash_after == Some(self.writes) {
                return Err(Crashed);
            }
            if let Err(failure) = outcome {
                return Ok(Err(failure));
            }
        }
        self.events.extend(plan.events.iter().cloned());
        Ok(Ok(()))
    }

    /// Planners forget everything, as after a restart.
    fn restart(&mut self) {
        for entry in &mut self.entries {
            entry.planner = (entry.forget)();
        }
    }
}

impl Registrar for Harness {
    fn register<C: Controller>(&mut self, controller: C) {
        let mut wiring = Wiring { view: View::default(), refreshers: Vec::new(), waking: Vec::new() };
        controller.watches(&mut wiring);
        let name = controller.name();
        let controller = Arc::new(controller);
        let forget = move || -> Planner {
            let controller = controller.clone();
            let mut memories: BTreeMap<Key, C::Memory> = BTreeMap::new();
            Box::new(move |input| controller.plan(input, memories.entry(input.key.clone()).or_default()))
        };
        self.entries.push(Entry {
            name,
            view: wiring.view,
            refreshers: wiring.refreshers,
            waking: wiring.waking,
            planner: forget(),
            forget: Box::new(forget),
        });
    }
}

struct Wiring {
    view: View,
    refreshers: Vec<Refresh>,
    waking: Vec<Wake>,
}

impl Watches for Wiring {
    fn watch_changes<K: Object>(&mut self, keys: impl Fn(&Change<K>, &View) -> Vec<Key> + Send + Sync + 'static) {
        let cache = Arc::new(Cache::<K>::default());
        self.view.add(cache.clone());
        self.refreshers.push(Box::new(move |world| drop(cache.replace(world.list::<K>()))));
        self.waking.push(Box::new(move |view| {
            let changes = view.list::<K>().into_iter().map(|new| Change::Applied { old: None, new });
            changes.flat_map(|change| keys(&change, view)).collect()
        }));
    }

    fn watch_everything(&mut self, keys: fn(&GraphChange, &Graph) -> Vec<Key>) {
        let graph = Arc::new(Graph::default());
        self.view.set_graph(graph.clone());
        self.refreshers.push(Box::new(move |world| refresh_graph(&graph, world)));
        self.waking.push(Box::new(move |view| {
            let graph = view.graph();
            let changes = graph.nodes().into_iter().map(|node| Change::Applied { old: None, new: node });
            changes.flat_map(|change| keys(&change, graph)).collect()
        }));
    }
}

fn refresh_graph(graph: &Graph, world: &World) {
    let mut by_resource: BTreeMap<ResourceId, Vec<Node>> = BTreeMap::new();
    for node in graph.nodes() {
        by_resource.entry(node.resource.clone()).or_default();
    }
    for (resource, meta) in world.metadata() {
        by_resource.entry(resource.clone()).or_default().extend(Node::new(&resource, &meta));
    }
    let verbs = ["list", "watch", "delete", "deletecollection", "get"].map(str::to_owned).to_vec();
    let served = by_resource.keys().map(|resource| Served {
        resource: resource.clone(),
        namespaced: !matches!(&*resource.plural, "namespaces" | "nodes"),
        verbs: verbs.clone(),
    });
    graph.set_discovery(Discovery { served: served.collect(), failures: Vec::new() });
    for (resource, nodes) in by_resource {
        graph.replace(&resource, nodes);
    }
}

/// Runs `setup`'s harness with `environment` once undisturbed and once crashing after each write. Panics unless all
/// runs end in the same state (but for names, UIDs, versions and generations that the API gave).
pub fn check_crash_safety(setup: impl Fn() -> Harness, environment: fn(&mut World) -> bool) {
    let mut undisturbed = setup();
    undisturbed.settle_with(environment);
    let expected = undisturbed.world.summary();
    for crash in 1..=undisturbed.writes {
        let mut harness = setup();
        harness.crash_after = Some(crash);
        harness.settle_with(environment);
        let found: Vec<Value> = harness.world.summary();
        assert!(found == expected, "after a crash at write {crash}:\n{found:#?}\nexpected:\n{expected:#?}");
    }
}

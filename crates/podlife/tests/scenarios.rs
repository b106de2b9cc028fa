//! Whole lives of pods against a perfect runtime: plan, carry out, plan again. No clock but the test's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use podlife::memory::{Busy, KillReason, Verdict};
use podlife::plan::PlanInputs;
use podlife::probe::ProbeKind;
use podlife::{Action, ContainerRecord, NodeFacts, Observed, PodMemory, PodPlan, RunState, Sandbox, Stage, plan_pod};
use serde_json::json;

struct World {
    pod: Pod,
    observed: Observed,
    memory: PodMemory,
    previous: PodStatus,
    now: Timestamp,
    /// Containers that exit at once, with their code.
    exits: BTreeMap<String, i32>,
    log: Vec<String>,
    ids: u32,
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 1 }, "spec": spec });
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            observed: Observed::default(),
            memory: PodMemory::default(),
            previous: PodStatus::default(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            exits: BTreeMap::new(),
            log: Vec::new(),
            ids: 0,
        }
    }

    fn plan(&mut self) -> PodPlan {
        let facts = NodeFacts { host_ips: vec!["10.0.0.1".to_owned()], runtime_name: "containerd".to_owned() };
        let plan = plan_pod(&PlanInputs {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            facts: &facts,
            previous: &self.previous,
            now: self.now,
        });
        if matches!(plan.stage, Stage::Terminating | Stage::Terminated) && self.memory.terminating_since.is_none() {
            self.memory.terminating_since = Some(self.now);
        }
        self.previous = plan.status.clone();
        plan
    }

    /// Plans and carries out until nothing is left to do; fails if that never happens.
    fn settle(&mut self) -> PodPlan {
        for _ in 0..100 {
            let plan = self.plan();
            let todo =
                plan.actions.iter().filter(|a| !matches!(a, Action::ReportBackOff { .. })).cloned().collect::<Vec<_>>();
            if todo.is_empty() {
                return plan;
            }
            for action in todo {
                self.apply(&action);
            }
        }
        panic!("no fixed point: {:#?}", self.log);
    }

    fn nanos(&self) -> i64 {
        i64::try_from(self.now.as_nanosecond()).unwrap()
    }

    fn apply(&mut self, action: &Action) {
        let nanos = self.nanos();
        match action {
            Action::Prepare => self.memory.prepared = true,
            Action::CreateSandbox { attempt } => {
                self.log.push(format!("sandbox {attempt}"));
                self.observed.sandboxes.push(Sandbox {
                    id: format!("s{attempt}"),
                    attempt: *attempt,
                    created_at: nanos,
                    ready: true,
                    ips: vec!["10.1.0.2".to_owned()],
                });
            }
            Action::StartContainer { name, attempt, sandbox_id, restart } => {
                self.log.push(format!("start {name} {attempt}"));
                if *restart {
                    self.memory.containers.entry(name.clone()).or_default().crash_backoff.advance(self.now);
                }
                self.start(name, *attempt, sandbox_id);
            }
            Action::StopContainer { name, id, grace_seconds, .. } => {
                self.log.push(format!("stop {name} {grace_seconds}s"));
                self.end(id, 143);
            }
            Action::RemoveContainer { id, .. } => {
                self.log.push(format!("remove {id}"));
                self.observed.containers.retain(|record| record.id != *id);
            }
            Action::StopSandbox { id } => {
                self.log.push(format!("stop sandbox {id}"));
                self.observed.sandboxes.iter_mut().for_each(|sandbox| sandbox.ready = false);
            }
            Action::CleanUp => {
                self.log.push("clean up".to_owned());
                self.memory.cleaned = true;
            }
            Action::DeletePod => {
                self.log.push("delete".to_owned());
                self.memory.delete_sent = true;
            }
            Action::CancelStart { .. } | Action::Forget | Action::ReportBackOff { .. } => {}
        }
        self.observed.sort();
    }

    fn start(&mut self, name: &str, attempt: u32, sandbox_id: &str) {
        self.ids += 1;
        let id = format!("{name}-{}", self.ids);
        let nanos = self.nanos();
        self.observed.containers.push(ContainerRecord {
            id: id.clone(),
            name: name.to_owned(),
            attempt,
            sandbox_id: sandbox_id.to_owned(),
            state: RunState::Running,
            created_at: nanos,
            started_at: nanos,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: "i".to_owned(),
            image_ref: "sha256:i".to_owned(),
            hash: 0,
            user: None,
            log_path: String::new(),
        });
        let memory = self.memory.containers.entry(name.to_owned()).or_default();
        memory.container_id.clone_from(&id);
        (memory.startup, memory.readiness, memory.kill) = (None, None, None);
        if let Some(code) = self.exits.get(name).copied() {
            self.end(&id, code);
        }
    }

    fn end(&mut self, id: &str, code: i32) {
        let nanos = self.nanos();
        let record = self.observed.containers.iter_mut().find(|record| record.id == id).unwrap();
        record.state = RunState::Exited;
        record.exit_code = code;
        record.finished_at = nanos;
        record.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
    }

    fn end_newest(&mut self, name: &str, code: i32) {
        let id = self.observed.newest(name).unwrap().id.clone();
        self.end(&id, code);
    }

    fn advance(&mut self, seconds: u64) {
        self.now = self.now.checked_add(Duration::from_secs(seconds)).unwrap();
    }

    fn delete(&mut self, grace: i64) {
        self.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }

    fn check(&self, phase: &str, log: &[&str]) {
        assert_eq!(self.previous.phase.as_deref(), Some(phase), "{:#?}", self.log);
        assert_eq!(self.log, log);
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let condition = self.previous.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
        (condition.status.clone(), condition.reason.clone().unwrap_or_default())
    }

    fn waiting_reason(&self, at: usize) -> String {
        let statuses = self.previous.container_statuses.as_ref().unwrap();
        let waiting = statuses[at].state.as_ref().unwrap().waiting.as_ref();
        waiting.and_then(|waiting| waiting.reason.clone()).unwrap_or_default()
    }
}

fn container(name: &str) -> serde_json::Value {
    json!({ "name": name, "image": "i" })
}

#[test]
fn a_plain_pod_runs_and_stays_as_it_is() {
    let mut world = World::new(json!({ "containers": [container("a"), container("b")] }));
    let plan = world.settle();
    world.check("Running", &["sandbox 0", "start a 0", "start b 0"]);
    assert_eq!(plan.stage, Stage::Running);
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(plan.status.pod_ip.as_deref(), Some("10.1.0.2"));
    assert_eq!(plan.status.observed_generation, Some(1));
}

#[test]
fn one_container_starts_at_a_time() {
    let mut world = World::new(json!({ "containers": [container("a"), container("b")] }));
    let plan = world.plan();
    assert_eq!(plan.actions, [Action::Prepare, Action::CreateSandbox { attempt: 0 }]);
    plan.actions.iter().for_each(|action| world.apply(action));
    world.memory.containers.entry("a".to_owned()).or_default().busy = Some(Busy::Starting);
    assert_eq!(world.plan().actions, [], "b waits for a's start");
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let mut side = container("side");
    side["restartPolicy"] = json!("Always");
    let mut world = World::new(json!({
        "initContainers": [container("i1"), side, container("i2")], "containers": [container("m")]
    }));
    world.exits = BTreeMap::from([("i1".to_owned(), 0)]);
    world.settle();
    world.check("Pending", &["sandbox 0", "start i1 0", "start side 0", "start i2 0"]);
    assert_eq!(world.condition("Initialized"), ("False".to_owned(), "ContainersNotInitialized".to_owned()));
    assert_eq!(world.waiting_reason(0), "PodInitializing");
    world.end_newest("i2", 0);
    world.settle();
    assert_eq!(world.previous.phase.as_deref(), Some("Running"));
    assert_eq!(world.condition("Initialized").0, "True");
    world.log.clear();
    world.delete(30);
    world.settle();
    world.check("Failed", &["stop m 30s", "stop side 30s", "stop sandbox s0", "clean up", "delete"]);
}

#[test]
fn a_crash_restarts_at_once_then_backs_off() {
    let mut world = World::new(json!({ "containers": [container("a")] }));
    world.exits = BTreeMap::from([("a".to_owned(), 1)]);
    let plan = world.settle();
    world.check("Running", &["sandbox 0", "start a 0", "start a 1"]);
    assert_eq!(world.waiting_reason(0), "CrashLoopBackOff");
    assert_eq!(plan.wake_in, Some(Duration::from_secs(10)));
    let status = &plan.status.container_statuses.as_ref().unwrap()[0];
    let last = status.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((status.restart_count, last.exit_code), (1, 1));
    world.advance(10);
    let plan = world.settle();
    assert_eq!(plan.wake_in, Some(Duration::from_secs(20)));
    world.check("Running", &["sandbox 0", "start a 0", "start a 1", "start a 2", "remove a-1"]);
}

#[test]
fn restart_policy_decides_the_phase() {
    for (policy, code, phase) in [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let mut world = World::new(json!({ "restartPolicy": policy, "containers": [container("a")] }));
        world.exits = BTreeMap::from([("a".to_owned(), code)]);
        let plan = world.settle();
        world.check(phase, &["sandbox 0", "start a 0", "stop sandbox s0", "clean up"]);
        assert_eq!(plan.stage, Stage::Terminated);
    }
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut world = World::new(json!({
        "restartPolicy": "Never", "initContainers": [container("i")], "containers": [container("m")]
    }));
    world.exits = BTreeMap::from([("i".to_owned(), 1)]);
    world.settle();
    world.check("Failed", &["sandbox 0", "start i 0", "stop sandbox s0", "clean up"]);
    assert_eq!(world.condition("Initialized").0, "False");
}

#[test]
fn a_terminal_phase_is_not_told_while_something_runs() {
    let mut world =
        World::new(json!({ "restartPolicy": "Never", "activeDeadlineSeconds": 5, "containers": [container("a")] }));
    world.settle();
    world.advance(5);
    world.memory.verdict = Some(podlife::plan::deadline_verdict());
    let plan = world.plan();
    assert_eq!((plan.stage, plan.status.phase.as_deref()), (Stage::Terminating, Some("Running")));
    world.settle();
    assert_eq!(world.previous.phase.as_deref(), Some("Failed"));
    assert_eq!(world.previous.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_shorter_grace_takes_effect() {
    let mut world = World::new(json!({ "containers": [container("a")] }));
    world.settle();
    world.delete(30);
    assert_eq!(world.plan().stage, Stage::Terminating);
    let deadline = world.now.checked_add(Duration::from_secs(30)).unwrap();
    world.memory.containers.entry("a".to_owned()).or_default().busy = Some(Busy::Stopping { deadline });
    assert_eq!(world.plan().actions, []);
    world.pod.metadata.deletion_grace_period_seconds = Some(1);
    assert!(matches!(&world.plan().actions[..], [Action::StopContainer { grace_seconds: 1, pre_stop: false, .. }]));
}

#[test]
fn a_failed_liveness_probe_replaces_the_container() {
    let mut probed = container("a");
    probed["livenessProbe"] = json!({ "exec": { "command": ["x"] } });
    let mut world = World::new(json!({ "terminationGracePeriodSeconds": 7, "containers": [probed] }));
    world.settle();
    let container_id = world.observed.newest("a").unwrap().id.clone();
    let kill = KillReason { container_id, message: "m".to_owned(), grace_seconds: Some(2) };
    world.memory.containers.entry("a".to_owned()).or_default().kill = Some(kill);
    world.settle();
    world.check("Running", &["sandbox 0", "start a 0", "stop a 2s", "start a 1"]);
}

#[test]
fn a_startup_probe_holds_back_the_others() {
    let probe = json!({ "exec": { "command": ["x"] } });
    let mut probed = container("a");
    for key in ["startupProbe", "livenessProbe", "readinessProbe"] {
        probed[key] = probe.clone();
    }
    let mut world = World::new(json!({ "containers": [probed] }));
    let kinds = |plan: &PodPlan| plan.probes.iter().map(|target| target.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&world.settle()), [ProbeKind::Startup]);
    assert_eq!(world.condition("Ready").0, "False");
    world.memory.containers.get_mut("a").unwrap().startup = Some(true);
    assert_eq!(kinds(&world.settle()), [ProbeKind::Liveness, ProbeKind::Readiness]);
    world.memory.containers.get_mut("a").unwrap().readiness = Some(true);
    world.settle();
    assert_eq!(world.condition("Ready").0, "True");
    // The kubelet restarts: what was told holds until a probe says otherwise.
    world.memory = PodMemory { prepared: true, ..PodMemory::default() };
    world.settle();
    assert_eq!(world.condition("Ready").0, "True");
}

#[test]
fn a_dead_sandbox_is_replaced_with_its_containers() {
    let mut world = World::new(json!({ "containers": [container("a")] }));
    world.settle();
    world.observed.sandboxes[0].ready = false;
    world.end_newest("a", 137);
    world.settle();
    world.check("Running", &["sandbox 0", "start a 0", "sandbox 1", "start a 1"]);
}

#[test]
fn a_refused_pod_starts_nothing() {
    let mut world = World::new(json!({ "containers": [container("a")] }));
    world.memory.refused = true;
    world.memory.verdict = Some(Verdict::new("OutOfcpu", "m"));
    let plan = world.settle();
    world.check("Failed", &[]);
    assert_eq!((plan.stage, plan.status.reason.as_deref()), (Stage::Refused, Some("OutOfcpu")));
    assert_eq!(plan.status.message.as_deref(), Some("Pod was rejected: m"));
    world.delete(0);
    world.settle();
    world.check("Failed", &["delete"]);
}

#[test]
fn a_preempted_pod_is_a_disruption_target_once_it_has_ended() {
    let mut world = World::new(json!({ "containers": [container("a")] }));
    world.settle();
    world.memory.verdict = Some(podlife::admission::preempted());
    let told = |plan: &PodPlan| {
        let conditions = plan.status.conditions.clone().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == "DisruptionTarget");
        found.map(|condition| (condition.status, condition.reason.unwrap_or_default()))
    };
    let ending = world.plan();
    assert_eq!((ending.stage, told(&ending)), (Stage::Terminating, None));
    let ended = world.settle();
    let expect = ("True".to_owned(), "TerminationByKubelet".to_owned());
    assert_eq!((ended.status.reason.as_deref(), told(&ended)), (Some("Preempting"), Some(expect)));
}

#[test]
fn a_held_pod_waits_for_its_room() {
    let mut world = World::new(json!({ "containers": [container("a")] }));
    world.memory.held = true;
    assert_eq!((world.settle().stage, world.log.len()), (Stage::Sandboxing, 0));
    world.memory.held = false;
    world.settle();
    world.check("Running", &["sandbox 0", "start a 0"]);
}

#[test]
fn crash_and_replay_after_every_action_ends_the_same() {
    // A restart of the kubelet anywhere loses its memory, not the runtime: the end must be the same.
    for crash_at in 0..8 {
        let mut world =
            World::new(json!({ "initContainers": [container("i")], "containers": [container("a"), container("b")] }));
        world.exits = BTreeMap::from([("i".to_owned(), 0)]);
        let mut applied = 0;
        'life: loop {
            let plan = world.plan();
            if plan.actions.is_empty() {
                break;
            }
            for action in &plan.actions {
                world.apply(action);
                applied += 1;
                if applied == crash_at {
                    world.memory = PodMemory::default();
                    continue 'life;
                }
            }
        }
        assert_eq!(world.previous.phase.as_deref(), Some("Running"), "crash after action {crash_at}");
        assert_eq!(world.log, ["sandbox 0", "start i 0", "start a 0", "start b 0"], "crash after action {crash_at}");
    }
}

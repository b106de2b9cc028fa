//! Runs one probe of one container instance, again and again.
//!
//! Input: the probe, where the container is. Output: a [`ProbeResult`] each time a threshold changes the answer, and
//! Unhealthy events. Invariant: a failed liveness or startup probe is told once and probing stops: the instance is done.

use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use podlife::plan::ProbeTarget;
use podlife::probe::{ProbeKind, Timing, Tracker};
use tokio::sync::mpsc;

use crate::cri::Cri;
use crate::hooks::{HandlerTarget, Outcome, run_exec, run_grpc, run_http_probe, run_tcp};
use crate::recorder::PodRecorder;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    pub target: ProbeTarget,
    pub success: bool,
}

/// What a probe task owns.
pub struct ProbeTask {
    pub cri: Cri,
    pub clock: Arc<dyn Clock>,
    pub recorder: PodRecorder,
    pub pod: Arc<Pod>,
    pub container: Container,
    pub target: ProbeTarget,
    pub pod_ip: String,
}

/// Runs until aborted, or until its answer is final.
pub async fn run_probe<M: From<ProbeResult> + Send>(task: ProbeTask, results: mpsc::Sender<M>) {
    let Some(probe) = task.target.kind.of(&task.container).cloned() else { return };
    let timing = Timing::of(&probe);
    let mut tracker = Tracker::default();
    let mut told = None;
    tokio::time::sleep(initial_wait(&task, &timing)).await;
    let mut ticks = tokio::time::interval(timing.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(success) = probe_once(&task, &probe, &timing).await else { continue };
        let Some(result) = tracker.step(success, &timing) else { continue };
        if told == Some(result) {
            continue;
        }
        told = Some(result);
        let message = ProbeResult { target: task.target.clone(), success: result };
        if results.send(M::from(message)).await.is_err() {
            return;
        }
        let fatal = !result && task.target.kind != ProbeKind::Readiness;
        let finished = result && task.target.kind == ProbeKind::Startup;
        if fatal || finished {
            return;
        }
    }
}

/// The initial delay counts from the container's start, which may be long ago.
fn initial_wait(task: &ProbeTask, timing: &Timing) -> Duration {
    let started = podlife::status::timestamp(task.target.started_at);
    let ran = started.map_or(Duration::ZERO, |started| podlife::backoff::elapsed(started, task.clock.now()));
    timing.initial_delay.saturating_sub(ran)
}

/// `None`: the probe itself could not be run, which counts as nothing.
async fn probe_once(task: &ProbeTask, probe: &Probe, timing: &Timing) -> Option<bool> {
    let target = HandlerTarget {
        cri: &task.cri,
        pod: &task.pod,
        container: &task.container,
        container_id: &task.target.container_id,
        pod_ip: &task.pod_ip,
    };
    let outcome = if let Some(exec) = &probe.exec {
        run_exec(&target, exec, timing.timeout).await
    } else if let Some(action) = &probe.http_get {
        run_http_probe(&target, action, timing.timeout).await
    } else if let Some(action) = &probe.tcp_socket {
        run_tcp(&target, action, timing.timeout).await
    } else if let Some(grpc) = &probe.grpc {
        run_grpc(&target, grpc.port, grpc.service.as_deref().unwrap_or_default(), timing.timeout).await
    } else {
        Outcome::Errored("missing probe handler".to_owned())
    };
    let word = task.target.kind.word();
    match outcome {
        Outcome::Success => Some(true),
        Outcome::Failure(output) => {
            let message = format!("{word} probe failed: {output}");
            task.recorder.warning(&task.pod, &task.container.name, "Unhealthy", &message);
            Some(false)
        }
        Outcome::Errored(error) => {
            let message = format!("{word} probe errored: {error}");
            task.recorder.warning(&task.pod, &task.container.name, "Unhealthy", &message);
            None
        }
    }
}

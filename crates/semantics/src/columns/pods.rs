//! The Pod's row: ready count, a status word that names the most telling container state, restarts.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, NAME, age, at, list, number, or, text, value_at, wide};

pub(super) const POD: &[Column] = &[
    NAME,
    text("Ready"),
    text("Status"),
    text("Restarts"),
    text("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub(super) fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let sidecars = list(pod, "spec.initContainers").iter().filter(|container| is_sidecar(container)).count();
    let total = list(pod, "spec.containers").len() + sidecars;
    let restarts = match &summary.last_restart[..] {
        "" => summary.restarts.to_string(),
        _ if summary.restarts == 0 => "0".to_owned(),
        last => format!("{} ({} ago)", summary.restarts, age::since(last, now)),
    };
    let ip = list(pod, "status.podIPs").first().map(|ip| at(ip, "ip")).unwrap_or_default();
    vec![
        json!(api::meta::name(pod)),
        json!(format!("{}/{total}", summary.ready)),
        json!(summary.status),
        json!(restarts),
        age::of(pod, now),
        json!(or(ip, "<none>")),
        json!(or(at(pod, "spec.nodeName"), "<none>")),
        json!(or(at(pod, "status.nominatedNodeName"), "<none>")),
        json!(readiness_gates(pod)),
    ]
}

/// The row condition of a finished Pod.
pub(super) fn conditions(pod: &Value) -> Vec<Value> {
    let phase = at(pod, "status.phase");
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": phase, "message": message})]
}

#[derive(Default)]
struct Summary {
    status: String,
    ready: usize,
    restarts: i64,
    /// RFC 3339; empty for never. Texts of the API's times compare as times.
    last_restart: String,
}

impl Summary {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += number(container, "restartCount");
        let finished = at(container, "lastState.terminated.finishedAt");
        if finished > self.last_restart.as_str() {
            self.last_restart = finished.to_owned();
        }
    }
}

fn summarize(pod: &Value) -> Summary {
    let gated = list(pod, "status.conditions")
        .iter()
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    let phase = at(pod, "status.phase");
    let status = if gated { "SchedulingGated" } else { or(at(pod, "status.reason"), phase) };
    let mut summary = Summary { status: status.to_owned(), ..Summary::default() };
    let mut sidecars = Summary::default();
    let initializing = summarize_init(pod, &mut summary, &mut sidecars);
    if !initializing || has_condition(pod, "Initialized") {
        (summary.restarts, summary.last_restart) = (sidecars.restarts, sidecars.last_restart);
        summarize_containers(pod, &mut summary);
    }
    if api::meta::deletion_timestamp(pod).is_some() {
        if at(pod, "status.reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.status);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.status);
        }
    }
    summary
}

/// Walks init containers up to the first that is not done; `true` when there is one. Restarts of sidecars are counted
/// on their own, too, since they go on counting after initialization.
fn summarize_init(pod: &Value, summary: &mut Summary, sidecars: &mut Summary) -> bool {
    let specs = list(pod, "spec.initContainers");
    for (position, container) in list(pod, "status.initContainerStatuses").iter().enumerate() {
        summary.count_restarts(container);
        let sidecar = specs.iter().any(|spec| spec["name"] == container["name"] && is_sidecar(spec));
        if sidecar {
            sidecars.count_restarts(container);
        }
        let terminated = value_at(container, "state.terminated");
        if terminated.is_some_and(|terminated| number(terminated, "exitCode") == 0) {
            continue;
        }
        if sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        let waiting = at(container, "state.waiting.reason");
        summary.status = match terminated {
            Some(terminated) => format!("Init:{}", termination(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{position}/{}", specs.len()),
        };
        return true;
    }
    false
}

/// Walks containers from the last to the first; the first one's word stands at the end.
fn summarize_containers(pod: &Value, summary: &mut Summary) {
    let (mut has_running, mut error) = (false, String::new());
    for container in list(pod, "status.containerStatuses").iter().rev() {
        summary.count_restarts(container);
        let waiting = at(container, "state.waiting.reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.status);
        } else if let Some(terminated) = value_at(container, "state.terminated") {
            summary.status = termination(terminated);
            if number(terminated, "exitCode") != 0 {
                error.clone_from(&summary.status);
            }
        } else if container["ready"] == true && value_at(container, "state.running").is_some() {
            has_running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" {
        if has_running && has_condition(pod, "Ready") {
            "Running".clone_into(&mut summary.status);
        } else if !error.is_empty() {
            summary.status = error;
        } else if has_running {
            "NotReady".clone_into(&mut summary.status);
        }
    }
}

fn termination(terminated: &Value) -> String {
    match (at(terminated, "reason"), number(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// Whether the condition is True.
fn has_condition(pod: &Value, ty: &str) -> bool {
    let conditions = list(pod, "status.conditions");
    conditions.iter().find(|condition| condition["type"] == ty).is_some_and(|condition| condition["status"] == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = gates.iter().filter(|gate| has_condition(pod, at(gate, "conditionType"))).count();
    format!("{met}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(object: &Value, expect: &[&str]) {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let cells = pod(object, now);
        let cells: Vec<&str> = cells[1..5].iter().map(|cell| cell.as_str().unwrap()).collect();
        assert_eq!(cells, expect);
    }

    fn object(status: &Value) -> Value {
        json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status})
    }

    #[test]
    fn running_and_restarting() {
        let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        let restarted = json!({"ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:00Z"}}});
        check(
            &object(&json!({"phase": "Running", "containerStatuses": [running, restarted]})),
            &["2/2", "Running", "2 (60s ago)", "10m"],
        );
        let looping = json!({"ready": false, "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        check(
            &object(&json!({"phase": "Running", "containerStatuses": [running, looping]})),
            &["1/2", "CrashLoopBackOff", "5", "10m"],
        );
    }

    #[test]
    fn done_failed_and_leaving() {
        let completed = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let status = json!({"phase": "Succeeded", "containerStatuses": [completed, completed]});
        check(&object(&status), &["0/2", "Completed", "0", "10m"]);
        assert_eq!(conditions(&object(&status))[0]["reason"], "Succeeded");
        let failed = json!({"state": {"terminated": {"exitCode": 3}}});
        check(&object(&json!({"phase": "Failed", "containerStatuses": [failed]})), &["0/2", "ExitCode:3", "0", "10m"]);
        let mut leaving = object(&json!({"phase": "Running"}));
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:09:00Z");
        check(&leaving, &["0/2", "Terminating", "0", "10m"]);
        check(&object(&json!({"phase": "Pending"})), &["0/2", "Pending", "0", "10m"]);
    }

    #[test]
    fn initializing() {
        let mut pod = object(&json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}));
        pod["spec"]["initContainers"] = json!([{"name": "i"}, {"name": "j"}]);
        check(&pod, &["0/2", "Init:1/2", "0", "10m"]);
        pod["status"]["initContainerStatuses"][1]["state"] = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        check(&pod, &["0/2", "Init:Error", "0", "10m"]);
    }
}

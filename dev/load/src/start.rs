//! Real Pods: the time from create to Ready and from delete to gone, both as a watcher sees them.
//!
//! A client begins its next Pod when its last is gone, so that `clients` Pods are at work at any moment and no more.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::Run;
use crate::connection::{CallError, Lines};
use crate::drive::{Outcome, collect_outcome, run_spread};
use crate::objects::PODS;

/// The longest that a Pod may take to be Ready, and to be gone.
const STEP_SECONDS: u64 = 60;

/// Outcomes of (create to Ready, delete to gone).
pub async fn run_pods(run: &Run, n: u32, clients: u32, image: &str) -> (Outcome, Outcome) {
    let (at, image) = (run.clone(), image.to_owned());
    let (results, total) = run_spread(run.bounds(n, clients), move |i| {
        let (run, image) = (at.clone(), image.clone());
        async move { run_pod(&run, i, &image).await }
    })
    .await;
    let (ready, gone): (Vec<_>, Vec<_>) = results.into_iter().unzip();
    // A Pod that was never made has no end to speak of.
    let gone: Vec<_> = gone.into_iter().flatten().collect();
    let ends = gone.len();
    (collect_outcome(n as usize, ready, total), collect_outcome(ends, gone, total))
}

type Step = Result<Duration, CallError>;

/// (create to Ready, delete to gone); the second is missing if there was no Pod to delete.
async fn run_pod(run: &Run, i: usize, image: &str) -> (Step, Option<Step>) {
    let name = format!("{}-s{i}", run.name);
    let watch = format!("{PODS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let mut events = match run.pool.open_lines(i, &watch).await {
        Ok(events) => events,
        Err(error) => return (Err(error), None),
    };
    let began = Instant::now();
    let pod = pod(&name, image).to_string();
    let created = run.pool.call(i, Method::POST, PODS, pod).await.and_then(|a| a.expect(StatusCode::CREATED));
    if let Err(error) = created {
        return (Err(error), None);
    }
    let ready = wait_for(&mut events, "the Pod was Ready", is_ready).await.map(|()| began.elapsed());
    (ready, Some(delete(run, i, &name, &mut events).await))
}

async fn delete(run: &Run, i: usize, name: &str, events: &mut Lines) -> Step {
    let began = Instant::now();
    let path = format!("{PODS}/{name}");
    run.pool.call(i, Method::DELETE, &path, String::new()).await?.expect(StatusCode::OK)?;
    wait_for(events, "the Pod was gone", |event| event["type"] == "DELETED").await?;
    Ok(began.elapsed())
}

async fn wait_for(events: &mut Lines, what: &'static str, seen: fn(&Value) -> bool) -> Result<(), CallError> {
    let waiting = async {
        loop {
            let line = events.next(what).await?;
            if serde_json::from_slice(&line).is_ok_and(|event| seen(&event)) {
                return Ok(());
            }
        }
    };
    let bounded = timeout(Duration::from_secs(STEP_SECONDS), waiting).await;
    bounded.unwrap_or(Err(CallError::Timeout { what, seconds: STEP_SECONDS }))
}

fn is_ready(event: &Value) -> bool {
    let conditions = event["object"]["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_true_ready_condition_is_ready() {
        let event = |conditions: Value| json!({"type": "MODIFIED", "object": {"status": {"conditions": conditions}}});
        assert!(is_ready(&event(
            json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}])
        )));
        assert!(!is_ready(&event(json!([{"type": "Ready", "status": "False"}]))));
        assert!(!is_ready(&event(json!([{"type": "ContainersReady", "status": "True"}]))));
        assert!(!is_ready(&json!({"type": "ADDED", "object": {}})));
    }
}

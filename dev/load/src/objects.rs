//! Work on objects that nothing runs: creates, reads and lists, and the namespace that all work happens in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::Run;
use crate::connection::{CallError, JSON, PROTOBUF};
use crate::drive::{Outcome, run_timed};

/// The namespace of everything that `load` makes.
pub const NAMESPACE: &str = "load";
const CONFIG_MAPS: &str = "/api/v1/namespaces/load/configmaps";
pub const PODS: &str = "/api/v1/namespaces/load/pods";
/// How often something that takes whole seconds is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a controller may take to make the default service account, before it is made here.
const ACCOUNT_SECONDS: u64 = 10;

/// The namespace and its default service account, without which no Pod is admitted.
pub async fn ensure_namespace(run: &Run) -> Result<(), CallError> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string();
    create_or_keep(run, "/api/v1/namespaces", namespace).await?;
    let accounts = "/api/v1/namespaces/load/serviceaccounts";
    let give_up = Instant::now() + Duration::from_secs(ACCOUNT_SECONDS);
    while Instant::now() < give_up {
        let answer = run.pool.call(0, Method::GET, &format!("{accounts}/default"), String::new()).await?;
        if answer.status == StatusCode::OK {
            return Ok(());
        }
        sleep(LOOK_AGAIN).await;
    }
    // An API server without controllers is measured, too.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}).to_string();
    create_or_keep(run, accounts, account).await
}

async fn create_or_keep(run: &Run, path: &str, body: String) -> Result<(), CallError> {
    let answer = run.pool.call(0, Method::POST, path, body).await?;
    if answer.status == StatusCode::CONFLICT {
        return Ok(());
    }
    answer.expect(StatusCode::CREATED).map(drop)
}

/// Deletes the namespace and waits until it is gone, at most until the deadline.
pub async fn remove_namespace(run: &Run) -> Result<(), CallError> {
    let path = "/api/v1/namespaces/load";
    let answer = run.pool.call(0, Method::DELETE, path, String::new()).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(());
    }
    // A conflict says that it is being deleted already.
    if answer.status != StatusCode::CONFLICT {
        answer.expect(StatusCode::OK)?;
    }
    while Instant::now() < run.deadline {
        if run.pool.call(0, Method::GET, path, String::new()).await?.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        sleep(LOOK_AGAIN).await;
    }
    Err(CallError::TooLong("the namespace's end"))
}

pub async fn create_config_maps(run: &Run, n: u32, clients: u32, bytes: u32) -> Outcome {
    let data = "d".repeat(bytes as usize);
    let at = run.clone();
    run_timed(run.bounds(n, clients), move |i| {
        let (run, data) = (at.clone(), data.clone());
        async move {
            let labels = json!({"run": run.name});
            create_config_map(&run, i, labels, json!({"k": data})).await
        }
    })
    .await
}

/// The ConfigMap of this run with the number `i`.
pub async fn create_config_map(
    run: &Run,
    i: usize,
    labels: serde_json::Value,
    data: serde_json::Value,
) -> Result<(), CallError> {
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("{}-{i}", run.name), "labels": labels},
        "data": data,
    });
    run.pool.call(i, Method::POST, CONFIG_MAPS, body.to_string()).await?.expect(StatusCode::CREATED).map(drop)
}

/// Pods as large as usual ones, for a scheduler that does not exist.
pub async fn create_idle_pods(run: &Run, n: u32, clients: u32) -> Outcome {
    let at = run.clone();
    run_timed(run.bounds(n, clients), move |i| {
        let run = at.clone();
        async move {
            let body = idle_pod(&run.name, i).to_string();
            run.pool.call(i, Method::POST, PODS, body).await?.expect(StatusCode::CREATED).map(drop)
        }
    })
    .await
}

fn idle_pod(run: &str, i: usize) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{run}-{i}"), "labels": {"app": "load", "run": run, "shard": format!("s{}", i % 100)}},
        "spec": {
            "schedulerName": "none",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "c", "image": "example.invalid/app:v1",
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
            }],
        },
    })
}

/// Gets of one small object.
pub async fn get_one(run: &Run, n: u32, clients: u32) -> Result<Outcome, CallError> {
    create_config_map(run, 0, json!({}), json!({"k": "d".repeat(512)})).await?;
    let (at, path) = (run.clone(), format!("{CONFIG_MAPS}/{}-0", run.name));
    let outcome = run_timed(run.bounds(n, clients), move |i| {
        let (run, path) = (at.clone(), path.clone());
        async move { run.pool.read_through(i, &path, JSON).await.map(drop) }
    });
    Ok(outcome.await)
}

/// Whole lists; also the length in bytes of one. One list before them warms connection and caches and is not counted.
pub async fn list(run: &Run, n: u32, clients: u32, path: &str, protobuf: bool) -> Result<(Outcome, u64), CallError> {
    let accept = if protobuf { PROTOBUF } else { JSON };
    let bytes = Arc::new(AtomicU64::new(run.pool.read_through(0, path, accept).await?));
    let (at, path, last) = (run.clone(), path.to_owned(), bytes.clone());
    let outcome = run_timed(run.bounds(n, clients), move |i| {
        let (run, path, last) = (at.clone(), path.clone(), last.clone());
        async move {
            last.store(run.pool.read_through(i, &path, accept).await?, Ordering::Relaxed);
            Ok(())
        }
    });
    let outcome = outcome.await;
    Ok((outcome, bytes.load(Ordering::Relaxed)))
}

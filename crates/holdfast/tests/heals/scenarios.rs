//! The eight ways to hurt an app. Each returns its figure; a panic is a failure.

use std::net::SocketAddr;
use std::time::Duration;

use base::{Clock, SystemClock};

use crate::cluster::Cluster;
use crate::load::{Load, get};
use crate::process::Place;
use crate::servers::{Joined, Kubectl};

/// Requests after which a Service that still leads to an unready Pod has failed.
const REQUESTS_MAX: usize = 2000;
/// Looks at the members until they are as they should be; each takes a process.
const MEMBER_LISTS_MAX: usize = 200;
/// That kubectl waits longer than it does before, while a leader is killed. The promise is a second; on a machine that does
/// much else it is no fault of the cluster's if it takes longer.
const PAUSE_MAX: Duration = Duration::from_secs(5);

pub type Scenario = fn(&Cluster) -> String;

pub const ALL: &[(&str, Scenario)] = &[
    ("a_killed_process_comes_back", killed_process),
    ("a_deleted_pod_is_replaced", deleted_pod),
    ("a_failing_liveness_probe_restarts_the_container", failing_liveness),
    ("a_failing_readiness_probe_takes_the_pod_out_of_the_service", failing_readiness),
    ("a_rolling_update_under_load_fails_no_request", rolling_update),
    ("a_bad_image_keeps_the_old_pods_and_undo_ends_it", bad_image),
    ("a_killed_control_plane_fails_no_request_and_restarts_no_container", killed_control_plane),
    ("a_killed_leader_of_three_servers_fails_no_request_and_kubectl_goes_on", killed_leader),
];

/// A Deployment and a Service named `app`.
fn app(cluster: &Cluster, replicas: u32) -> SocketAddr {
    // What a failed scenario left must not fail the next one.
    remove_app(cluster);
    cluster.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: app}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: app}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: app}}}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: app
        image: registry.holdfast.internal/demo:1
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1, failureThreshold: 1}}
        livenessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1, failureThreshold: 2}}
        lifecycle: {{preStop: {{sleep: {{seconds: 2}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec: {{selector: {{app: app}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    ));
    cluster.kubectl(&["rollout", "status", "deployment/app", "--timeout=60s"]);
    let ip = cluster.field("service/app", "{.spec.clusterIP}");
    format!("{ip}:80").parse().unwrap()
}

fn remove_app(cluster: &Cluster) {
    cluster.kubectl(&[
        "delete",
        "deployment/app",
        "service/app",
        "--cascade=foreground",
        "--ignore-not-found",
        "--timeout=60s",
    ]);
}

fn first_pod(cluster: &Cluster) -> String {
    cluster.field("pods", "{.items[0].metadata.name}")
}

fn pod_address(cluster: &Cluster, pod: &str) -> SocketAddr {
    format!("{}:8080", cluster.field(&format!("pod/{pod}"), "{.status.podIP}")).parse().unwrap()
}

fn timed(work: impl FnOnce()) -> Duration {
    let clock = SystemClock::new();
    work();
    clock.monotonic()
}

fn killed_process(cluster: &Cluster) -> String {
    app(cluster, 1);
    let pod = first_pod(cluster);
    let id = cluster.field(&format!("pod/{pod}"), "{.status.containerStatuses[0].containerID}");
    let took = timed(|| {
        kill_container(id.rsplit('/').next().unwrap());
        cluster.wait(&format!("pod/{pod}"), "jsonpath={.status.containerStatuses[0].restartCount}=1", 60);
        cluster.wait(&format!("pod/{pod}"), "condition=Ready", 60);
    });
    remove_app(cluster);
    format!("Ready again after {took:.1?}")
}

/// Kills the first process of a container, found by its cgroup.
fn kill_container(id: &str) {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(id));
    let pid = processes.into_iter().find(inside).expect("the container's process");
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

fn deleted_pod(cluster: &Cluster) -> String {
    app(cluster, 1);
    let pod = first_pod(cluster);
    let took = timed(|| {
        cluster.kubectl(&["delete", "pod", &pod, "--wait=false"]);
        cluster.wait(&format!("pod/{pod}"), "delete", 60);
        cluster.kubectl(&["rollout", "status", "deployment/app", "--timeout=60s"]);
    });
    assert_ne!(first_pod(cluster), pod);
    remove_app(cluster);
    format!("replaced and the old one gone after {took:.1?}")
}

fn failing_liveness(cluster: &Cluster) -> String {
    app(cluster, 1);
    let pod = first_pod(cluster);
    let took = timed(|| {
        get(pod_address(cluster, &pod), "/fail/healthz").unwrap();
        cluster.wait(&format!("pod/{pod}"), "jsonpath={.status.containerStatuses[0].restartCount}=1", 60);
        cluster.wait(&format!("pod/{pod}"), "condition=Ready", 60);
    });
    assert!(cluster.kubectl(&["get", "events"]).contains("Liveness probe failed"), "the event says why");
    remove_app(cluster);
    format!("restarted and Ready after {took:.1?}")
}

fn failing_readiness(cluster: &Cluster) -> String {
    let service = app(cluster, 2);
    let pod = first_pod(cluster);
    let took = timed(|| {
        get(pod_address(cluster, &pod), "/fail/readyz").unwrap();
        cluster.wait(&format!("pod/{pod}"), "condition=Ready=false", 60);
    });
    // The rules follow the condition within milliseconds: from some request on, all go to the other Pod.
    let mut in_a_row = 0;
    let asked = (0..REQUESTS_MAX)
        .take_while(|_| {
            in_a_row = if get(service, "/").unwrap().contains(&pod) { 0 } else { in_a_row + 1 };
            in_a_row < 50
        })
        .count();
    assert!(in_a_row >= 50, "{pod} still answers after {asked} requests");
    get(pod_address(cluster, &pod), "/mend/readyz").unwrap();
    cluster.wait(&format!("pod/{pod}"), "condition=Ready", 60);
    remove_app(cluster);
    format!("unready after {took:.1?}; of {asked} requests the last 50 went to the other Pod")
}

fn rolling_update(cluster: &Cluster) -> String {
    let service = app(cluster, 3);
    let load = Load::start(service);
    let took = timed(|| {
        cluster.kubectl(&["set", "env", "deployment/app", "VERSION=2"]);
        cluster.kubectl(&["rollout", "status", "deployment/app", "--timeout=120s"]);
    });
    let (answered, failures) = load.end();
    assert!(answered > 100, "only {answered} requests were answered");
    assert!(failures.is_empty(), "{answered} answered; failed: {failures:?}");
    remove_app(cluster);
    format!("{answered} requests, 0 failed, {took:.1?}")
}

fn bad_image(cluster: &Cluster) -> String {
    let service = app(cluster, 2);
    let load = Load::start(service);
    cluster.kubectl(&["set", "image", "deployment/app", "app=registry.holdfast.internal/absent:1"]);
    let new = "{.items[?(@.spec.containers[0].image==\"registry.holdfast.internal/absent:1\")].metadata.name}";
    cluster.wait("deployment/app", "jsonpath={.status.updatedReplicas}=1", 30);
    let stuck = cluster.field("pods", new);
    cluster.wait(
        &format!("pod/{stuck}"),
        "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff",
        60,
    );
    assert_eq!(cluster.field("deployment/app", "{.status.availableReplicas}"), "2");
    let took = timed(|| {
        cluster.kubectl(&["rollout", "undo", "deployment/app"]);
        cluster.kubectl(&["rollout", "status", "deployment/app", "--timeout=60s"]);
        cluster.wait(&format!("pod/{stuck}"), "delete", 60);
    });
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{answered} answered; failed: {failures:?}");
    remove_app(cluster);
    format!("{answered} requests, 0 failed; undone after {took:.1?}")
}

fn killed_control_plane(cluster: &Cluster) -> String {
    let service = app(cluster, 3);
    let containers = "{range .items[*]}{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let before = cluster.field("pods", containers);
    let load = Load::start(service);
    kill_holdfast();
    let took = timed(|| {
        cluster.start();
        cluster.wait("nodes --all", "condition=Ready", 60);
    });
    // A change proves that the new control plane drives the node, not only that it answers.
    cluster.kubectl(&["scale", "deployment/app", "--replicas=4"]);
    cluster.kubectl(&["rollout", "status", "deployment/app", "--timeout=60s"]);
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{answered} answered; failed: {failures:?}");
    let after = cluster.field("pods", containers);
    for line in before.lines() {
        assert!(after.contains(line), "{line} is not among\n{after}");
    }
    remove_app(cluster);
    format!("{answered} requests, 0 failed; Ready again after {took:.1?}, no container restarted")
}

/// Kills the process of the cluster under test: control plane, kubelet and network in one.
fn kill_holdfast() {
    let pid = std::fs::read_to_string("/run/holdfast/holdfast.lock").unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

fn killed_leader(cluster: &Cluster) -> String {
    let service = app(cluster, 3);
    let place = Place::new("killed-leader");
    let others = ["s2", "s3"].map(|name| Joined::start(cluster, &place, name));
    let members = voters(cluster, 3);
    assert!(!members[0].contains("127.0.0.1") && members[0].contains("  leader  "), "the first one leads: {members:?}");
    let load = Load::start(service);
    let kubectl = [Kubectl::start(&others[0], "at-s2"), Kubectl::start(&others[1], "at-s3")];
    let usual = kubectl.iter().flat_map(|kubectl| kubectl.rounds(5)).max().unwrap();
    kill_holdfast();
    let longest = kubectl.iter().flat_map(|kubectl| kubectl.rounds(10)).max().unwrap();
    kubectl.into_iter().for_each(Kubectl::end);
    let took = timed(|| {
        cluster.start();
        cluster.wait("nodes --all", "condition=Ready", 60);
    });
    let (answered, failures) = load.end();
    assert!(failures.is_empty(), "{answered} answered; failed: {failures:?}");
    let pause = longest.saturating_sub(usual);
    assert!(pause <= PAUSE_MAX, "kubectl apply and get took {usual:.0?} at most before, {longest:.0?} after");
    for left in [2, 1] {
        let members = voters(cluster, left + 1);
        let joined = members.iter().find(|line| line.contains("127.0.0.1")).unwrap();
        cluster.holdfast(&["member", "remove", joined.split_whitespace().next().unwrap()]);
    }
    voters(cluster, 1);
    remove_app(cluster);
    format!("{answered} requests, 0 failed; kubectl paused {pause:.0?}; Ready again after {took:.1?}")
}

/// Lines of `holdfast member list`, the leader's first, once there are so many voters.
fn voters(cluster: &Cluster, count: usize) -> Vec<String> {
    for _ in 0..MEMBER_LISTS_MAX {
        let list = cluster.holdfast(&["member", "list"]);
        let mut lines: Vec<String> = list.lines().map(str::to_owned).collect();
        if lines.len() == count && !list.contains("  learner  ") && list.contains("  leader  ") {
            lines.sort_by_key(|line| !line.contains("  leader  "));
            return lines;
        }
    }
    panic!("{count} voters, one of them leading: not after {MEMBER_LISTS_MAX} looks");
}

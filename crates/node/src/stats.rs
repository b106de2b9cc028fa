//! Usage of the node and its pods: the kubelet's summary API and a few metrics.
//!
//! Input: the runtime's container statistics, cgroup files. Output: JSON as `/stats/summary` has it, Prometheus text.
//! Nothing is sampled in the background: numbers are read when they are asked for.

use std::collections::HashMap;
use std::fmt::Write as _;

use podlife::Stage;
use podlife::spec::{name, namespace, uid};
use serde_json::{Value, json};

use crate::cgroups::observe_usage;
use crate::cri::v1;
use crate::kubelet::Context;
use crate::machine::{observe_available_memory, observe_space};
use crate::observe::{CONTAINER_NAME, POD_UID};
use crate::pods::Pods;

/// `/stats/summary`.
pub async fn observe_summary(context: &Context, pods: &Pods) -> Value {
    let now = context.clock.now();
    let stats = context.cri.list_container_stats(v1::ListContainerStatsRequest::default()).await;
    let stats = stats.map(|reply| reply.stats).unwrap_or_default();
    let mut by_pod = HashMap::<String, Vec<Value>>::new();
    for stat in stats {
        let Some(attributes) = &stat.attributes else { continue };
        let Some(owner) = attributes.labels.get(POD_UID) else { continue };
        let container = attributes.labels.get(CONTAINER_NAME).cloned().unwrap_or_default();
        by_pod.entry(owner.clone()).or_default().push(container_stat(&container, &stat, now));
    }
    let pods = pods.snapshots().into_iter().map(|snapshot| {
        let pod = &snapshot.pod;
        let cgroup = podlife::resources::pod_cgroup(&context.config.cgroup_root, pod);
        let (memory, cpu) = observe_usage(&cgroup);
        json!({
            "podRef": { "name": name(pod), "namespace": namespace(pod), "uid": uid(pod) },
            "startTime": snapshot.status.start_time,
            "containers": by_pod.remove(uid(pod)).unwrap_or_default(),
            "cpu": { "time": now, "usageCoreNanoSeconds": cpu },
            "memory": { "time": now, "usageBytes": memory, "workingSetBytes": memory },
        })
    });
    let pods = pods.collect::<Vec<_>>();
    let (memory, cpu) = observe_usage("/");
    let space = observe_space(&context.config.kubelet_dir);
    json!({
        "node": {
            "nodeName": context.config.node_name,
            "cpu": { "time": now, "usageCoreNanoSeconds": cpu },
            "memory": {
                "time": now,
                "availableBytes": observe_available_memory(),
                "usageBytes": memory,
                "workingSetBytes": memory,
            },
            "fs": space.map(|space| json!({
                "time": now,
                "availableBytes": space.free_bytes,
                "capacityBytes": space.usable_bytes,
                "usedBytes": space.usable_bytes - space.free_bytes,
                "inodesFree": space.free_inodes,
                "inodes": space.inodes,
            })),
        },
        "pods": pods,
    })
}

fn container_stat(name: &str, stat: &v1::ContainerStats, now: jiff::Timestamp) -> Value {
    let number = |value: Option<&v1::UInt64Value>| value.map(|value| value.value);
    let cpu = stat.cpu.as_ref();
    let memory = stat.memory.as_ref();
    json!({
        "name": name,
        "cpu": {
            "time": now,
            "usageNanoCores": cpu.and_then(|cpu| number(cpu.usage_nano_cores.as_ref())),
            "usageCoreNanoSeconds": cpu.and_then(|cpu| number(cpu.usage_core_nano_seconds.as_ref())),
        },
        "memory": {
            "time": now,
            "usageBytes": memory.and_then(|memory| number(memory.usage_bytes.as_ref())),
            "workingSetBytes": memory.and_then(|memory| number(memory.working_set_bytes.as_ref())),
            "rssBytes": memory.and_then(|memory| number(memory.rss_bytes.as_ref())),
        },
        "rootfs": { "time": now, "usedBytes": stat.writable_layer.as_ref().and_then(|fs| number(fs.used_bytes.as_ref())) },
    })
}

/// Counts under upstream's metric names.
pub fn derive_metrics(pods: &Pods) -> String {
    let snapshots = pods.snapshots();
    let live = |stage: Stage| matches!(stage, Stage::Running | Stage::Initializing | Stage::Terminating);
    let running_pods = snapshots.iter().filter(|snapshot| live(snapshot.stage)).count();
    let states = snapshots.iter().flat_map(|snapshot| snapshot.observed.containers.iter().map(|record| record.state));
    let mut counts = HashMap::<&str, u32>::new();
    for state in states {
        let word = match state {
            podlife::RunState::Created => "created",
            podlife::RunState::Running => "running",
            podlife::RunState::Exited => "exited",
            podlife::RunState::Unknown => "unknown",
        };
        *counts.entry(word).or_default() += 1;
    }
    let mut out = String::from("# TYPE kubelet_running_pods gauge\n");
    out.push_str(&format!("kubelet_running_pods {running_pods}\n# TYPE kubelet_running_containers gauge\n"));
    for (state, count) in counts {
        // Writing to a String cannot fail.
        if writeln!(out, "kubelet_running_containers{{container_state=\"{state}\"}} {count}").is_err() {
            break;
        }
    }
    out
}

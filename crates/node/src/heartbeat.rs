//! The Node object and its lease: registration, status, heartbeats.
//!
//! Input: facts of the machine, the runtime's status, pressures. Output: a Node with labels, addresses, capacity and
//! conditions; a Lease renewed every 10 s. Invariant: a lease is renewed even if the status cannot be computed; labels
//! and taints set by others stay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeSpec, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cri::v1;
use crate::garbage::observe_shortages;
use crate::kubelet::{Context, allocatable, runtime_problem};
use crate::thresholds::Shortage;

/// Upstream's renewal interval and duration.
const LEASE_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// The status is looked at this often, and written if it changed or every five minutes.
const STATUS_EVERY: Duration = Duration::from_secs(10);
const STATUS_WRITTEN_EVERY: Duration = Duration::from_secs(300);
/// Until the node is Ready for the first time, look more often: the runtime says nothing when its network comes up.
const STATUS_EVERY_UNREADY: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_millis(200);
/// Upstream's bound on the image list.
const IMAGES_MAX: usize = 50;

pub async fn run_heartbeat(context: Arc<Context>) {
    let node = register(&context).await;
    tokio::join!(run_status(context.clone()), run_lease(context, node.metadata.uid.unwrap_or_default()));
}

/// Creates the Node, or brings the labels of the one that is there up to date. Repeats until the API takes it.
async fn register(context: &Context) -> Node {
    let api: Api<Node> = Api::all(context.client.clone());
    let wanted = derive_node(context);
    loop {
        let outcome = match api.create(&PostParams::default(), &wanted).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let patch = json!({ "metadata": { "labels": wanted.metadata.labels } });
                api.patch(&context.config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
            other => other,
        };
        match outcome {
            Ok(node) => return node,
            Err(error) => tracing::warn!(%error, "cannot register the node"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The node as it is registered.
pub fn derive_node(context: &Context) -> Node {
    let config = &context.config;
    let mut labels = config.labels.clone();
    let own = [
        ("kubernetes.io/hostname", config.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", base::go_architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", base::go_architecture()),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    Node {
        metadata: ObjectMeta { name: Some(config.node_name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            capacity: Some(derive_resources(context, false)),
            allocatable: Some(derive_allocatable(context)),
            addresses: Some(derive_addresses(context)),
            ..NodeStatus::default()
        }),
    }
}

fn derive_addresses(context: &Context) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let ips = context.config.node_ips.iter().map(|ip| address("InternalIP", ip.to_string()));
    ips.chain(std::iter::once(address("Hostname", context.config.hostname.clone()))).collect()
}

/// What pods may have of the machine.
pub fn derive_allocatable(context: &Context) -> BTreeMap<String, Quantity> {
    derive_resources(context, true)
}

fn derive_resources(context: &Context, for_pods: bool) -> BTreeMap<String, Quantity> {
    let machine = &context.machine;
    let (_, memory, ephemeral) = allocatable(machine, &context.config.eviction_hard);
    let (memory, ephemeral) =
        if for_pods { (memory, ephemeral) } else { (machine.memory_bytes, machine.ephemeral_bytes) };
    let ephemeral = if for_pods { ephemeral.to_string() } else { format!("{}Ki", ephemeral / 1024) };
    [
        ("cpu", machine.cpus.to_string()),
        ("memory", format!("{}Ki", memory / 1024)),
        ("ephemeral-storage", ephemeral),
        ("pods", context.config.max_pods.to_string()),
        ("hugepages-1Gi", "0".to_owned()),
        ("hugepages-2Mi", "0".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), Quantity(value)))
    .into()
}

async fn run_status(context: Arc<Context>) {
    let api: Api<Node> = Api::all(context.client.clone());
    let mut published = NodeStatus::default();
    let mut written = tokio::time::Instant::now();
    let mut ever_ready = false;
    loop {
        let status = derive_status(&context, &published).await;
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let due = written.elapsed() >= STATUS_WRITTEN_EVERY || !is_same(&status, &published);
        if due {
            let patch = json!({ "status": status });
            match api.patch_status(&context.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    published = status;
                    written = tokio::time::Instant::now();
                    ever_ready |= ready;
                }
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    tracing::warn!("the Node object was deleted; registering again");
                    register(&context).await;
                    published = NodeStatus::default();
                    continue;
                }
                Err(error) => tracing::warn!(%error, "cannot write the node's status"),
            }
        }
        tokio::time::sleep(if ever_ready { STATUS_EVERY } else { STATUS_EVERY_UNREADY }).await;
    }
}

/// Equal but for heartbeat times.
fn is_same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    strip(a) == strip(b)
}

async fn derive_status(context: &Context, previous: &NodeStatus) -> NodeStatus {
    let runtime = runtime_problem(&context.cri).await;
    let conditions = derive_conditions(context, runtime, previous);
    let mut info = context.machine.info.clone();
    info.container_runtime_version = format!("{}://{}", context.runtime_name, context.runtime_version);
    info.kubelet_version.clone_from(&context.config.kubelet_version);
    // A runtime that does not say leaves what was published.
    let (runtime_handlers, features) = observe_abilities(context)
        .await
        .unwrap_or_else(|| (previous.runtime_handlers.clone(), previous.features.clone()));
    let port = context.config.server.as_ref().map(|server| i32::from(server.listen.port()));
    NodeStatus {
        capacity: Some(derive_resources(context, false)),
        allocatable: Some(derive_allocatable(context)),
        addresses: Some(derive_addresses(context)),
        conditions: Some(conditions),
        node_info: Some(info),
        images: observe_images(context).await.or_else(|| previous.images.clone()),
        daemon_endpoints: port.map(|port| NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) }),
        runtime_handlers,
        features,
        ..NodeStatus::default()
    }
}

/// None if the runtime does not say: what was published stays.
async fn observe_images(context: &Context) -> Option<Vec<ContainerImage>> {
    let list = context.cri.list_images(v1::ListImagesRequest::default()).await;
    let list = list.inspect_err(|error| tracing::debug!(%error, "cannot list images for the node's status"));
    let mut images = list.ok()?.images;
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let names = |image: &v1::Image| image.repo_digests.iter().chain(&image.repo_tags).cloned().collect::<Vec<_>>();
    let published = images
        .iter()
        .map(|image| ContainerImage { names: Some(names(image)), size_bytes: i64::try_from(image.size).ok() })
        .take(IMAGES_MAX)
        .collect();
    Some(published)
}

/// As the Node's status has them.
type Abilities = (Option<Vec<NodeRuntimeHandler>>, Option<NodeFeatures>);

/// None if the runtime does not answer.
async fn observe_abilities(context: &Context) -> Option<Abilities> {
    let reply = context.cri.status(v1::StatusRequest { verbose: false }).await;
    let reply = reply.inspect_err(|error| tracing::debug!(%error, "cannot ask for the runtime's abilities")).ok()?;
    let handler = |handler: v1::RuntimeHandler| NodeRuntimeHandler {
        name: Some(handler.name),
        features: handler.features.map(|features| k8s_openapi::api::core::v1::NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    };
    let features = reply
        .features
        .map(|features| NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) });
    Some((Some(reply.runtime_handlers.into_iter().map(handler).collect()), features))
}

/// (type, status, reason, message).
type Finding = (&'static str, bool, &'static str, String);

fn derive_conditions(context: &Context, runtime: Option<String>, previous: &NodeStatus) -> Vec<NodeCondition> {
    let (memory, disk): (Vec<_>, Vec<_>) = observe_shortages(context).into_iter().partition(Shortage::is_memory);
    let findings: [Finding; 4] = [
        pressure(
            "MemoryPressure",
            !memory.is_empty(),
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            ["kubelet has insufficient memory available", "kubelet has sufficient memory available"],
        ),
        pressure(
            "DiskPressure",
            !disk.is_empty(),
            "KubeletHasDiskPressure",
            "KubeletHasNoDiskPressure",
            ["kubelet has disk pressure", "kubelet has no disk pressure"],
        ),
        pressure(
            "PIDPressure",
            false,
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
            ["kubelet has insufficient PID available", "kubelet has sufficient PID available"],
        ),
        match runtime {
            None => ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
            Some(problem) => ("Ready", false, "KubeletNotReady", problem),
        },
    ];
    let now = context.clock.now();
    findings.into_iter().map(|finding| stamp(finding, previous, now)).collect()
}

fn pressure(kind: &'static str, under: bool, bad: &'static str, good: &'static str, texts: [&str; 2]) -> Finding {
    let (reason, message) = if under { (bad, texts[0]) } else { (good, texts[1]) };
    (kind, under, reason, message.to_owned())
}

fn stamp(finding: Finding, previous: &NodeStatus, now: Timestamp) -> NodeCondition {
    let (kind, yes, reason, message) = finding;
    let status = if yes { "True" } else { "False" };
    let known = previous.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let since = known.filter(|condition| condition.status == status).and_then(|c| c.last_transition_time.clone());
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    }
}

async fn run_lease(context: Arc<Context>, node_uid: String) {
    let api: Api<Lease> = Api::namespaced(context.client.clone(), "kube-node-lease");
    let mut ticks = tokio::time::interval(LEASE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Err(error) = renew_lease(&api, &context, &node_uid).await {
            tracing::warn!(%error, "cannot renew the node's lease");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn renew_lease(api: &Api<Lease>, context: &Context, node_uid: &str) -> Result<(), kube::Error> {
    let name = &context.config.node_name;
    let renew_time = MicroTime(context.clock.now());
    let patch =
        json!({ "spec": { "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renew_time } });
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some("kube-node-lease".to_owned()),
                    owner_references: Some(vec![OwnerReference {
                        api_version: "v1".to_owned(),
                        kind: "Node".to_owned(),
                        name: name.clone(),
                        uid: node_uid.to_owned(),
                        ..OwnerReference::default()
                    }]),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(name.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(renew_time),
                    ..LeaseSpec::default()
                }),
            };
            api.create(&PostParams::default(), &lease).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

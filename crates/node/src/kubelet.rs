//! The kubelet as a whole: what its parts share, and their start and end.
//!
//! Input: [`NodeConfig`], a client with the identity `system:node:<name>`, a clock. Output: a running node, until
//! `stop` is cancelled. Invariant [I12]: stopping ends tasks, never containers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Clock;
use client::{EventRecorder, Informer};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use podlife::NodeFacts;
use podlife::dns::{Resolver, derive_resolver, parse_resolv_conf};
use podlife::downward::RuntimeFacts;
use tokio_util::sync::CancellationToken;

use crate::access::StreamRoutes;
use crate::config::NodeConfig;
use crate::cri::{Cri, v1};
use crate::images::Images;
use crate::machine::{Machine, observe_machine};
use crate::objects::Objects;
use crate::pods::Pods;
use crate::recorder::PodRecorder;
use crate::runtime::{Runtime, RuntimeError, start_runtime};
use crate::thresholds::{Signal, Thresholds};
use crate::volumes::VolumeContext;
use crate::{garbage, heartbeat, log_rotation, runtime_events, server};

/// How long a container's start waits for the list of Services.
const SERVICES_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("cannot make {path}: run as root and check the disk")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("cannot set up the cgroup {path}: check that cgroups are mounted and writable")]
    Cgroup { path: String, source: std::io::Error },
    #[error("cannot listen on {address}: stop what uses the port, or choose another")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
}

/// What all parts of the kubelet share.
pub struct Context {
    pub config: NodeConfig,
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub cri: Cri,
    pub runtime_name: String,
    pub runtime_version: String,
    pub machine: Machine,
    pub facts: NodeFacts,
    pub objects: Arc<Objects>,
    pub images: Images,
    pub recorder: PodRecorder,
    pub services: Arc<Informer<Service>>,
    pub volumes: VolumeContext,
    pub owners: Owners,
}

/// Container or sandbox id -> pod uid, so that an event finds its worker. An id is entered before its process starts,
/// so that no event can come too early.
#[derive(Debug, Default)]
pub struct Owners {
    ids: Mutex<HashMap<String, String>>,
}

impl Owners {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert(&self, id: &str, uid: &str) {
        self.lock().insert(id.to_owned(), uid.to_owned());
    }

    pub fn get(&self, id: &str) -> Option<String> {
        self.lock().get(id).cloned()
    }

    /// The pod is forgotten.
    pub fn remove_pod(&self, uid: &str) {
        self.lock().retain(|_, owner| owner != uid);
    }
}

impl Context {
    /// The pod's resolv.conf. The host's is read each time: it changes with the network.
    pub fn resolver_of(&self, pod: &Pod) -> Resolver {
        let host = std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default();
        let servers = self.config.cluster_dns.iter().map(ToString::to_string).collect::<Vec<_>>();
        derive_resolver(pod, &parse_resolv_conf(&host), &servers, &self.config.cluster_domain)
    }
}

/// Runs the node. Returns when `stop` is cancelled, or with an error that a person must cure.
pub async fn run(
    config: NodeConfig,
    client: Client,
    clock: Arc<dyn Clock>,
    streams: Arc<dyn StreamRoutes>,
    stop: CancellationToken,
) -> Result<(), NodeError> {
    prepare_directories(&config)?;
    let runtime = start_runtime(&config.runtime, stop.clone()).await?;
    import_missing(&config, &runtime.cri).await?;
    crate::cgroups::apply_cgroup(&crate::cgroups::kubepods(&config.cgroup_root), &Default::default())
        .map_err(|source| NodeError::Cgroup { path: crate::cgroups::kubepods(&config.cgroup_root), source })?;
    let context = Arc::new(build_context(config, client, clock, runtime));
    let listener = match &context.config.server {
        Some(settings) => Some(server::bind(settings).await?),
        None => None,
    };
    let pods = Pods::new(context.clone());
    let work = async {
        // Env variables of Services need the list; a pod that starts before it would miss them for its whole life.
        if tokio::time::timeout(SERVICES_WAIT, context.services.synced()).await.is_err() {
            tracing::warn!("the list of Services is late; containers start without waiting for it");
        }
        pods.run().await;
    };
    let parts = async {
        tokio::join!(
            work,
            heartbeat::run_heartbeat(context.clone()),
            runtime_events::run_events(context.cri.clone(), pods.clone()),
            garbage::run_garbage(context.clone(), pods.clone()),
            log_rotation::run_rotation(context.clone()),
            server::run_server(listener, context.clone(), pods.clone(), streams),
        );
    };
    tokio::select! {
        () = parts => {}
        () = stop.cancelled() => {}
    }
    pods.stop();
    Ok(())
}

/// An image that is there is not imported again: its name stands for its content.
async fn import_missing(config: &NodeConfig, cri: &Cri) -> Result<(), NodeError> {
    for image in &config.images {
        let spec = v1::ImageSpec { image: image.name.clone(), ..Default::default() };
        let known = cri.image_status(v1::ImageStatusRequest { image: Some(spec), verbose: false }).await;
        if !known.is_ok_and(|reply| reply.image.is_some()) {
            crate::runtime::import::import_images(&config.runtime, image.archive).await?;
        }
    }
    Ok(())
}

/// What Pods may have, as the Node and downward API values tell it: CPUs in thousandths, bytes of memory and of disk.
pub fn allocatable(machine: &Machine, eviction_hard: &Thresholds) -> (u64, u64, u64) {
    let memory = machine.memory_bytes - eviction_hard.kept(Signal::MemoryAvailable, machine.memory_bytes);
    let ephemeral = machine.ephemeral_bytes - eviction_hard.kept(Signal::NodefsAvailable, machine.ephemeral_bytes);
    (machine.cpus * 1000, memory, ephemeral)
}

fn build_context(config: NodeConfig, client: Client, clock: Arc<dyn Clock>, runtime: Runtime) -> Context {
    let machine = observe_machine(&config.kubelet_dir);
    let (cpu, memory, ephemeral) = allocatable(&machine, &config.eviction_hard);
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let facts = NodeFacts {
        host_ips: config.node_ips.iter().map(ToString::to_string).collect(),
        runtime_name: runtime.name.clone(),
    };
    let objects = Arc::new(Objects::new(client.clone()));
    let volumes = VolumeContext {
        kubelet_dir: config.kubelet_dir.clone(),
        objects: objects.clone(),
        client: client.clone(),
        clock: clock.clone(),
        facts: RuntimeFacts {
            pod_ips: Vec::new(),
            host_ips: facts.host_ips.clone(),
            allocatable_cpu_milli: number(cpu),
            allocatable_memory_bytes: number(memory),
            allocatable_ephemeral_bytes: number(ephemeral),
        },
    };
    let recorder = EventRecorder::spawn(client.clone(), "kubelet", &config.node_name, clock.clone());
    Context {
        images: Images::new(runtime.cri.clone()),
        recorder: PodRecorder::new(recorder),
        services: Informer::spawn(client.clone(), client::WatchConfig::default()),
        runtime_name: runtime.name,
        runtime_version: runtime.version,
        cri: runtime.cri,
        config,
        client,
        clock,
        machine,
        facts,
        objects,
        volumes,
        owners: Owners::default(),
    }
}

fn prepare_directories(config: &NodeConfig) -> Result<(), NodeError> {
    let pods = config.kubelet_dir.join("pods");
    for path in [&pods, &config.pod_log_dir, &config.container_log_dir] {
        std::fs::create_dir_all(path).map_err(|source| NodeError::Directory { path: path.clone(), source })?;
    }
    Ok(())
}

/// Conditions of the runtime that a Ready node needs: (runtime ready, network ready) problems, if any.
pub async fn runtime_problem(cri: &Cri) -> Option<String> {
    match cri.status(v1::StatusRequest { verbose: false }).await {
        Err(status) => Some(format!("container runtime is down: {}", status.message())),
        Ok(reply) => {
            let conditions = reply.status.map(|status| status.conditions).unwrap_or_default();
            let problem = conditions.into_iter().find(|condition| {
                matches!(condition.r#type.as_str(), "RuntimeReady" | "NetworkReady") && !condition.status
            })?;
            Some(match problem.r#type.as_str() {
                "NetworkReady" => format!(
                    "container runtime network not ready: NetworkReady=false reason:{} message:{}",
                    problem.reason, problem.message
                ),
                _ => format!("container runtime status check may not have completed yet: {}", problem.message),
            })
        }
    }
}

//! The foreground processes: `holdfast up --foreground` (control plane and node) and `holdfast server` (control plane alone).
//!
//! Three tokio runtimes, so that a busy controller can't delay a heartbeat: API server, components, node. SIGTERM and
//! SIGINT end the process in order; containers run on [I12].

use std::net::IpAddr;
use std::sync::Arc;

use base::{Clock, SystemClock};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::agent::{self, AgentSettings};
use crate::cli::{ClusterArgs, JoinArgs, ServerArgs, UpArgs};
use crate::datastore::DatastoreSettings;
use crate::server::{self, ControlPlane, Listeners, ServerSettings, client_of};
use crate::up::progress;
use crate::{CommandResult, instance, network, status};

/// Whoever started us waits this long for the node. A cold machine takes seconds; more than this wants a person.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(120);

/// Control plane and node, until a signal ends it.
pub fn run_up(args: &UpArgs) -> CommandResult {
    start_log(&args.cluster.log);
    if !rustix::process::geteuid().is_root() {
        return Err("a node needs root for its namespaces, mounts and packet rules; run this with sudo".into());
    }
    let _lock = instance::lock(&args.cluster.place.run_dir)?;
    let settings = server_settings(&args.cluster)?;
    let agent = agent_settings(args, &settings)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let stop = CancellationToken::new();
    let (api, components, node) = (runtime("api", 2)?, runtime("components", 1)?, runtime("node", 2)?);
    let peers = runtime("peers", 1)?;
    let plane = api.block_on(start_plane(&settings, &args.join, clock.clone(), peers.handle()))?;
    let url = network::server_url(settings.advertise, settings.port);
    progress(&format!("API server on {url} after {:.1?}", clock.monotonic()));
    plane.spawn_components(components.handle(), &clock, &stop);
    agent::spawn(&agent, &plane.server, &plane.pki, node.handle(), &clock, &stop)?;
    let ended = api.block_on(async {
        let admin = client_of(&plane.server, "system:apiserver", &["system:masters"]);
        tokio::select! {
            () = tell_when_ready(&admin, &agent, &*clock) => {}
            () = tokio::time::sleep(READY_WITHIN) => progress(instance::NOT_READY_LINE),
            ended = wait_for_end(&plane) => return ended,
        }
        wait_for_end(&plane).await
    });
    end(&plane, &stop, [api, components, node, peers]);
    ended_or_restarted(&plane, ended)
}

/// The control plane alone, until a signal ends it.
pub fn run_server(args: &ServerArgs) -> CommandResult {
    let (join, args) = (&args.join, &args.cluster);
    start_log(&args.log);
    let _lock = instance::lock(&args.place.run_dir)?;
    let settings = server_settings(args)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let stop = CancellationToken::new();
    let (api, components, peers) = (runtime("api", 2)?, runtime("components", 1)?, runtime("peers", 1)?);
    let plane = api.block_on(start_plane(&settings, join, clock.clone(), peers.handle()))?;
    plane.spawn_components(components.handle(), &clock, &stop);
    progress(instance::READY_LINE);
    let ended = api.block_on(wait_for_end(&plane));
    end(&plane, &stop, [api, components, peers]);
    ended_or_restarted(&plane, ended)
}

/// The ports first: a cluster must not admit a member that then does not come.
async fn start_plane(
    settings: &ServerSettings,
    args: &JoinArgs,
    clock: Arc<dyn Clock>,
    peers: &Handle,
) -> Result<ControlPlane, Box<dyn std::error::Error>> {
    let listeners = Listeners::bind(settings).await?;
    match (args.join.as_deref(), args.token.as_deref()) {
        (Some(url), Some(token)) => crate::join::join(settings, url, token).await?,
        // The flag is refused without --join, so it is the variable.
        (None, Some(_)) => {
            tracing::warn!("HOLDFAST_TOKEN is set and not used: without --join this server is of no other's cluster");
        }
        (_, None) => {}
    }
    Ok(server::start(settings, listeners, clock, peers).await?)
}

/// What this process ends with; on another store it does not end, but becomes a new one.
fn ended_or_restarted(plane: &ControlPlane, ended: CommandResult) -> CommandResult {
    if plane.is_restart_asked() { Err(instance::restart().into()) } else { ended }
}

/// Until a signal or a restart; an error if the server can't go on.
async fn wait_for_end(plane: &ControlPlane) -> CommandResult {
    tokio::select! {
        // First: when this server leaves a cluster for another store, the others go as well.
        biased;
        () = plane.restart_asked() => {
            info!("restarting on another store");
            Ok(())
        }
        _ = wait_for_signal() => Ok(()),
        reason = plane.lost() => Err(reason.as_ref().into()),
    }
}

pub fn agent_settings(args: &UpArgs, server: &ServerSettings) -> Result<AgentSettings, Box<dyn std::error::Error>> {
    let place = args.cluster.place.clone();
    Ok(AgentSettings {
        data_dir: place.data_dir,
        run_dir: place.run_dir,
        config_dir: place.config_dir,
        node_name: args.node_name.clone().unwrap_or_else(|| server.hostname.clone()),
        node_ip: server.advertise,
        container_runtime_endpoint: args.container_runtime_endpoint.clone(),
        eviction_hard: args.eviction_hard.clone().unwrap_or_default(),
        cluster_cidr: server.cluster_cidr,
        service_cidr: server.service_cidr,
    })
}

fn server_settings(args: &ClusterArgs) -> Result<ServerSettings, Box<dyn std::error::Error>> {
    let cluster_cidr = network::parse_network(&args.cluster_cidr)?;
    let service_cidr = network::parse_network(&args.service_cidr)?;
    network::check_service_network(service_cidr, cluster_cidr)?;
    Ok(ServerSettings {
        data_dir: args.place.data_dir.clone(),
        advertise: args.advertise_address.unwrap_or_else(network::own_address),
        port: args.port,
        peer_port: args.peer_port,
        etcd_port: args.etcd_port,
        cluster_cidr,
        service_cidr,
        hostname: hostname(),
        datastore: DatastoreSettings::parse(&args.datastore, &args.place)?,
    })
}

/// This machine's name in the form that a Node's name takes.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// That a joiner does not check the first server's certificate is told for every connection; the token's hash is what it checks.
const SILENCED: &str = "kube_client::client::tls=error";

/// Starts the log on standard error; `filter` as the command line has checked it.
pub fn start_log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::new(format!("{SILENCED},{filter}"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

/// A tokio runtime whose threads are called `name`.
pub fn runtime(name: &str, threads: usize) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
}

/// Watches the own Node until it is Ready and says so.
async fn tell_when_ready(client: &kube::Client, agent: &AgentSettings, clock: &dyn Clock) {
    let nodes: Api<Node> = Api::all(client.clone());
    let only = watcher::Config::default().fields(&format!("metadata.name={}", agent.node_name));
    let mut seen = std::pin::pin!(watcher(nodes, only).default_backoff().applied_objects());
    while let Some(observed) = seen.next().await {
        if let Ok(node) = observed
            && status::readiness(&node).is_ok()
        {
            progress(&format!(
                "node {} ({}) is Ready after {:.1?}",
                agent.node_name,
                show(agent.node_ip),
                clock.monotonic()
            ));
            for pressure in status::pressures(&node) {
                progress(&format!(
                    "{}: the node takes no Pods until more is free; `--eviction-hard` says how much should be",
                    pressure.type_
                ));
            }
            progress(instance::READY_LINE);
            return;
        }
    }
}

fn show(ip: IpAddr) -> String {
    ip.to_string()
}

/// Until SIGTERM or SIGINT; which one it was.
pub async fn wait_for_signal() -> SignalKind {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        error!("signals cannot be received; end this process with SIGKILL");
        return std::future::pending().await;
    };
    let kind = tokio::select! {
        _ = term.recv() => SignalKind::terminate(),
        _ = int.recv() => SignalKind::interrupt(),
    };
    info!("stopping");
    kind
}

/// Components first, then the API server and its store. The first runtime is the API server's.
fn end<const N: usize>(plane: &ControlPlane, stop: &CancellationToken, runtimes: [Runtime; N]) {
    stop.cancel();
    if let Some(api) = runtimes.first() {
        api.block_on(plane.components_ended());
        api.block_on(plane.leave());
    }
    plane.stop();
    for runtime in runtimes {
        runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    }
}

//! `holdfast status`: one screen that says what runs and what ails, for someone who has just been woken.

use std::time::Duration;

use base::with_causes;
use k8s_openapi::api::core::v1::{Event, Node, NodeCondition, Pod};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::cli::PlaceArgs;
use crate::{CommandResult, block_on, datastore, instance, up};

/// Ailing Pods and warnings shown; the rest is counted.
const LINES_MAX: usize = 10;
/// A server of this machine takes a connection at once, unless it is stopped or its machine is.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Between two pieces of an answer. What a server does before its first one is bounded by 10 s.
const READ_WITHIN: Duration = Duration::from_secs(15);

pub fn run(place: &PlaceArgs) -> CommandResult {
    let Some(pid) = instance::running_pid(&place.run_dir) else {
        println!("holdfast is not running here; `holdfast up` starts it");
        return Ok(());
    };
    println!(
        "holdfast {} runs (pid {pid}, {}, data in {})",
        crate::cli::VERSION,
        memory_of(pid),
        place.data_dir.display()
    );
    if let Some(datastore) = datastore::read_note(&place.data_dir) {
        println!("datastore: {datastore}");
    }
    let shown: CommandResult = block_on(async {
        let client = connect(place).await?;
        show_nodes(&client).await?;
        show_pods(&client).await?;
        show_warnings(&client).await
    })?;
    shown.map_err(explain)
}

/// A client with the administrator's rights, of the cluster on this machine.
pub async fn connect(place: &PlaceArgs) -> Result<Client, Box<dyn std::error::Error>> {
    let path = up::admin_kubeconfig(&place.data_dir);
    if !path.exists() {
        let start = "`holdfast up` or `holdfast server` starts one";
        return Err(format!("there is no server here: {} is missing; {start}", path.display()).into());
    }
    Ok(Client::try_from(admin_config(place).await?)?)
}

/// How the administrator reaches the server of this machine.
pub async fn admin_config(place: &PlaceArgs) -> Result<Config, kube::config::KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(up::admin_kubeconfig(&place.data_dir))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // Who waits for a command wants to read what the server says, not to wait minutes for another answer.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_WITHIN);
    config.read_timeout = Some(READ_WITHIN);
    // From each request on, not from when its connection was last used.
    config.reset_reader_on_write = true;
    Ok(config)
}

/// What a command says when the server of this machine has not answered it; other errors as they are.
pub fn explain(error: Box<dyn std::error::Error>) -> Box<dyn std::error::Error> {
    match error.downcast_ref::<kube::Error>() {
        Some(known @ (kube::Error::Service(_) | kube::Error::HyperError(_))) => {
            let why = message_of(known);
            format!("the server of this machine does not answer ({why}); `holdfast doctor` says what ails").into()
        }
        Some(known) => message_of(known).into(),
        None => error,
    }
}

/// An error in one line: what the API server says, without the rest of its Status, or what came in the way of asking it.
pub fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        kube::Error::Service(cause) => with_causes(&**cause),
        other => with_causes(other),
    }
}

async fn show_nodes(client: &Client) -> CommandResult {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    println!("nodes: {}", nodes.items.len());
    for node in &nodes.items {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let state = match readiness(node) {
            Ok(()) => "Ready".to_owned(),
            Err(why) => format!("NotReady: {why}"),
        };
        println!("  {name}  {state}");
        for pressure in pressures(node) {
            println!("    {}: {}", pressure.type_, pressure.message.as_deref().unwrap_or_default());
        }
    }
    Ok(())
}

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

/// What a node lacks.
pub fn pressures(node: &Node) -> impl Iterator<Item = &NodeCondition> {
    conditions(node).iter().filter(|c| c.type_ != "Ready" && c.status == "True")
}

/// Why a node is not Ready.
pub fn readiness(node: &Node) -> Result<(), String> {
    match conditions(node).iter().find(|c| c.type_ == "Ready") {
        Some(c) if c.status == "True" => Ok(()),
        Some(c) => Err(c.message.clone().unwrap_or_default()),
        None => Err("it has never reported".to_owned()),
    }
}

async fn show_pods(client: &Client) -> CommandResult {
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
    let ailing: Vec<String> =
        pods.items.iter().filter_map(|pod| Some(format!("{}  {}", full_name(pod), ailment(pod)?))).collect();
    println!("pods: {}, {} of them ailing", pods.items.len(), ailing.len());
    print_bounded(&ailing);
    Ok(())
}

async fn show_warnings(client: &Client) -> CommandResult {
    let warnings = Api::<Event>::all(client.clone()).list(&ListParams::default().fields("type=Warning")).await?;
    let mut lines: Vec<(Option<_>, String)> =
        warnings.items.iter().map(|e| (e.last_timestamp.clone(), describe(e))).collect();
    lines.sort_by(|a, b| b.0.cmp(&a.0));
    println!("warnings in the last hour: {}", lines.len());
    print_bounded(&lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>());
    Ok(())
}

fn describe(event: &Event) -> String {
    let about = &event.involved_object;
    format!(
        "{} {}/{}: {}: {}",
        about.kind.as_deref().unwrap_or_default().to_lowercase(),
        about.namespace.as_deref().unwrap_or_default(),
        about.name.as_deref().unwrap_or_default(),
        event.reason.as_deref().unwrap_or_default(),
        event.message.as_deref().unwrap_or_default()
    )
}

/// Why a Pod is not as it should be; `None` for a healthy or completed one.
pub fn ailment(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    if phase == "Succeeded" || (phase == "Running" && semantics::pod::is_pod_ready(pod)) {
        return None;
    }
    let waiting =
        status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let unscheduled =
        semantics::pod::condition(pod, "PodScheduled").filter(|c| c.status == "False").and_then(|c| c.message.clone());
    let why = unscheduled.or(waiting).unwrap_or_else(|| "not ready".to_owned());
    Some(format!("{phase}: {why}"))
}

fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn print_bounded(lines: &[String]) {
    for line in lines.iter().take(LINES_MAX) {
        println!("  {line}");
    }
    if lines.len() > LINES_MAX {
        println!("  ... and {} more", lines.len() - LINES_MAX);
    }
}

/// Resident memory, as the kernel counts it.
fn memory_of(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident = text.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    resident.map_or_else(|| "memory unknown".to_owned(), |kib| format!("{} MB", kib / 1024))
}

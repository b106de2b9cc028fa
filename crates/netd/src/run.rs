//! netd's life on a node: set the network up, then serve DNS and keep the Service rules in step.
//!
//! Invariant: the network is set up before anything waits for the API, when the Pod range is given; the runtime may start
//! Pods from then on. Stopping touches neither rules nor links: Pods keep their network while netd is away.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use netplan::{Cidr, NodeView};
use tokio::sync::watch;

use crate::cni;
use crate::dns::{DnsServer, Upstream};
use crate::proxy::{self, Chain};
use crate::setup::{self, CniPaths, NodeNetwork, SetupError};
use crate::watch::Watches;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const DNS_PORT: u16 = 53;
const DNS_RETRY: Duration = Duration::from_secs(1);

/// What netd needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    pub paths: CniPaths,
    /// The binary that the runtime is to call as a plugin: this one.
    pub executable: PathBuf,
    /// This node's Pods; `None` waits for `spec.podCIDR` of the Node object.
    pub pod_cidr: Option<Cidr>,
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    /// The DNS server's address, inside `service_cidr`.
    pub dns: Ipv4Addr,
    pub cluster_domain: String,
    /// The host's resolver file, for names outside the cluster.
    pub resolv_conf: PathBuf,
    /// MTU of Pod links; the default route's when `None`.
    pub mtu: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum NetdError {
    #[error("could not set up the node's network")]
    Setup(#[source] SetupError),
    #[error("the set-up of the node's network broke off")]
    SetupTask(#[source] tokio::task::JoinError),
    #[error("could not reclaim Pod addresses")]
    Reclaim(#[source] cni::protocol::CniError),
}

/// Runs until `stop` completes. `client` needs list and watch on nodes, services, endpointslices and namespaces. Fails
/// only when the node's network cannot be set up; everything later is retried.
pub async fn run(config: Config, client: kube::Client, stop: impl Future<Output = ()>) -> Result<(), NetdError> {
    let work = async {
        let mut nodes = NodeWatch::start(&config, &client);
        let pod_cidr = match config.pod_cidr {
            Some(cidr) => cidr,
            None => nodes.pod_cidr().await,
        };
        apply_setup(&config, pod_cidr).await?;
        let (node, node_changes) = watch::channel(NodeView {
            name: config.node_name.clone(),
            zone: None,
            pod_cidr,
            cluster_cidr: config.cluster_cidr,
            service_cidr: config.service_cidr,
            local_address: Some(config.dns),
        });
        let watches = Watches::spawn(&client);
        tokio::join!(
            proxy::run(&watches, node_changes),
            serve_dns(&config, &watches),
            watches.learn_namespaces(),
            nodes.follow_zone(&node),
        );
        Ok(())
    };
    tokio::select! {
        result = work => result,
        () = stop => Ok(()),
    }
}

async fn apply_setup(config: &Config, pod_cidr: Cidr) -> Result<(), NetdError> {
    let network = NodeNetwork { pod_cidr, service_cidr: config.service_cidr, dns: config.dns, mtu: config.mtu };
    let (paths, executable) = (config.paths.clone(), config.executable.clone());
    tokio::task::spawn_blocking(move || {
        setup::apply(&network, &paths, &executable).map_err(NetdError::Setup)?;
        match cni::pod::reclaim(&paths.data).map_err(NetdError::Reclaim)? {
            0 => {}
            count => tracing::info!(count, "reclaimed addresses of Pods that are gone"),
        }
        Ok(())
    })
    .await
    .map_err(NetdError::SetupTask)?
}

/// This node's own object, as it changes.
struct NodeWatch {
    stream: BoxStream<'static, Result<Node, watcher::Error>>,
    seen: Option<Node>,
}

impl NodeWatch {
    fn start(config: &Config, client: &kube::Client) -> Self {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", config.node_name));
        let nodes: Api<Node> = Api::all(client.clone());
        Self { stream: watcher(nodes, only).default_backoff().applied_objects().boxed(), seen: None }
    }

    /// Waits for the next state of the object.
    async fn next(&mut self) -> &Node {
        loop {
            match self.stream.next().await {
                Some(Ok(node)) => return self.seen.insert(node),
                Some(Err(error)) => tracing::warn!(error = %Chain(&error), "could not watch the Node"),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until the object says which Pod addresses are this node's.
    async fn pod_cidr(&mut self) -> Cidr {
        loop {
            let node = self.next().await;
            match node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()).map(|text| text.parse()) {
                Some(Ok(cidr)) => return cidr,
                Some(Err(error)) => tracing::error!(error, "the Node's podCIDR is unusable"),
                None => tracing::info!("waiting for the Node's podCIDR"),
            }
        }
    }

    /// Keeps the zone in `view` that of the object, for ever.
    async fn follow_zone(&mut self, view: &watch::Sender<NodeView>) {
        loop {
            if let Some(node) = &self.seen {
                let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL)).cloned();
                view.send_if_modified(|view| {
                    let changed = view.zone != zone;
                    view.zone = zone;
                    changed
                });
            }
            self.next().await;
        }
    }
}

/// Serves DNS for ever, binding again after a failure.
async fn serve_dns(config: &Config, watches: &Watches) {
    // Before the first list every name of the zone would be missing; clients retry what they get no answer to.
    watches.synced().await;
    let address = SocketAddr::new(IpAddr::V4(config.dns), DNS_PORT);
    loop {
        let upstream = Upstream::new(config.resolv_conf.clone(), address.ip(), &mut base::OsRng);
        match DnsServer::bind(address, &config.cluster_domain, watches.view.clone(), upstream).await {
            Ok(server) => {
                tracing::info!(%address, "DNS is ready");
                if let Err(error) = server.serve().await {
                    tracing::error!(%error, "DNS stopped");
                }
            }
            Err(error) => tracing::error!(%address, %error, "could not bind DNS"),
        }
        tokio::time::sleep(DNS_RETRY).await;
    }
}

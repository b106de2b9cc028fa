//! The node's side of this process: kubelet and netd, each with its own identity and supervised on the node's runtime.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::ApiServer;
use apiserver::pki::Pki;
use base::Clock;
use netd::{Cidr, CniPaths};
use node::{NodeConfig, RuntimeConfig, Thresholds};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::server::client_of;
use crate::supervise::run_supervised;
use crate::{cli, images, network};

const KUBELET_PORT: u16 = 10250;

/// Everything the node is told.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub config_dir: PathBuf,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub container_runtime_endpoint: Option<String>,
    pub eviction_hard: Thresholds,
    pub cluster_cidr: (Ipv4Addr, u8),
    pub service_cidr: (Ipv4Addr, u8),
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the kubelet's certificates cannot be used")]
    Pki(#[from] apiserver::pki::PkiError),
}

/// Starts the node on `runtime`; it runs until `stop`, and its containers beyond.
pub fn spawn(
    settings: &AgentSettings,
    server: &ApiServer,
    pki: &Arc<Pki>,
    runtime: &Handle,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<(), AgentError> {
    // A client starts its worker on the runtime that it is made in.
    let _inside = runtime.enter();
    let mut config = node_config(settings);
    let (name, addresses) = (settings.node_name.clone(), [settings.node_ip, IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let tls = pki.kubelet_tls(&name, &addresses)?;
    config.server = Some(node::ServerConfig {
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), KUBELET_PORT),
        tls: tls.config(),
        allowed_users: vec![apiserver::pki::KUBELET_CLIENT.to_owned()],
        allowed_groups: vec!["system:masters".to_owned()],
    });
    let renew = move |pki: &Pki| tls.replace(&pki.node_serving(&name, &addresses)?);
    runtime.spawn(pki.clone().keep_renewed("the kubelet", renew));
    let user = format!("system:node:{}", settings.node_name);
    let kubelet_client = client_of(server, &user, &["system:nodes"]);
    let (c, s) = (clock.clone(), stop.clone());
    runtime.spawn(async move {
        let (clock, stop) = (c.clone(), s.clone());
        let streaming = Arc::new(node::streaming::Streaming::new(clock.clone()));
        run_supervised("kubelet", &*c, s, move || {
            node::run(config.clone(), kubelet_client.clone(), clock.clone(), streaming.clone(), stop.clone())
        })
        .await;
    });
    let netd_config = netd_config(settings);
    let netd_client = client_of(server, "system:kube-proxy", &[]);
    let (c, s) = (clock.clone(), stop.clone());
    runtime.spawn(async move {
        let stop = s.clone();
        run_supervised("netd", &*c, s, move || {
            netd::run(netd_config.clone(), netd_client.clone(), stop.clone().cancelled_owned())
        })
        .await;
    });
    Ok(())
}

/// What the kubelet is configured with; also what `holdfast down` needs to remove all of it.
pub fn node_config(settings: &AgentSettings) -> NodeConfig {
    let cni = CniPaths::under(&settings.data_dir);
    NodeConfig {
        node_name: settings.node_name.clone(),
        hostname: settings.node_name.clone(),
        node_ips: vec![settings.node_ip],
        labels: Default::default(),
        taints: Vec::new(),
        kubelet_dir: "/var/lib/kubelet".into(),
        pod_log_dir: "/var/log/pods".into(),
        container_log_dir: "/var/log/containers".into(),
        cgroup_root: "/".to_owned(),
        images: images::ALL
            .iter()
            .map(|image| node::config::EmbeddedImage { name: image.name.to_owned(), archive: image.archive })
            .collect(),
        runtime: RuntimeConfig {
            endpoint: settings.container_runtime_endpoint.clone(),
            bin_dir: None,
            root: settings.data_dir.join("containerd"),
            state: settings.run_dir.join("containerd"),
            sandbox_image: images::PAUSE.name.to_owned(),
            cni_bin_dir: cni.bin,
            cni_conf_dir: cni.conf,
            registries_file: settings.config_dir.join("registries.yaml"),
        },
        cluster_dns: vec![IpAddr::V4(network::nth_address(settings.service_cidr, 10))],
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf: "/etc/resolv.conf".into(),
        max_pods: 110,
        eviction_hard: settings.eviction_hard.clone(),
        kubelet_version: cli::VERSION.to_owned(),
        server: None,
    }
}

fn netd_config(settings: &AgentSettings) -> netd::Config {
    let cidr = |(network, prefix): (Ipv4Addr, u8)| Cidr { network, prefix };
    netd::Config {
        node_name: settings.node_name.clone(),
        paths: CniPaths::under(&settings.data_dir),
        executable: std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/holdfast".into()),
        pod_cidr: None,
        cluster_cidr: cidr(settings.cluster_cidr),
        service_cidr: cidr(settings.service_cidr),
        dns: network::nth_address(settings.service_cidr, 10),
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf: "/etc/resolv.conf".into(),
        mtu: None,
    }
}

//! The kubelet alone against any API server, for development.
//!
//! `kubelet URL TOKEN DIRECTORY CNI_BIN SANDBOX_IMAGE [NAME=ARCHIVE...]`: everything that it makes is under DIRECTORY, but for cgroups
//! (under /hfdev) and CNI's own state. Archives are imported at start. With `down` as the only further argument it
//! removes all that it made.

use std::path::Path;
use std::sync::Arc;

use node::{NodeConfig, RuntimeConfig};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter("node=debug,info").init();
    let args = std::env::args().skip(1).collect::<Vec<_>>();
    let [url, token, directory, cni_bin, sandbox_image, archives @ ..] = args.as_slice() else {
        return Err("usage: kubelet URL TOKEN DIRECTORY CNI_BIN SANDBOX_IMAGE [NAME=ARCHIVE...]".into());
    };
    let mut config = config(Path::new(directory), cni_bin, sandbox_image)?;
    if archives == ["down"] {
        node::runtime::teardown::stop_runtime(&config).await;
        return Ok(());
    }
    let stop = CancellationToken::new();
    for argument in archives {
        let (name, path) = argument.split_once('=').ok_or("archives are NAME=PATH")?;
        let archive = Box::leak(std::fs::read(path)?.into_boxed_slice());
        config.images.push(node::EmbeddedImage { name: name.to_owned(), archive });
    }
    let mut kube_config = kube::Config::new(url.parse()?);
    kube_config.accept_invalid_certs = true;
    kube_config.auth_info.token = Some(token.clone().into());
    let client = kube::Client::try_from(kube_config)?;
    let clock = Arc::new(base::SystemClock::new());
    tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    node::run(config, client, clock, Arc::new(node::access::NoStreamRoutes), stop).await?;
    Ok(())
}

fn config(directory: &Path, cni_bin: &str, sandbox_image: &str) -> Result<NodeConfig, Box<dyn std::error::Error>> {
    Ok(NodeConfig {
        node_name: "dev".to_owned(),
        hostname: "dev".to_owned(),
        node_ips: vec!["127.0.0.1".parse()?],
        labels: Default::default(),
        taints: Vec::new(),
        images: Vec::new(),
        kubelet_dir: directory.join("kubelet"),
        pod_log_dir: directory.join("pod-logs"),
        container_log_dir: directory.join("container-logs"),
        cgroup_root: "/hfdev".to_owned(),
        runtime: RuntimeConfig {
            endpoint: None,
            bin_dir: None,
            root: directory.join("containerd"),
            state: directory.join("run"),
            sandbox_image: sandbox_image.to_owned(),
            cni_bin_dir: cni_bin.into(),
            cni_conf_dir: directory.join("cni"),
            registries_file: directory.join("registries.yaml"),
        },
        cluster_dns: vec!["10.43.0.10".parse()?],
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf: "/etc/resolv.conf".into(),
        max_pods: 110,
        eviction_hard: node::Thresholds::default(),
        kubelet_version: "v1.37.2".to_owned(),
        server: None,
    })
}

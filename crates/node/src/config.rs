//! What the kubelet is told at start. Plain data: the binary parses flags and files into it.
//!
//! Invariant: no field is read from the environment here. All paths are absolute.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use crate::thresholds::Thresholds;

/// Everything that [`crate::run`] needs besides the client and the clock.
#[derive(Clone)]
pub struct NodeConfig {
    /// `metadata.name` of the Node object and `spec.nodeName` of its pods.
    pub node_name: String,
    /// Value of the Hostname address and of the label `kubernetes.io/hostname`.
    pub hostname: String,
    /// InternalIP addresses, the primary first. At most one a family. Never empty.
    pub node_ips: Vec<IpAddr>,
    /// Extra labels set at registration and kept.
    pub labels: BTreeMap<String, String>,
    /// Taints set at registration only.
    pub taints: Vec<Taint>,
    /// Volumes, plugins and per-pod data, `/var/lib/kubelet`.
    pub kubelet_dir: PathBuf,
    /// `/var/log/pods`.
    pub pod_log_dir: PathBuf,
    /// `/var/log/containers`, symlinks into `pod_log_dir`.
    pub container_log_dir: PathBuf,
    /// The cgroup under which `kubepods` is made, `/` unless a test isolates itself.
    pub cgroup_root: String,
    pub runtime: RuntimeConfig,
    /// Images to have before the first pod, the sandbox's among them.
    pub images: Vec<EmbeddedImage>,
    /// Addresses put into pods' resolv.conf under dnsPolicy ClusterFirst.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The host's resolv.conf, the base of dnsPolicy Default.
    pub resolv_conf: PathBuf,
    /// Upper bound of pods admitted, 110.
    pub max_pods: u32,
    /// Below what is free the node takes no more Pods and evicts some.
    pub eviction_hard: Thresholds,
    /// `status.nodeInfo.kubeletVersion`, such as `v1.37.2`.
    pub kubelet_version: String,
    /// The HTTPS endpoint; `None` runs without one.
    pub server: Option<ServerConfig>,
}

/// An image carried by the binary.
#[derive(Debug, Clone)]
pub struct EmbeddedImage {
    /// Full name with tag, as the archive names it. A new content needs a new tag.
    pub name: String,
    /// OCI or docker archive.
    pub archive: &'static [u8],
}

/// Where the container runtime is, or how to run our own.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// `unix:///path` of a runtime that someone else runs. `None`: start and supervise our own containerd.
    pub endpoint: Option<String>,
    /// Searched first for `containerd`, `ctr`, `runc` and the shim; then the system's usual directories.
    pub bin_dir: Option<PathBuf>,
    /// containerd's persistent data, `/var/lib/holdfast/containerd`.
    pub root: PathBuf,
    /// containerd's run-time state and socket, `/run/holdfast/containerd`.
    pub state: PathBuf,
    /// Image of the pod sandbox; must be present or pullable.
    pub sandbox_image: String,
    pub cni_bin_dir: PathBuf,
    pub cni_conf_dir: PathBuf,
    /// k3s' registries.yaml; a missing file means no mirrors.
    pub registries_file: PathBuf,
}

impl RuntimeConfig {
    /// Path of the CRI socket.
    pub fn socket(&self) -> PathBuf {
        match &self.endpoint {
            Some(endpoint) => PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint)),
            None => self.state.join("containerd.sock"),
        }
    }
}

/// The kubelet's own HTTPS server.
#[derive(Clone)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// Must ask for (not require) client certificates of the cluster's CA; `/healthz` alone is served without one.
    pub tls: Arc<rustls::ServerConfig>,
    /// Certificate common names and organizations that may use the API behind `/healthz`.
    pub allowed_users: Vec<String>,
    pub allowed_groups: Vec<String>,
}

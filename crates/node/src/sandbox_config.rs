//! The CRI configuration of a pod's sandbox. Input: pod, addresses of DNS, cgroup. Output: `PodSandboxConfig`. Pure.

use std::collections::HashMap;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use podlife::dns::{Resolver, hostname_and_domain};
use podlife::resources;
use podlife::security::{Seccomp, any_privileged, derive_effective};
use podlife::spec::{containers, init_containers, is_host_network, name, namespace, pod_spec, uid};
use podlife::sysctls::dotted;

use crate::cri::v1;
use crate::observe::{POD_NAME, POD_NAMESPACE, POD_UID, pod_log_directory};

/// Settings of the node that sandboxes share.
pub struct SandboxSettings<'a> {
    pub cgroup_root: &'a str,
    pub pod_log_dir: &'a Path,
    pub cluster_domain: &'a str,
    pub seccomp_dir: &'a Path,
}

pub fn derive_sandbox_config(
    pod: &Pod,
    attempt: u32,
    resolver: &Resolver,
    settings: &SandboxSettings<'_>,
) -> v1::PodSandboxConfig {
    let (hostname, domain) = hostname_and_domain(pod, settings.cluster_domain);
    let fqdn = pod_spec(pod).set_hostname_as_fqdn == Some(true) && !domain.is_empty();
    let hostname = match (is_host_network(pod), fqdn) {
        // The runtime fills in the host's own.
        (true, _) => String::new(),
        (false, true) => format!("{hostname}.{domain}"),
        (false, false) => hostname,
    };
    let log_directory = pod_log_directory(settings.pod_log_dir, namespace(pod), name(pod), uid(pod));
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt,
        }),
        hostname,
        log_directory: log_directory.display().to_string(),
        dns_config: Some(v1::DnsConfig {
            servers: resolver.servers.clone(),
            searches: resolver.searches.clone(),
            options: resolver.options.clone(),
        }),
        port_mappings: derive_port_mappings(pod),
        labels: derive_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(derive_linux(pod, settings)),
    }
}

fn derive_labels(pod: &Pod) -> HashMap<String, String> {
    let own = [(POD_NAME, name(pod)), (POD_NAMESPACE, namespace(pod)), (POD_UID, uid(pod))];
    let labels = pod.metadata.labels.clone().unwrap_or_default().into_iter();
    labels.chain(own.map(|(key, value)| (key.to_owned(), value.to_owned()))).collect()
}

fn derive_port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    if is_host_network(pod) {
        return Vec::new();
    }
    let sidecars = init_containers(pod).iter().filter(|container| podlife::spec::is_sidecar(container));
    let ports = containers(pod).iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mapping = |port: &k8s_openapi::api::core::v1::ContainerPort| v1::PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => v1::Protocol::Udp,
            Some("SCTP") => v1::Protocol::Sctp,
            _ => v1::Protocol::Tcp,
        } as i32,
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    };
    ports.filter(|port| port.host_port.is_some_and(|port| port > 0)).map(mapping).collect()
}

/// Namespaces as CRI names them; `target` is an ephemeral container's target.
pub fn derive_namespaces(pod: &Pod, target: Option<&str>) -> v1::NamespaceOption {
    let spec = pod_spec(pod);
    let mode = |host: Option<bool>, otherwise: v1::NamespaceMode| {
        if host == Some(true) { v1::NamespaceMode::Node as i32 } else { otherwise as i32 }
    };
    let shared = spec.share_process_namespace == Some(true);
    let pid = if shared { v1::NamespaceMode::Pod } else { v1::NamespaceMode::Container };
    let pid = match target {
        Some(_) => v1::NamespaceMode::Target as i32,
        None => mode(spec.host_pid, pid),
    };
    v1::NamespaceOption {
        network: mode(spec.host_network, v1::NamespaceMode::Pod),
        pid,
        ipc: mode(spec.host_ipc, v1::NamespaceMode::Pod),
        target_id: target.unwrap_or_default().to_owned(),
    }
}

/// CRI's form of a seccomp choice.
pub fn derive_seccomp(seccomp: &Seccomp, seccomp_dir: &Path) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (kind, localhost_ref) = match seccomp {
        Seccomp::Unconfined => (ProfileType::Unconfined, String::new()),
        Seccomp::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        Seccomp::Localhost(path) => (ProfileType::Localhost, seccomp_dir.join(path).display().to_string()),
    };
    v1::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn derive_linux(pod: &Pod, settings: &SandboxSettings<'_>) -> v1::LinuxPodSandboxConfig {
    // A container without settings of its own has the pod's.
    let effective = derive_effective(pod, &k8s_openapi::api::core::v1::Container::default());
    let number = |value: Option<i64>| value.map(|value| v1::Int64Value { value });
    let security = pod_spec(pod).security_context.as_ref();
    let sysctls = security.and_then(|security| security.sysctls.clone()).unwrap_or_default();
    let limits = resources::pod_limits(pod);
    v1::LinuxPodSandboxConfig {
        cgroup_parent: resources::pod_cgroup(settings.cgroup_root, pod),
        security_context: Some(v1::LinuxSandboxSecurityContext {
            namespace_options: Some(derive_namespaces(pod, None)),
            run_as_user: number(effective.run_as_user),
            run_as_group: number(effective.run_as_group.filter(|_| effective.run_as_user.is_some())),
            supplemental_groups: effective.supplemental_groups,
            privileged: any_privileged(pod),
            // The pause process needs no more than the runtime's default.
            seccomp: Some(derive_seccomp(&Seccomp::RuntimeDefault, settings.seccomp_dir)),
            ..Default::default()
        }),
        sysctls: sysctls.into_iter().map(|sysctl| (dotted(&sysctl.name).into_owned(), sysctl.value)).collect(),
        overhead: None,
        resources: Some(v1::LinuxContainerResources {
            cpu_period: resources::CPU_PERIOD_US,
            cpu_quota: limits.cpu_quota_us.unwrap_or(0),
            cpu_shares: limits.cpu_shares.unwrap_or(0),
            memory_limit_in_bytes: limits.memory_bytes.unwrap_or(0),
            ..Default::default()
        }),
    }
}

//! The CRI configuration of one container instance, and the files on the host that it needs.
//!
//! Input: pod, container, image, environment, sandbox. Output: `ContainerConfig`, or the message of a
//! CreateContainerConfigError. Invariant: every host path handed to the runtime exists and was made or checked here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use podlife::dns::hostname_and_domain;
use podlife::expand::{expand, expand_strict};
use podlife::security::{Seccomp, derive_effective, verify_non_root};
use podlife::spec::{container_hash, is_host_network, name, namespace, pod_spec, uid};
use podlife::{hosts_file, resources, signal};

use crate::config::NodeConfig;
use crate::cri::v1;
use crate::images::PresentImage;
use crate::observe::{
    CONTAINER_HASH, CONTAINER_NAME, MESSAGE_PATH, MESSAGE_POLICY, POD_NAME, POD_NAMESPACE, POD_UID, RESTART_COUNT,
    pod_log_directory,
};
use crate::sandbox_config::{derive_namespaces, derive_seccomp};
use crate::volumes::{host_directory, pod_dir, subpath};

const ETC_HOSTS: &str = "/etc/hosts";
const DEFAULT_MESSAGE_PATH: &str = "/dev/termination-log";

/// What the container is made from.
pub struct ContainerInputs<'a> {
    pub config: &'a NodeConfig,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    pub image: &'a PresentImage,
    pub env: &'a [(String, String)],
    pub pod_ips: &'a [String],
    /// Container id of an ephemeral container's target.
    pub target_id: Option<&'a str>,
    pub node_memory_bytes: i64,
}

/// Makes the files, then the configuration. Blocking, but only a few small files.
pub fn prepare_container(inputs: &ContainerInputs<'_>) -> Result<v1::ContainerConfig, String> {
    let ContainerInputs { config, pod, container, .. } = inputs;
    verify_non_root(pod, container, inputs.image.uid, &inputs.image.username)?;
    let logs = pod_log_directory(&config.pod_log_dir, namespace(pod), name(pod), uid(pod)).join(&container.name);
    std::fs::create_dir_all(&logs)
        .map_err(|error| format!("create container log directory for container {} failed: {error}", container.name))?;
    let env = inputs.env.iter().cloned().collect::<BTreeMap<_, _>>();
    let expand_all = |words: &Option<Vec<String>>| {
        words.iter().flatten().map(|word| expand(word, |name| env.get(name).cloned())).collect::<Vec<_>>()
    };
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: inputs.attempt }),
        image: Some(v1::ImageSpec {
            image: inputs.image.reference.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: inputs
            .env
            .iter()
            .map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        mounts: derive_mounts(inputs, &env)?,
        labels: derive_labels(pod, container),
        annotations: derive_annotations(container, inputs.attempt),
        log_path: log_path(&container.name, inputs.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(derive_linux(inputs)),
        stop_signal: container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.as_deref())
            .map_or(0, signal::number_of),
    })
}

/// Relative to the pod's log directory: `<container>/<attempt>.log`.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

fn derive_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let own = [
        (CONTAINER_NAME, container.name.as_str()),
        (POD_NAME, name(pod)),
        (POD_NAMESPACE, namespace(pod)),
        (POD_UID, uid(pod)),
    ];
    own.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn message_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().unwrap_or(DEFAULT_MESSAGE_PATH)
}

fn derive_annotations(container: &Container, attempt: u32) -> HashMap<String, String> {
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    [
        (CONTAINER_HASH, format!("{:x}", container_hash(container))),
        (RESTART_COUNT, attempt.to_string()),
        (MESSAGE_PATH, message_path(container).to_owned()),
        (MESSAGE_POLICY, policy.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn derive_mounts(inputs: &ContainerInputs<'_>, env: &BTreeMap<String, String>) -> Result<Vec<v1::Mount>, String> {
    let ContainerInputs { config, pod, container, .. } = inputs;
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        mounts.push(derive_volume_mount(inputs, mount, index, env)?);
    }
    let takes_hosts = container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == ETC_HOSTS);
    if !takes_hosts && (is_host_network(pod) || !inputs.pod_ips.is_empty()) {
        let path = write_hosts_file(inputs).map_err(|error| format!("cannot write the hosts file: {error}"))?;
        mounts.push(plain_mount(ETC_HOSTS, &path));
    }
    if !message_path(container).is_empty() {
        let directory = pod_dir(&config.kubelet_dir, uid(pod)).join("containers").join(&container.name);
        let path = directory.join(inputs.attempt.to_string());
        make_message_file(&path).map_err(|error| format!("cannot make the termination message's file: {error}"))?;
        mounts.push(plain_mount(message_path(container), &path));
    }
    Ok(mounts)
}

fn plain_mount(container_path: &str, host_path: &Path) -> v1::Mount {
    v1::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.display().to_string(),
        ..Default::default()
    }
}

/// Any user of the container may write it.
fn make_message_file(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, b"")?;
    Ok(rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o666))?)
}

fn derive_volume_mount(
    inputs: &ContainerInputs<'_>,
    mount: &VolumeMount,
    index: usize,
    env: &BTreeMap<String, String>,
) -> Result<v1::Mount, String> {
    let ContainerInputs { config, pod, container, .. } = inputs;
    let volume = pod_spec(pod).volumes.iter().flatten().find(|volume| volume.name == mount.name);
    let missing = || format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name);
    let volume = volume.ok_or_else(missing)?;
    let mut host_path = host_directory(&config.kubelet_dir, pod, volume).ok_or_else(missing)?;
    let sub_path = derive_sub_path(mount, env)?;
    if !sub_path.is_empty() {
        let target = pod_dir(&config.kubelet_dir, uid(pod))
            .join("volume-subpaths")
            .join(&mount.name)
            .join(&container.name)
            .join(index.to_string());
        host_path = subpath::bind_subpath(&host_path, &sub_path, &target).map_err(|error| {
            // What is wrong with the host's files is not the user's to know.
            tracing::warn!(%error, pod = name(pod), volume = %mount.name, "cannot prepare subPath");
            format!("failed to prepare subPath for volumeMount \"{}\" of container \"{}\"", mount.name, container.name)
        })?;
    }
    // Content volumes are the kubelet's to write.
    let managed = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some();
    let mount_path = mount.mount_path.clone();
    Ok(v1::Mount {
        container_path: if mount_path.starts_with('/') { mount_path } else { format!("/{mount_path}") },
        host_path: host_path.display().to_string(),
        readonly: mount.read_only == Some(true) || managed,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
            _ => v1::MountPropagation::PropagationPrivate,
        } as i32,
        ..Default::default()
    })
}

/// Texts are upstream's.
fn derive_sub_path(mount: &VolumeMount, env: &BTreeMap<String, String>) -> Result<String, String> {
    let sub_path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => expand_strict(expression, |name| env.get(name).cloned())
            .map_err(|missing| format!("missing value for \"{missing}\""))?,
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if sub_path.starts_with('/') {
        return Err(format!("error SubPath `{sub_path}` must not be an absolute path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{sub_path}`: must not contain '..'"));
    }
    Ok(sub_path)
}

fn write_hosts_file(inputs: &ContainerInputs<'_>) -> std::io::Result<PathBuf> {
    let ContainerInputs { config, pod, .. } = inputs;
    let path = pod_dir(&config.kubelet_dir, uid(pod)).join("etc-hosts");
    let text = if is_host_network(pod) {
        hosts_file::derive_host_network_hosts_file(pod, &std::fs::read_to_string(ETC_HOSTS)?)
    } else {
        let (hostname, domain) = hostname_and_domain(pod, &config.cluster_domain);
        hosts_file::derive_hosts_file(pod, inputs.pod_ips, &hostname, &domain)
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Containers that run have the inode mounted: write in place, and only if it differs.
    if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
        std::fs::write(&path, text)?;
        rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o644))?;
    }
    Ok(path)
}

fn derive_linux(inputs: &ContainerInputs<'_>) -> v1::LinuxContainerConfig {
    let ContainerInputs { config, pod, container, .. } = inputs;
    let effective = derive_effective(pod, container);
    let limits = resources::container_limits(container);
    let number = |value: Option<i64>| value.map(|value| v1::Int64Value { value });
    let from_image = effective.run_as_user.is_none();
    let seccomp_dir = config.kubelet_dir.join("seccomp");
    let (masked_paths, readonly_paths) = derive_proc_masks(effective.unmasked_proc || effective.privileged);
    let security_context = v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: effective.add_capabilities.clone(),
            drop_capabilities: effective.drop_capabilities.clone(),
        }),
        privileged: effective.privileged,
        namespace_options: Some(derive_namespaces(pod, inputs.target_id)),
        run_as_user: number(effective.run_as_user.or(inputs.image.uid)),
        run_as_username: if from_image && inputs.image.uid.is_none() {
            inputs.image.username.clone()
        } else {
            String::new()
        },
        run_as_group: number(effective.run_as_group),
        readonly_rootfs: effective.read_only_root,
        supplemental_groups: effective.supplemental_groups.clone(),
        supplemental_groups_policy: if effective.strict_groups {
            v1::SupplementalGroupsPolicy::Strict
        } else {
            v1::SupplementalGroupsPolicy::Merge
        } as i32,
        no_new_privs: !effective.allow_privilege_escalation,
        masked_paths,
        readonly_paths,
        seccomp: Some(derive_seccomp(effective.seccomp.as_ref().unwrap_or(&Seccomp::Unconfined), &seccomp_dir)),
        apparmor: None,
    };
    v1::LinuxContainerConfig {
        resources: Some(v1::LinuxContainerResources {
            cpu_period: resources::CPU_PERIOD_US,
            cpu_quota: limits.cpu_quota_us.unwrap_or(0),
            cpu_shares: limits.cpu_shares.unwrap_or(0),
            memory_limit_in_bytes: limits.memory_bytes.unwrap_or(0),
            oom_score_adj: resources::oom_score_adj(pod, container, inputs.node_memory_bytes),
            ..Default::default()
        }),
        security_context: Some(security_context),
    }
}

/// What is hidden and what is read-only under /proc by default.
fn derive_proc_masks(unmasked: bool) -> (Vec<String>, Vec<String>) {
    const MASKED: [&str; 10] = [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
    ];
    const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    if unmasked {
        return (Vec::new(), Vec::new());
    }
    let masked = MASKED.into_iter().chain(["/sys/firmware", "/sys/devices/virtual/powercap"]);
    (masked.map(str::to_owned).collect(), READ_ONLY.map(str::to_owned).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sub_path_expr: &str, expect: Result<&str, &str>) {
        let env = BTreeMap::from([("POD".to_owned(), "p".to_owned()), ("ABS".to_owned(), "/x".to_owned())]);
        let mount = VolumeMount { sub_path_expr: Some(sub_path_expr.to_owned()), ..Default::default() };
        assert_eq!(derive_sub_path(&mount, &env).as_deref().map_err(String::as_str), expect);
    }

    #[test]
    fn sub_paths_expand_and_stay_inside() {
        check("a/$(POD)", Ok("a/p"));
        check("$(ABS)", Err("error SubPath `/x` must not be an absolute path"));
        check("../$(POD)", Err("unable to provision SubPath `../p`: must not contain '..'"));
        check("$(NONE)", Err("missing value for \"NONE\""));
    }
}
